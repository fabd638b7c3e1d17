// Speed against accuracy of the variants, as measured while the runner runs.
import { $, make, ms, number, shape, text } from "./dom.js";

export function draw(state) {
  const t = state.tradeoff;
  $("tradeoff-none").hidden = Boolean(t);
  $("tradeoff").hidden = !t;
  if (!t) return;
  text("tradeoff-note", t.note);
  const rows = t.variants;
  $("variants").tBodies[0].replaceChildren(...rows.map((v) => make("tr", v.active ? { class: "active" } : {},
    make("th", { scope: "row" }, v.name), make("td", {}, ms(v.latency_p50_ms)), make("td", {}, v.fps ? v.fps.toFixed(1) : "–"),
    make("td", {}, v.reference ? "reference" : v.agreement === null ? "–" : (100 * v.agreement).toFixed(1) + " %" +
      (v.low !== null ? " (" + (100 * v.low).toFixed(0) + "–" + (100 * v.high).toFixed(0) + ")" : "")),
    make("td", {}, v.ap_here ? number(v.ap_here.map50, 1) + " here" : v.ap ? v.ap.map50.toFixed(1) : "–"))));
  const g = state.governor;
  text("governor", g ? "Governor: " + g.text : "");
  chart(rows.filter((v) => v.latency_p50_ms && (v.agreement !== null || v.reference)));
}

function chart(rows) {
  const W = Math.max(280, $("chart").clientWidth || 620), H = 300, L = 46, R = 16, T = 14, B = 40;
  const svg = shape("svg", { viewBox: "0 0 " + W + " " + H, role: "img" });
  if (!rows.length) { $("chart").replaceChildren(make("p", { class: "quiet" }, "The first samples are being taken…")); return; }
  const quality = (v) => v.reference ? 1 : v.agreement;
  const x0 = Math.min(...rows.map((v) => v.latency_p50_ms)) * 0.7, x1 = Math.max(...rows.map((v) => v.latency_p50_ms)) * 1.35;
  const low = Math.min(0.95, ...rows.map((v) => v.reference || v.low === null ? quality(v) : v.low));
  const y0 = Math.max(0, Math.floor((low - 0.02) * 20) / 20), y1 = 1;
  const X = (v) => L + (W - L - R) * Math.log(v / x0) / Math.log(x1 / x0), Y = (v) => T + (H - T - B) * (y1 - v) / (y1 - y0);
  for (let i = 0; i <= 4; i++) {
    const value = y0 + (y1 - y0) * i / 4;
    svg.append(shape("line", { class: "grid", x1: L, x2: W - R, y1: Y(value), y2: Y(value) }),
      shape("text", { x: L - 8, y: Y(value) + 4, "text-anchor": "end" }, (100 * value).toFixed(0) + " %"));
  }
  for (const tick of [0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].filter((v) => v > x0 && v < x1)) {
    svg.append(shape("line", { class: "grid", x1: X(tick), x2: X(tick), y1: T, y2: H - B }),
      shape("text", { x: X(tick), y: H - B + 17, "text-anchor": "middle" }, String(tick)));
  }
  svg.append(shape("text", { x: W - R, y: H - 6, "text-anchor": "end" }, W > 480 ? "ms for one frame (log scale), less is faster" : "ms for one frame (log scale)"));
  const front = rows.filter((v) => v.front).sort((a, b) => a.latency_p50_ms - b.latency_p50_ms);
  if (front.length > 1) svg.append(shape("polyline", { class: "front", points: front.map((v) => X(v.latency_p50_ms) + "," + Y(quality(v))).join(" ") }));
  const taken = [];
  for (const v of rows) {
    const x = X(v.latency_p50_ms), y = Y(quality(v));
    if (!v.reference && v.low !== null) svg.append(shape("line", { class: "whisker", x1: x, x2: x, y1: Y(v.low), y2: Y(v.high) }));
    svg.append(shape("circle", { class: "point" + (v.front ? " on-front" : "") + (v.active ? " active" : ""), cx: x, cy: y, r: 6 }));
    if (v.active || v.reference || (v.front && W > 480)) {
      const right = x > W * 0.62;
      let at = y + 18;
      while (taken.some(([a, b]) => Math.abs(a - x) < 130 && Math.abs(b - at) < 13)) at += 13;
      taken.push([x, at]);
      svg.append(shape("text", { class: "name", x: x + (right ? -8 : 8), y: at, "text-anchor": right ? "end" : "start" }, v.name + (v.reference ? " (reference)" : "")));
    }
  }
  svg.setAttribute("aria-label", "Speed against agreement; the table beside it has the numbers");
  $("chart").replaceChildren(svg);
}
