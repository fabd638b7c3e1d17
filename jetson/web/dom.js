// Small helpers: elements, and numbers and times in words.
const SVG = "http://www.w3.org/2000/svg";
export const $ = (id) => document.getElementById(id);
export const make = (tag, attributes, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === "class") node.className = value; else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
};
export const shape = (tag, attributes, words) => {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (words) node.textContent = words;
  return node;
};
export const text = (id, value) => { const node = $(id); if (node.textContent !== value) node.textContent = value; };
export const unit = (id, value, name) => {
  const node = $(id);
  if (node.dataset.value === value) return;
  node.dataset.value = value;
  node.replaceChildren(value, make("small", {}, name));
};
export const button = (words, attributes, action) => {
  const node = make("button", Object.assign({ type: "button" }, attributes), words);
  node.addEventListener("click", action);
  return node;
};

export const number = (value, digits) => value === null || value === undefined ? "–" : value.toFixed(digits);
export const ms = (value) => value === undefined || value === null ? "–" : value >= 100 ? value.toFixed(0) : value.toFixed(1);
export const bytes = (value) => value > 1e9 ? (value / 1e9).toFixed(2) + " GB" : (value / 1e6).toFixed(0) + " MB";
export const span = (s) => s < 90 ? Math.round(s) + " s" : s < 5400 ? Math.round(s / 60) + " min" : s < 172800 ?
  (s / 3600).toFixed(1) + " h" : (s / 86400).toFixed(1) + " days";
// Made once: toLocaleTimeString makes a formatter each time, which sixty events twice a second would feel.
const TIME = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const DAY = new Intl.DateTimeFormat([], { day: "numeric", month: "short" });
export const clock = (iso, now) => { // with the day where it is not that of `now`, by the clock of the runner
  const at = new Date(iso);
  return now && at.toDateString() !== new Date(now).toDateString() ? DAY.format(at) + ", " + TIME.format(at) : TIME.format(at);
};

// An answer of the runner; an Error with its own words otherwise.
export const ask = (path, options) => fetch(path, options).then((answer) => answer.text().then((said) => {
  let value = null;
  try { value = JSON.parse(said); } catch (error) { /* words, not JSON */ }
  if (!answer.ok || value === null || value.error) {
    const error = new Error((value && value.error) || said.trim().slice(0, 300) || String(answer.status));
    error.status = answer.status;
    throw error;
  }
  return value;
}));
