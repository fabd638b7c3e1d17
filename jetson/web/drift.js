// Then and now, per camera and signal. Asks /api/drift every few seconds while it is shown.
import { $, ask, make, shape } from "./dom.js";
import { live } from "./state.js";

let shown = false, timer = 0;
const called = (c) => live.state && live.state.cameras[c.index] && live.state.cameras[c.index].name !== String(c.index) ? live.state.cameras[c.index].name : "Camera " + c.index;
const span = (s) => s < 5400 ? Math.max(1, Math.round(s / 60)) + " min" : s < 172800 ? +(s / 3600).toFixed(1) + " h" :
  +(s / 86400).toFixed(1) + " days";
const percent = (share) => (100 * share).toFixed(share < 0.0995 ? 1 : 0) + " %";
const WORDS = {
  brightness: { title: "Brightness", unit: "mean grey level", show: (v) => v.toFixed(0), low: "dark", high: "bright" },
  sharpness: { title: "Sharpness", unit: "edges to contrast, log10", show: (v) => v.toFixed(2), low: "blurred", high: "sharp" },
  score: { title: "Score of faces", unit: "0 to 1", show: (v) => v.toFixed(2), low: "unsure", high: "sure" },
  size: { title: "Height of faces", unit: "of the picture's height", show: (v) => percent(2 ** v), low: "small", high: "large" },
  agreement: { title: "Agreement of the variants", unit: "per frame", show: percent, low: "none", high: "whole" },
};

function chart(signal) {
  const words = WORDS[signal.name], W = 300, H = 132, T = 6, B = 34, bins = signal.then.length;
  const width = (signal.high - signal.low) / bins, both = signal.then.map((v, i) => Math.max(v, signal.now ? signal.now[i] : 0));
  let from = both.findIndex((v) => v > 0.002), to = bins - 1 - [...both].reverse().findIndex((v) => v > 0.002);
  from = Math.max(0, from - 1);
  to = Math.min(bins - 1, to + 1);
  while (to - from < 9 && (from > 0 || to < bins - 1)) { from = Math.max(0, from - 1); to = Math.min(bins - 1, to + 1); }
  const most = Math.max(...both), X = (i) => W * (i - from) / (to - from + 1), Y = (v) => T + (H - T - B) * (1 - v / most);
  const steps = (shares) => { let d = ""; for (let i = from; i <= to; i++) d += (d ? "L" : "M") + X(i) + " " + Y(shares[i]) + "L" + X(i + 1) + " " + Y(shares[i]); return d; };
  const svg = shape("svg", { viewBox: "0 0 " + W + " " + H, role: "img", "aria-label": words.title + ": then " +
    words.show(signal.mean_then) + (signal.now ? ", now " + words.show(signal.mean_now) : "") });
  svg.append(shape("path", { class: "then", d: "M" + X(from) + " " + Y(0) + steps(signal.then).replace("M", "L") + "L" + X(to + 1) + " " + Y(0) + "Z" }));
  svg.append(shape("line", { class: "grid", x1: 0, x2: W, y1: Y(0), y2: Y(0) }));
  if (signal.now) svg.append(shape("path", { class: "now", d: steps(signal.now) }));
  svg.append(shape("text", { x: 0, y: H - 18 }, words.show(signal.low + from * width)),
    shape("text", { x: W, y: H - 18, "text-anchor": "end" }, words.show(signal.low + (to + 1) * width)),
    shape("text", { x: 0, y: H - 3, class: "end" }, "← " + words.low), shape("text", { x: W, y: H - 3, class: "end", "text-anchor": "end" }, words.high + " →"));
  return svg;
}

function verdict(signal, data) {
  if (signal.state === "none") return signal.name === "agreement" ? "not measured: the trade-off is off, or no sample yet" : "not measured yet";
  if (signal.state === "learning") return "learning: " + signal.learned + " of " + signal.of + " slices of " + span(data.slice_s);
  if (signal.state === "waiting") return "learnt; the present is being gathered";
  if (signal.state === "few") return "too few values now to tell (" + signal.values_now + ")";
  return "";
}

function drawSignal(signal, data) {
  const words = WORDS[signal.name] || { title: signal.title, unit: "", show: (v) => v.toFixed(2), low: "", high: "" };
  const state = signal.ratio === null ? "wait" : signal.ratio >= 1 ? "lost" : "live";
  const box = make("div", { class: "signal" }, make("h3", {}, words.title + " ", make("span", { class: "quiet" }, words.unit)));
  if (signal.then) {
    box.append(make("div", { class: "chart" + (state === "lost" ? " moved" : signal.state === "few" ? " few" : "") }, chart(signal)));
    box.append(make("dl", { class: "row3" },
      make("div", {}, make("dt", {}, "then"), make("dd", {}, words.show(signal.mean_then))),
      make("div", {}, make("dt", {}, "now"), make("dd", {}, signal.mean_now === null ? "–" : words.show(signal.mean_now))),
      make("div", {}, make("dt", {}, "of the limit"), make("dd", {}, signal.ratio === null ? "–" : percent(signal.ratio)))));
  }
  box.append(make("p", { class: "small" }, make("span", { class: "dot", "data-state": state },
    state === "lost" ? "more than usual" : state === "live" ? "usual" : ""), " ", make("span", { class: "quiet" }, verdict(signal, data))));
  return box;
}

function draw(data) {
  $("intro").textContent = "How each camera looked in its first " + span(86400 * data.days) + ", and how it looks now (the last " + span(data.now_s) +
    "). " + (data.kept ? "" : "Kept in memory only: a restart begins anew; --drift FILE keeps it. ") + (data.error || "");
  $("drift").replaceChildren(...data.cameras.map((c) => {
    const state = c.look ? "stuck" : c.ratio === null ? "wait" : "ok";
    const said = c.look ? "look at this camera" : c.ratio !== null ? "as in its first " + span(86400 * data.days) :
      c.state === "learning" ? "learning, " + percent(c.learned) : c.state === "none" ? "nothing seen yet" : "not enough seen yet";
    return make("section", { class: "card", "aria-label": called(c) },
      make("div", { class: "cam" }, make("h2", {}, called(c)), make("span", { class: "mono quiet" }, c.name), make("span", { class: "grow" }),
        make("span", { class: "pill", "data-state": state }, make("i", { "aria-hidden": "true" }), make("b", {}, said))),
      c.reason ? make("p", {}, c.reason) : "",
      make("p", { class: "key small quiet" }, make("i", { class: "then" }), "then ", make("i", { class: "now" }), "now"),
      make("div", { class: "signals" }, ...c.signals.map((signal) => drawSignal(signal, data))));
  }));
}

function refresh() {
  ask("api/drift").then(draw, (error) => { $("intro").textContent = "No answer from the runner: " + error.message; })
    .then(() => { if (shown) timer = setTimeout(refresh, 5000); });
}

export function show(wish) {
  shown = wish;
  clearTimeout(timer);
  if (shown) refresh();
}
