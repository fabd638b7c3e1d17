// One camera large: its picture, who is in it now and was today, its lines and zones, and what has happened.
import { $, ask, clock, make, ms, number, shape, text, unit } from "./dom.js";
import * as editor from "./editor.js";
import * as events from "./events.js";
import * as history from "./history.js";
import * as overlay from "./overlay.js";
import { brief, called, classes, find, live, total } from "./state.js";

const ICONS = { // each role has a shape of its own, for those who see no red and green
  ok: [["circle", { cx: 12, cy: 12, r: 9.5 }], ["path", { d: "m7.5 12.3 3.2 3.2 6-6.5" }]],
  alert: [["path", { d: "M8 2.500h8L21.5 8v8L16 21.500H8L2.5 16V8z" }], ["path", { d: "m8.5 8.5 7 7m0-7-7 7" }]],
  attention: [["path", { d: "M12 3 22 20.500H2z" }], ["path", { d: "M12 9.500v5.200m0 2.600v.1" }]],
  ignore: [["circle", { cx: 12, cy: 12, r: 9.5 }]],
};
const MANY = 6; // of more classes only those are shown that were seen
const STAGES = [["wait", "waiting", "--s3"], ["preprocess", "preprocess", "--s1"], ["queue", "hand over", "--s5"],
  ["infer", "infer", "--s4"], ["postprocess", "postprocess", "--s2"]];
const picture = $("picture");
let name = null, paused = false, retry = 0, spot = "", told = 0, today = null, due = 0;

const place = (c) => c.kind === "file" || c.kind === "folder" ? c.source.replace(/\/+$/, "").split("/").pop() : c.source;
export const current = () => name;

// The picture ------------------------------------------------------------------------------------------------------
export function look() {
  clearTimeout(retry);
  if (name === null || paused || document.hidden) return; // a hidden tab needs no pictures: nothing is encoded for it
  picture.src = "stream.mjpg?camera=" + encodeURIComponent(name) + "&t=" + Date.now();
}
picture.addEventListener("error", () => { clearTimeout(retry); if (name !== null) retry = setTimeout(look, 1500); });

export function pause(wish) {
  if (name === null) return;
  paused = wish;
  $("pause").setAttribute("aria-pressed", String(paused));
  text("pause", paused ? "Resume" : "Pause");
  if (!paused) { look(); return; }
  // A still of what is shown, so that no stream runs behind a paused picture.
  const canvas = document.createElement("canvas");
  canvas.width = picture.naturalWidth || 640;
  canvas.height = picture.naturalHeight || 360;
  canvas.getContext("2d").drawImage(picture, 0, 0);
  picture.src = canvas.toDataURL("image/jpeg", 0.9);
}
export const toggle = () => pause(!paused);
export const full = () => document.fullscreenElement ? document.exitFullscreen() : $("frame").requestFullscreen().catch(() => {});

export function show(wish) { // a camera's name; null: another view is shown
  if (wish === name) return;
  if (name !== null) editor.close();
  name = wish;
  spot = "";
  today = null;
  due = 0;
  paused = false;
  $("pause").setAttribute("aria-pressed", "false");
  text("pause", "Pause");
  if (name === null) picture.removeAttribute("src"); else look();
}

// Its state ----------------------------------------------------------------------------------------------------------
export function draw(state) {
  const c = find(name);
  if (!c) return;
  learn();
  text("camera-name", c.name === String(c.index) ? "Camera " + c.name : c.name);
  drawPicture(c);
  drawCounts(c);
  drawPeople(c);
  drawPlaces(c);
  drawSpeed(state);
  drawFacts(c);
  redraw();
  $("edit").hidden = !live.me.changes || editor.active();
  if (Date.now() > due) askToday(c);
}

export function redraw() {
  const c = find(name);
  if (c && !editor.active()) overlay.draw($("overlay"), $("view"), $("veil").hidden ? c : null);
}

function drawPicture(c) {
  const word = { live: "live", lost: "no picture", starting: "starting", ended: "ended" }[c.status];
  text("camera-state", c.status === "live" && c.frozen ? "standing still" : word);
  $("camera-state").dataset.state = c.frozen ? "wait" : c.status;
  text("camera-facts", [place(c), c.frame_wh ? c.frame_wh.join("×") : "",
    c.status === "live" ? c.camera_fps.toFixed(1) + " frames/s in" : "", spot ? "point " + spot : ""].filter(Boolean).join("  ·  "));
  const veil = c.status === "lost" || c.status === "starting";
  $("veil").hidden = !veil;
  picture.classList.toggle("old", veil); // an old picture would lie
  text("veil-title", c.status === "lost" ? "No picture since " + clock(c.since, live.state.time) : "Waiting for the first picture");
  text("veil-text", c.status === "lost" ? c.last_error + " · " + c.restarts + " restarts since the start" : place(c));
  picture.alt = c.status === "live" ? "Live picture: " + classes.names.map((k) => c.now[k] + " " + called(k)).join(", ") : "No live picture";
}

function learn() { // the classes, at the first state and when a runner of another bundle has taken over
  if (told === classes.told) return;
  told = classes.told;
  const icon = (role) => {
    const svg = shape("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" });
    svg.append(...ICONS[role].map(([tag, attributes]) => shape(tag, attributes)));
    return svg;
  };
  $("now").replaceChildren(...classes.names.map((k) => make("li", { class: "role-" + classes.roles[k], id: "tile-" + k }, icon(classes.roles[k]),
    make("output", { id: "now-" + k }, "–"), make("span", {}, brief(k)))));
  $("share").replaceChildren(...classes.names.map((k) => make("i", { class: "role-" + classes.roles[k] })));
  $("persons").replaceChildren(...classes.names.map((k) => make("div", { id: "row-" + k }, make("dt", {}, brief(k)), make("dd", { id: "persons-" + k }, "–"))));
}

function drawCounts(c) {
  const known = c.status === "live" || c.status === "ended", persons = today || c.persons, sum = total(persons);
  for (const k of classes.names) {
    text("now-" + k, known ? String(c.now[k]) : "–");
    text("persons-" + k, String(persons[k] || 0));
    $("tile-" + k).hidden = $("row-" + k).hidden = !(classes.names.length <= MANY || persons[k] > 0 || c.now[k] > 0);
  }
  text("persons-title", today ? "Persons today" : "Persons so far");
  const good = classes.names.filter((k) => classes.roles[k] === "ok").reduce((all, k) => all + (persons[k] || 0), 0);
  text("persons-total", sum ? "· " + sum + " · " + Math.round(100 * good / sum) + " % as they should" : "");
  const bar = $("share");
  classes.names.forEach((k, i) => { bar.children[i].style.width = sum ? 100 * (persons[k] || 0) / sum + "%" : "0"; });
  bar.setAttribute("aria-label", sum ? classes.names.map((k) => (persons[k] || 0) + " " + called(k)).join(", ") : "No person counted yet");
}

function drawPeople(c) {
  const faces = c.faces.filter((face) => classes.roles[face.label] !== "ignore");
  $("people").replaceChildren(...(faces.length ? faces.map((face) => make("li", { class: "role-" + classes.roles[face.label] },
    make("b", {}, face.counted ? "#" + face.id : "new"), make("span", {}, called(face.label)), make("span", { class: "quiet" }, Math.round(100 * face.confidence) + " %"))) :
    [make("li", { class: "quiet" }, c.status === "live" ? "Nobody is in the picture." : "There is no live picture.")]));
}

function askToday(c) {
  due = Date.now() + 30000;
  const mine = name, midnight = new Date(live.state.time);
  midnight.setHours(0, 0, 0, 0);
  const wanted = new URLSearchParams({ camera: c.name, since: String(midnight / 1000), until: String(Math.ceil(Date.parse(live.state.time) / 1000)) });
  ask("api/v1/hours?" + wanted).then((found) => {
    if (mine !== name) return;
    today = {};
    for (const row of found.rows) for (const [k, count] of Object.entries(row.persons)) today[k] = (today[k] || 0) + count;
    draw(live.state);
  }, () => { if (mine === name) today = null; });
  history.small($("camera-chart"), c.name).then((there) => { $("camera-history").hidden = !there; });
  $("camera-more").href = "#history=" + encodeURIComponent(c.name);
}

function drawPlaces(c) {
  const places = c.lines.map((one) => [one.name, "line", [["in", one.in], ["out", one.out]]]).concat(
    c.zones.map((one) => [one.name, "zone", [["in it now", one.now], ["entered so far", one.entered]]]));
  $("places").hidden = !places.length;
  $("places-list").replaceChildren(...places.map(([title, kind, rows]) => make("div", { class: "place" },
    make("h3", {}, title + " ", make("span", { class: "quiet" }, kind)),
    make("table", {}, make("thead", {}, make("tr", {}, make("td", {}), make("th", { scope: "col" }, "persons"), ...classes.names.map((k) => make("th", { scope: "col" }, brief(k))))),
      make("tbody", {}, ...rows.map(([word, counts]) => make("tr", {}, make("th", { scope: "row" }, word), make("td", { class: "total" }, String(counts.total)), ...classes.names.map((k) => make("td", {}, String(counts[k]))))))))));
}

function drawSpeed(state) {
  const latency = state.latency_ms, bar = $("bar"), list = $("stages");
  text("fps", number(state.fps, 1));
  unit("lat50", ms(latency.total.p50), "ms");
  unit("lat99", ms(latency.total.p99), "ms");
  if (!list.children.length) {
    for (const [key, word, colour] of STAGES) {
      const swatch = make("i"), part = make("i");
      swatch.style.background = part.style.background = "var(" + colour + ")";
      list.append(make("li", {}, swatch, word, make("b", { id: "stage-" + key }, "–")));
      bar.append(part);
    }
  }
  STAGES.forEach(([key], i) => {
    text("stage-" + key, ms(latency[key].p50));
    bar.children[i].style.flexGrow = String(latency[key].p50 || 0);
  });
  bar.setAttribute("aria-label", "Latency by stage in ms: " + STAGES.map(([k, w]) => w + " " + ms(latency[k].p50)).join(", "));
}

function drawFacts(c) {
  const rows = [["address", place(c)], ["frames/s in, out", c.camera_fps.toFixed(1) + ", " + c.result_fps.toFixed(1)],
    ["age of the picture", c.status === "live" ? ms(c.frame_age_ms) + " ms" : "–"], ["frames skipped", String(c.dropped)],
    ["restarts", String(c.restarts)]];
  if (c.last_error) rows.push(["last error", c.last_error]);
  if (c.drift) rows.push(["then and now", c.drift.look ? "look at it" : c.drift.ratio !== null ? "as it was" :
    c.drift.state === "learning" ? "learning, " + Math.floor(100 * c.drift.learned) + " %" : "not enough seen yet"]);
  $("facts").replaceChildren(...rows.flatMap(([k, v]) => [make("dt", {}, k), make("dd", {}, v)]));
}

export function drawEvents() { if (name !== null) events.draw($("camera-events"), name); }

export function begin() {
  new ResizeObserver(redraw).observe($("view"));
  $("pause").addEventListener("click", toggle);
  $("full").addEventListener("click", full);
  $("edit").addEventListener("click", () => editor.open(find(name)));
  editor.begin(() => { if (live.state) draw(live.state); });
  document.addEventListener("visibilitychange", () => {
    if (paused || name === null) return; // the still stays
    if (document.hidden) picture.removeAttribute("src"); else look();
  });
  $("view").addEventListener("click", (event) => {
    const c = find(name);
    if (!c || !c.frame_wh || editor.active()) return;
    const [x, y] = overlay.share($("view"), overlay.fit($("view"), c.frame_wh), event);
    if (Math.min(x, y) >= 0 && Math.max(x, y) <= 1) { spot = x.toFixed(2) + "," + y.toFixed(2); drawPicture(c); }
  });
}
