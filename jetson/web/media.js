// Pictures and clips that are kept of events: a thumbnail each, opened large; clips are played here, frame by frame.
import { $, button, make } from "./dom.js";

const here = (url) => url.replace(/^\//, ""); // below whatever path a proxy serves this
let playing = 0;

// Buttons for what there is of an event or alert: [] where nothing is kept.
export function thumbnail(event, words) {
  const out = [];
  if (event.picture_url) {
    const image = make("img", { src: here(event.picture_url), alt: words, loading: "lazy" });
    const open = button("", { class: "thumb", "aria-label": "Picture: " + words }, () => show(event.frame_url || event.picture_url, words));
    image.addEventListener("error", () => open.remove()); // gone meanwhile
    open.append(image);
    out.push(open);
  }
  if (event.clip_url) out.push(button("▶ Clip", { "aria-label": "Play the clip: " + words }, () => play(event.clip_url, words)));
  return out;
}

function open(words, url, name, body) {
  stop();
  $("media-title").textContent = words;
  $("media-file").href = here(url);
  $("media-file").download = name;
  $("media-body").replaceChildren(body);
  if (!$("media").open) $("media").showModal();
}

function show(url, words) {
  open(words, url, "event.jpg", make("img", { src: here(url), alt: words }));
}

// The JPEGs of a Motion JPEG AVI and the seconds of each. jetson/events/avi.py writes them in this order.
export function frames(data) {
  const view = new DataView(data), found = [], name = (at) => String.fromCharCode(...new Uint8Array(data, at, 4));
  if (data.byteLength < 64 || name(0) !== "RIFF" || name(8) !== "AVI ") throw new Error("This is not a clip.");
  const each = view.getUint32(32, true) / 1e6;
  for (let at = 12; at + 8 <= data.byteLength;) {
    const size = view.getUint32(at + 4, true), kind = name(at);
    if (kind === "LIST" && name(at + 8) === "movi") { at += 12; continue; } // into it
    if (kind === "00dc") found.push(new Blob([new Uint8Array(data, at + 8, size)], { type: "image/jpeg" }));
    at += 8 + size + size % 2;
  }
  return { found, each };
}

function play(url, words) {
  const canvas = make("canvas", { role: "img", "aria-label": words }), said = make("p", { class: "quiet small", role: "status" }, "Loading…");
  const again = button("Pause", {}, () => { running = !running; again.textContent = running ? "Pause" : "Play"; if (running) turn(); });
  const at = make("input", { type: "range", min: "0", value: "0", "aria-label": "Position in the clip" });
  let running = true, number = 0, clip = null, timer = 0;
  open(words, url, "clip.avi", make("div", { class: "clip" }, canvas, make("p", { class: "under" }, again, at), said));
  const mine = ++playing;
  const draw = (k) => createImageBitmap(clip.found[k]).then((image) => {
    if (canvas.width !== image.width) { canvas.width = image.width; canvas.height = image.height; }
    canvas.getContext("2d").drawImage(image, 0, 0);
    image.close();
    at.value = String(k);
    said.textContent = (k * clip.each).toFixed(1) + " of " + (clip.found.length * clip.each).toFixed(1) + " s";
  });
  const turn = () => {
    clearTimeout(timer);
    if (mine !== playing || !running || !clip) return;
    draw(number).then(() => {
      number = (number + 1) % clip.found.length;
      timer = setTimeout(turn, 1000 * clip.each);
    }, () => { said.textContent = "A frame cannot be shown."; });
  };
  at.addEventListener("input", () => { number = Number(at.value); running = false; again.textContent = "Play"; if (clip) draw(number); });
  fetch(here(url)).then((answer) => {
    if (!answer.ok) throw new Error(answer.status === 503 ? "It is still being recorded." : "It is not kept any more.");
    return answer.arrayBuffer();
  }).then((data) => {
    clip = frames(data);
    at.max = String(clip.found.length - 1);
    turn();
  }).catch((error) => { said.textContent = error.message; });
}

function stop() { playing++; }

export function begin() {
  $("media-close").addEventListener("click", () => $("media").close());
  $("media").addEventListener("click", (event) => { if (event.target === $("media")) $("media").close(); });
  $("media").addEventListener("close", () => { stop(); $("media-body").replaceChildren(); });
}
