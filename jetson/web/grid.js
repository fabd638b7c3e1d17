// All cameras beside each other. Their small pictures come in one stream: a browser asks a server six at a time.
import { $, clock, make, text } from "./dom.js";
import { brief, called, classes, live, total } from "./state.js";

const MARKS = { ok: "✓", alert: "✕", attention: "!" };
const STATES = { live: "live", lost: "no picture", starting: "starting", ended: "ended" };
const tiles = new Map(); // by the camera's key
let shown = false, stream = null, retry = 0, order = "";

export function show(wish) {
  shown = wish;
  watch();
}
document.addEventListener("visibilitychange", watch);

function watch() { // a hidden page needs no pictures: none are encoded for it
  const wanted = shown && !document.hidden;
  if (wanted === Boolean(stream)) return;
  clearTimeout(retry);
  if (!wanted) { stream.abort(); stream = null; return; }
  const mine = stream = new AbortController();
  read(mine).catch(() => {}).then(() => {
    if (stream !== mine) return;
    stream = null;
    retry = setTimeout(watch, 1500);
  });
}

async function read(control) {
  const answer = await fetch("api/v1/pictures", { signal: control.signal });
  if (!answer.ok || !answer.body) throw new Error(String(answer.status));
  const reader = answer.body.getReader();
  let rest = new Uint8Array(0);
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const all = new Uint8Array(rest.length + value.length);
    all.set(rest);
    all.set(value, rest.length);
    let at = 0;
    while (all.length - at >= 8) { // length and camera, four bytes each, and a JPEG
      const head = new DataView(all.buffer, at, 8), length = head.getUint32(0);
      if (all.length - at - 8 < length) break;
      picture(head.getUint32(4), all.slice(at + 8, at + 8 + length));
      at += 8 + length;
    }
    rest = all.slice(at);
  }
}

async function picture(key, jpeg) {
  const tile = tiles.get(key);
  if (!tile) return;
  const image = await createImageBitmap(new Blob([jpeg], { type: "image/jpeg" }));
  tile.canvas.width = image.width;
  tile.canvas.height = image.height;
  tile.canvas.getContext("2d").drawImage(image, 0, 0);
  image.close();
  tile.drawn = true;
}

function build(cameras) {
  const known = new Map(tiles);
  tiles.clear();
  for (const c of cameras) {
    let tile = known.get(c.key);
    if (!tile) {
      const canvas = make("canvas", { width: 320, height: 180, "aria-hidden": "true" }), veil = make("span", { class: "tile-veil", hidden: "" });
      const name = make("b", {}), dot = make("span", { class: "dot" }), counts = make("span", { class: "tile-counts" }), note = make("span", { class: "tile-note quiet" });
      const link = make("a", { class: "tile" }, make("span", { class: "tile-picture" }, canvas, veil),
        make("span", { class: "tile-head" }, name, dot), counts, note);
      tile = { item: make("li", {}, link), link, canvas, veil, name, dot, counts, note, drawn: false };
    }
    tiles.set(c.key, tile);
  }
  $("tiles").replaceChildren(...[...tiles.values()].map((tile) => tile.item));
}

export function draw(state) {
  const now = state.cameras.map((c) => c.key).join(" ");
  if (now !== order) { order = now; build(state.cameras); }
  let people = 0, lit = 0;
  for (const c of state.cameras) {
    const tile = tiles.get(c.key), known = c.status === "live" || c.status === "ended", here = known ? total(c.now) : 0;
    people += here;
    lit += c.status === "live";
    const word = c.status === "live" && c.frozen ? "standing still" : c.status === "live" && c.dark ? "dark" : STATES[c.status];
    put(tile.name, c.name);
    put(tile.dot, word);
    tile.dot.dataset.state = c.status === "live" && (c.frozen || c.dark) ? "wait" : c.status;
    const veil = c.status === "lost" || c.status === "starting" || !tile.drawn;
    tile.veil.hidden = !veil;
    tile.canvas.classList.toggle("old", veil && c.status !== "live"); // an old picture would lie
    put(tile.veil, c.status === "lost" ? "No picture since " + clock(c.since, state.time) : "Waiting for a picture");
    const alarms = known ? classes.names.filter((name) => classes.roles[name] === "alert").reduce((sum, name) => sum + c.now[name], 0) : 0;
    tile.link.classList.toggle("alarm", alarms > 0);
    const parts = ["ok", "alert", "attention"].filter((role) => classes.names.some((name) => classes.roles[name] === role)).map((role) =>
      [role, known ? classes.names.filter((name) => classes.roles[name] === role).reduce((sum, name) => sum + c.now[name], 0) : "–"]);
    const told = JSON.stringify(parts);
    if (tile.told !== told) {
      tile.told = told;
      tile.counts.replaceChildren(...parts.map(([role, count]) => make("span", { class: "role-" + role + (count > 0 ? "" : " none") }, make("i", { "aria-hidden": "true" }, MARKS[role]), String(count))));
    }
    const places = c.zones.filter((zone) => zone.now.total).map((zone) => zone.name + " " + zone.now.total).join(" · ");
    put(tile.note, places || (c.drift && c.drift.look ? "look at it: drifted" : c.persons.total + " so far"));
    tile.link.href = "#camera=" + encodeURIComponent(c.name);
    tile.link.setAttribute("aria-label", c.name + ", " + word + (known ? ", now " + classes.names.map((name) => c.now[name] + " " + called(name)).join(", ") : ""));
  }
  const count = state.cameras.length;
  text("grid-said", count + (count === 1 ? " camera · " : " cameras · ") + lit + " live" + (count - lit ? " · " + (count - lit) + " without a live picture" : "") +
    " · " + people + (people === 1 ? " person" : " persons") + " in the pictures now");
  text("grid-key", "In each picture now: " + ["ok", "alert", "attention"].flatMap((role) => {
    const names = classes.names.filter((name) => classes.roles[name] === role);
    return names.length ? [MARKS[role] + " " + names.map(brief).join(", ")] : [];
  }).join(" · "));
}
const put = (node, words) => { if (node.textContent !== words) node.textContent = words; };
export const cameras = () => live.state ? live.state.cameras : [];
