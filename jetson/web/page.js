// The page: which view is shown, by the address; keys; and what stands around the views.
import * as alerts from "./alerts.js";
import * as camera from "./camera.js";
import { $, bytes, clock, make, span, text } from "./dom.js";
import * as drift from "./drift.js";
import * as editor from "./editor.js";
import * as events from "./events.js";
import * as grid from "./grid.js";
import * as history from "./history.js";
import * as media from "./media.js";
import * as live from "./state.js";
import * as theme from "./theme.js";
import * as tradeoff from "./tradeoff.js";

const VIEWS = ["cameras", "camera", "history", "alerts", "tradeoff", "drift"];
let shown = "", named = null;

// Which view ---------------------------------------------------------------------------------------------------------
function wish() { // [view, name]: by what follows the #, or by the path of an older link, or by how many cameras there are
  const [view, name] = location.hash.slice(1).split("=");
  const cameras = live.live.state ? live.live.state.cameras : [];
  if (VIEWS.includes(view)) return [view, name === undefined ? "" : decode(name)];
  const path = location.pathname.split("/").pop();
  if (!view && VIEWS.includes(path)) return [path, ""];
  return cameras.length === 1 ? ["camera", cameras[0].name] : ["cameras", ""];
}
function decode(name) { try { return decodeURIComponent(name); } catch (error) { return name; } }

function route() {
  const state = live.live.state;
  if (!state) return;
  let [view, name] = wish();
  if (view === "camera" && !live.find(name)) { // it was renamed or taken away, or the link names its position
    const other = state.cameras[Number(name)];
    if (name !== "" && other) name = other.name; else view = "cameras";
  }
  if (view === shown && name === named) return;
  const first = !shown;
  shown = view;
  named = name;
  for (const one of VIEWS) $("view-" + one).hidden = one !== view;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === (view === "camera" ? "cameras" : view)) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  grid.show(view === "cameras");
  camera.show(view === "camera" ? name : null);
  alerts.show(view === "alerts");
  drift.show(view === "drift");
  if (view === "history") history.show(name);
  if (!first) { scrollTo(0, 0); $("main").focus({ preventScroll: true }); }
  draw(state);
  drawEvents();
}
const go = (hash) => { location.hash = hash; };
const choose = (c) => { if (c) go("camera=" + encodeURIComponent(c.name)); };

// What stands around the views -----------------------------------------------------------------------------------------
function draw(state) {
  text("variant", state.variant.name + " · " + state.variant.runtime);
  const health = $("health");
  health.dataset.state = state.health.status;
  health.title = state.health.reason || "";
  health.lastChild.textContent = { ok: "healthy", degraded: "degraded", stuck: "stuck" }[state.health.status];
  const about = shown === "camera" ? [live.find(named)] : state.cameras, alert = live.classes.names.filter((k) => live.classes.roles[k] === "alert");
  const count = about.reduce((sum, c) => sum + (c ? alert.reduce((all, k) => all + c.now[k], 0) : 0), 0);
  document.title = (state.health.status === "ok" ? "" : "⚠ ") +
    (alert.length ? count + " " + (alert.length === 1 ? live.called(alert[0]) : "alarms") + " · " : "") + (shown === "camera" && named ? named + " · " : "") + "jetmask";
  if (shown === "cameras") { grid.draw(state); drawMachine(state); }
  if (shown === "camera") camera.draw(state);
  if (shown === "tradeoff") tradeoff.draw(state);
  alerts.warn(state);
  const p = state.privacy;
  text("privacy", [p.faces_blurred ? "Faces are blurred." : "Faces are shown.",
    p.crops_kept ? "The best picture of each person is kept in memory." : "",
    p.pictures_stored ? "Pictures of persons are stored with the events." : "",
    p.frames_stored ? "Whole frames or clips are stored." : "",
    p.crops_kept || p.pictures_stored || p.frames_stored ? "" : "No picture is stored.",
    p.events_file ? "Events are written to a file." : ""].filter(Boolean).join(" "));
  text("foot", "jetmask " + state.version + " · " + clock(state.time));
}

function drawMachine(state) {
  const rows = [], board = state.board || {};
  if (board.model) rows.push(["board", board.model]);
  if (board.power_mode) rows.push(["power mode", board.power_mode]);
  for (const [name, value] of Object.entries(board.power_mw || {}).slice(0, 4)) rows.push([name, (value / 1000).toFixed(2) + " W"]);
  for (const [name, value] of Object.entries(board.temperature_c || {}).slice(0, 4)) rows.push([name, value.toFixed(1) + " °C"]);
  for (const [name, value] of [["GPU", board.gpu_load], ["CPU", board.cpu_load]]) if (typeof value === "number") rows.push([name, value.toFixed(0) + " %"]);
  if (typeof board.throttled === "boolean") rows.push(["throttled", board.throttled ? "yes" : "no"]);
  rows.push(["frames/s, all cameras", state.fps.toFixed(1)], ["memory", bytes(state.memory_bytes)], ["running for", span(state.uptime_s)],
    ["engine errors", String(state.engine_errors)], ["bundle", state.bundle]);
  $("board").replaceChildren(...rows.flatMap(([k, v]) => [make("dt", {}, k), make("dd", {}, v)]));
}

let drawn = "";
function drawEvents() { // with the state, twice a second at most: busy cameras have dozens of events a second
  const now = [shown, named, live.live.change].join(" ");
  if (now === drawn) return;
  drawn = now;
  if (shown === "cameras") events.draw($("events"), null);
  if (shown === "camera") camera.drawEvents();
}

live.on("state", (state) => { route(); draw(state); drawEvents(); });
live.on("events", (news) => {
  if (shown !== "camera") return; // of twenty cameras nobody could listen to it
  for (const e of news.slice(-3)) if (e.kind === "enter" && String(e.camera) === named && /alert|attention/.test(e.role)) text("polite", "Person " + e.person + ": " + live.called(e.label));
});
live.on("contact", (now) => {
  if (now) { camera.look(); return; } // a stream of pictures that breaks off tells the page nothing
  $("health").dataset.state = "gone";
  $("health").lastChild.textContent = "no contact";
  $("veil").hidden = false;
  text("veil-title", "No contact with the runner");
  text("veil-text", "Last word at " + new Date(live.live.last).toLocaleTimeString([], { hour12: false }) + "; it is tried again.");
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || editor.active() || !live.live.state) return;
  if (/^(BUTTON|INPUT|SELECT|TEXTAREA|SUMMARY)$/.test(event.target.tagName)) return;
  const cameras = live.live.state.cameras, at = cameras.findIndex((c) => c.name === named);
  if (event.key >= "1" && event.key <= "9") choose(cameras[Number(event.key) - 1]);
  if (event.key === "g" || (event.key === "Escape" && shown === "camera" && !document.fullscreenElement)) go("cameras");
  if (shown !== "camera") return;
  if (event.key === " " && event.target.tagName !== "A") { event.preventDefault(); camera.toggle(); }
  if (event.key === "f") camera.full();
  if (event.key === "ArrowRight") choose(cameras[(at + 1) % cameras.length]);
  if (event.key === "ArrowLeft") choose(cameras[(at + cameras.length - 1) % cameras.length]);
});
addEventListener("hashchange", route);
theme.begin();
history.begin();
media.begin();
camera.begin();
live.begin();
