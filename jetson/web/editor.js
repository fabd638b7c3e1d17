// Lines and zones drawn on the picture with mouse, finger or keys, named, and sent to the runner, which keeps them.
import { $, ask, button, make, shape, text } from "./dom.js";
import * as overlay from "./overlay.js";

const NAME = /^[\p{L}\p{N}_][\p{L}\p{N}_.-]{0,39}$/u;
const NEAR = 14; // px: a click so near the first point closes the zone
const STEP = 0.01; // of the picture, by an arrow key
let camera = null, items = [], adding = null, dragged = null, closed = () => {};

export const active = () => camera !== null;
const view = () => $("view"), box = () => overlay.fit(view(), camera.frame_wh);
const within = (value) => Math.min(1, Math.max(0, Math.round(value * 1e4) / 1e4));

export function open(c) {
  if (!c || !c.frame_wh) return;
  camera = c;
  items = c.lines.map((one) => ({ kind: "line", name: one.name, points: one.points.map((p) => p.slice()) })).concat(
    c.zones.map((one) => ({ kind: "zone", name: one.name, points: one.points.map((p) => p.slice()) })));
  adding = null;
  $("editor").hidden = false;
  $("edit").hidden = true;
  view().classList.add("drawing");
  say(items.length ? "Drag a point to move it, or draw a new line or zone." : "Begin with “New line” or “New zone”.");
  list();
  draw();
  $("new-line").focus();
}

export function close() {
  if (!camera) return;
  camera = null;
  adding = dragged = null;
  $("editor").hidden = true;
  view().classList.remove("drawing");
  closed();
}

const say = (words, bad) => { text("editor-said", words); $("editor-said").classList.toggle("bad", Boolean(bad)); };

function begin_item(kind) {
  let number = 1;
  while (items.some((one) => one.name === kind + number)) number++;
  adding = { kind, name: kind + number, points: [] };
  say(kind === "line" ? "Click where the line begins, then where it ends. The arrow shows the way in." :
    "Click the corners one after another; click the first one again, or press Enter, to close the zone.");
  draw();
}

function finish() {
  if (!adding) return;
  const done = adding;
  adding = null;
  if (done.points.length < (done.kind === "line" ? 2 : 3)) { say("A " + done.kind + " needs more points; it was left out.", true); draw(); return; }
  items.push(done);
  list();
  draw();
  const field = $("editor-list").lastElementChild.querySelector("input");
  field.focus();
  field.select();
  say("Give it a name, and save.");
}

// The list of what is there ----------------------------------------------------------------------------------------
function list() {
  $("editor-list").replaceChildren(...items.map((one) => {
    const field = make("input", { value: one.name, maxlength: "40", autocomplete: "off", spellcheck: "false", "aria-label": "Name of this " + one.kind });
    field.addEventListener("input", () => { one.name = field.value.trim(); check(); draw(); });
    const tools = [field];
    if (one.kind === "line") tools.push(button("Turn", { title: "Swap in and out", "aria-label": "Swap in and out of " + one.name }, () => { one.points.reverse(); draw(); }));
    tools.push(button("Remove", { "aria-label": "Remove " + one.name }, () => { items = items.filter((other) => other !== one); list(); draw(); check(); $("new-line").focus(); }));
    return make("li", {}, make("span", { class: "quiet" }, one.kind), ...tools);
  }));
}

function check() {
  const bad = items.find((one) => !NAME.test(one.name)), names = items.map((one) => one.name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (bad) say("A name has letters, digits, “_”, “-” and “.”, and no blank: " + (bad.name || "it is empty"), true);
  else if (twice !== undefined) say("Two are called " + twice + ".", true);
  else say("");
  return !bad && twice === undefined;
}

// On the picture -----------------------------------------------------------------------------------------------------
function draw() {
  const svg = $("overlay");
  const focus = document.activeElement && document.activeElement.dataset.at;
  svg.replaceChildren();
  const all = adding ? items.concat([adding]) : items, at = (p) => overlay.pixel(box(), p);
  for (const one of all) {
    const points = one.points.map(at);
    if (one === adding && points.length > 1) svg.append(shape("polyline", { class: "edge", points: points.map((p) => p.join(",")).join(" ") }), shape("polyline", { class: "line", points: points.map((p) => p.join(",")).join(" ") }));
    else if (one.kind === "line" && points.length === 2) svg.append(overlay.line(svg, points[0], points[1]));
    else if (one.kind === "zone" && points.length > 2) overlay.zone(svg, points, false);
    if (one !== adding) overlay.label(svg, box(), points[0][0], points[0][1] - 16, one.name);
    points.forEach((p, i) => {
      const handle = shape("circle", { class: "handle", cx: p[0], cy: p[1], r: 8, tabindex: "0", role: "button", "aria-label": "Point " + (i + 1) + " of " + one.name + "; arrow keys move it" });
      handle.dataset.at = all.indexOf(one) + "," + i;
      handle.addEventListener("pointerdown", (event) => {
        if (one === adding) return;
        event.stopPropagation();
        event.preventDefault();
        handle.focus();
        dragged = one.points[i];
        svg.setPointerCapture(event.pointerId);
      });
      handle.addEventListener("keydown", (event) => keys(event, one, i));
      svg.append(handle);
    });
  }
  if (focus) { const again = svg.querySelector('[data-at="' + focus + '"]'); if (again) again.focus(); }
}

function keys(event, one, i) {
  const way = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] }[event.key];
  if (way) one.points[i] = one.points[i].map((value, k) => within(value + way[k]));
  else if (event.key === "Delete" && one.kind === "zone" && one.points.length > 3) one.points.splice(i, 1);
  else return;
  event.preventDefault();
  event.stopPropagation();
  draw();
}

function down(event) {
  if (!camera || !adding || event.button > 0) return;
  event.preventDefault();
  const place = overlay.share(view(), box(), event).map(within), first = adding.points[0];
  if (first && adding.kind === "zone" && adding.points.length > 2) {
    const a = overlay.pixel(box(), first), b = overlay.pixel(box(), place);
    if (Math.hypot(a[0] - b[0], a[1] - b[1]) < NEAR) { finish(); return; }
  }
  adding.points.push(place);
  if (adding.kind === "line" && adding.points.length === 2) finish(); else draw();
}

function move(event) {
  if (!dragged || !camera) return;
  const place = overlay.share(view(), box(), event).map(within);
  dragged[0] = place[0];
  dragged[1] = place[1];
  draw();
}

function save() {
  if (adding) finish();
  if (!camera || !check()) return;
  say("Saving…");
  ask("api/v1/zones?camera=" + encodeURIComponent(camera.name), { method: "PUT", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ zones: items }) })
    .then(() => { close(); text("polite", "Lines and zones are saved."); }, (error) => say("Not saved: " + error.message, true));
}

export function begin(after) {
  closed = after;
  $("new-line").addEventListener("click", () => begin_item("line"));
  $("new-zone").addEventListener("click", () => begin_item("zone"));
  $("editor-save").addEventListener("click", save);
  $("editor-cancel").addEventListener("click", () => { close(); $("edit").focus(); });
  $("overlay").addEventListener("pointerdown", down);
  $("overlay").addEventListener("pointermove", move);
  for (const name of ["pointerup", "pointercancel"]) $("overlay").addEventListener(name, () => { dragged = null; });
  new ResizeObserver(() => { if (camera) draw(); }).observe(view());
  document.addEventListener("keydown", (event) => {
    if (!camera) return;
    if (event.key === "Enter" && adding) { event.preventDefault(); finish(); }
    if (event.key === "Escape") {
      event.stopImmediatePropagation();
      if (adding) { adding = null; say("Left out."); draw(); } else { close(); $("edit").focus(); }
    }
  });
}
