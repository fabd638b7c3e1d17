// Lines and zones over the picture in the page's own pixels, so that a phone's labels are as large as any.
import { shape } from "./dom.js";

// Where the picture stands within its frame: {scale, left, top, w, h} in pixels of the page.
export function fit(view, wh) {
  const W = view.clientWidth, H = view.clientHeight, scale = Math.min(W / wh[0], H / wh[1]);
  return { left: (W - wh[0] * scale) / 2, top: (H - wh[1] * scale) / 2, w: wh[0] * scale, h: wh[1] * scale };
}
export const pixel = (box, [x, y]) => [box.left + x * box.w, box.top + y * box.h];
export function share(view, box, event) { // of the picture, 0 to 1, where the pointer is; outside it, less or more
  const frame = view.getBoundingClientRect();
  return [(event.clientX - frame.left - box.left) / box.w, (event.clientY - frame.top - box.top) / box.h];
}

export function label(overlay, box, x, y, words) {
  const node = shape("text", { x, y, "text-anchor": "middle" }, words), plate = shape("rect", { rx: 4 });
  overlay.append(plate, node);
  const half = node.getComputedTextLength() / 2 + 6;
  const cx = Math.min(Math.max(x, box.left + half + 2), box.left + box.w - half - 2), cy = Math.min(Math.max(y, box.top + 18), box.top + box.h - 7);
  node.setAttribute("x", cx);
  node.setAttribute("y", cy);
  for (const [key, value] of [["x", cx - half], ["y", cy - 15], ["width", 2 * half], ["height", 20]]) plate.setAttribute(key, value);
}

export function zone(overlay, points, busy) {
  const list = points.map((p) => p.join(",")).join(" ");
  overlay.append(shape("polygon", { class: "edge", points: list }), shape("polygon", { class: "polygon" + (busy ? " busy" : ""), points: list }));
}

export function line(overlay, a, b) { // -> the arrow that shows the way in, to be put on top
  const length = Math.hypot(b[0] - a[0], b[1] - a[1]) || 1;
  const dx = (b[0] - a[0]) / length, dy = (b[1] - a[1]) / length, mx = (a[0] + b[0]) / 2, my = (a[1] + b[1]) / 2;
  const place = { x1: a[0], y1: a[1], x2: b[0], y2: b[1] };
  // The way in is to the left hand of a -> b.
  const tip = [mx + dy * 22, my - dx * 22], foot = (s) => [mx + dy * 6 + s * dx * 9, my - dx * 6 + s * dy * 9];
  overlay.append(shape("line", Object.assign({ class: "edge" }, place)), shape("line", Object.assign({ class: "line" }, place)));
  return shape("polygon", { class: "arrow", points: [tip, foot(1), foot(-1)].map((p) => p.join(",")).join(" ") });
}

export function draw(overlay, view, c) {
  overlay.replaceChildren();
  if (!c || !c.frame_wh || !view.clientWidth || !(c.lines.length + c.zones.length)) return;
  const box = fit(view, c.frame_wh), at = (p) => pixel(box, p);
  for (const one of c.zones) zone(overlay, one.points.map(at), one.now.total);
  const arrows = c.lines.map((one) => line(overlay, ...one.points.map(at)));
  for (const one of c.zones) {
    const points = one.points.map(at), top = points.reduce((best, p) => p[1] < best[1] ? p : best);
    label(overlay, box, points.reduce((sum, p) => sum + p[0], 0) / points.length, top[1] + 20, one.name + ": " + one.now.total + " now");
  }
  for (const one of c.lines) {
    const [a, b] = one.points.map(at), low = a[1] > b[1] ? a : b;
    label(overlay, box, low[0] + (a[0] + b[0] - 2 * low[0]) * 0.1, low[1] - 10 + (a[1] + b[1] - 2 * low[1]) * 0.1, one.name + ": " + one.in.total + " in, " + one.out.total + " out");
  }
  overlay.append(...arrows);
}
