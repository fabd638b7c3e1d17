// What has happened, newest first: of one camera, or of all.
import { clock, make, span } from "./dom.js";
import { called, classes, live } from "./state.js";

const MARKS = { ok: "✓", alert: "✕", attention: "!", ignore: "·" };
const stay = (e) => span((Date.parse(e.at) - Date.parse(e.began)) / 1000);

export function words(e) {
  const who = "Person #" + e.person;
  if (e.kind === "enter") return who + " came: " + called(e.label);
  if (e.kind === "change") return who + " now: " + called(e.label);
  if (e.kind === "leave") return who + " left after " + stay(e) + ": " + called(e.label);
  if (e.kind === "crossed") return who + " crossed " + e.line + " (" + e.direction + "): " + called(e.label);
  if (e.kind === "zone entered") return who + " entered " + e.zone + ": " + called(e.label);
  if (e.kind === "zone left") return who + " left " + e.zone + " after " + stay(e) + ": " + called(e.label);
  return e.kind[0].toUpperCase() + e.kind.slice(1) + (e.camera !== undefined && /camera/.test(e.kind) ? " " + e.camera : "") +
    (e.reason ? ": " + e.reason : e.variant ? ": " + e.variant : "");
}

export function draw(list, camera) {
  const found = live.events.filter((e) => camera === null || e.camera === undefined || String(e.camera) === camera).slice(0, 60);
  if (!found.length) { list.replaceChildren(make("li", { class: "quiet" }, "Nothing has happened yet.")); return; }
  list.replaceChildren(...found.map((e) => {
    const person = e.label !== undefined, role = e.role || classes.roles[e.label] || "ok";
    const kind = person ? "role-" + role : /lost|refused|drifted/.test(e.kind) ? "bad" : "good";
    const body = make("span", {}, words(e) + (person && camera === null ? " (" + e.camera + ")" : ""));
    if (person && e.kind === "enter" && live.state && live.state.privacy.crops_kept) {
      const crop = make("img", { src: "api/crops/" + encodeURIComponent(e.camera) + "-" + e.person, alt: "", loading: "lazy" });
      crop.addEventListener("error", () => crop.remove());
      body.append(crop);
    }
    return make("li", { class: kind }, make("time", { datetime: e.at || e.time || "" }, e.at ? clock(e.at, live.state && live.state.time) : ""),
      make("span", { class: "mark", "aria-hidden": "true" }, person ? MARKS[role] : kind === "bad" ? "✕" : "✓"), body);
  }));
}
