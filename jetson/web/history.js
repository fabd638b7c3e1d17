// Stored events and persons by hour or day, of all cameras or one. Asks /api/v1/…; nothing is sent back.
import { $, ask, make, shape } from "./dom.js";
import { thumbnail } from "./media.js";
import { classes, live } from "./state.js";

const COLOURS = ["var(--mask)", "var(--bare)", "var(--wrong)", "var(--s2)", "var(--s5)", "var(--s3)", "var(--s1)"];
const USUAL = ["with_mask", "without_mask", "mask_worn_incorrect"];
const colour = (label, k) => COLOURS[(USUAL.includes(label) ? USUAL.indexOf(label) : 3 + k) % COLOURS.length];
const cell = (words) => make("td", {}, words);
const when = (seconds, per) => new Date(1000 * seconds).toLocaleString([], per === "day" ?
  { day: "numeric", month: "short" } : { weekday: "short", hour: "2-digit", minute: "2-digit" });
const readable = (label) => label.replace(/_/g, " ");
let before = null;

function fields(time) {
  const out = new URLSearchParams();
  for (const [name, id] of [["camera", "of"], ["label", "label"], ["zone", "zone"]]) if ($(id).value) out.set(name, $(id).value);
  if (time) { out.set("since", Math.floor(Date.now() / 1000 - $("span").value.split(",")[0])); }
  return out;
}

function offer(select, values) {
  const known = [...select.options].map((option) => option.value);
  for (const value of values) if (value && !known.includes(value)) select.add(new Option(select.id === "of" ? value : readable(value), value));
}

// The share of persons in whom nothing is wrong, 0 to 1; null where nobody was.
function share(persons) {
  const all = Object.values(persons).reduce((sum, count) => sum + count, 0);
  const right = Object.keys(persons).filter((label) => classes.roles[label] === "ok").reduce((sum, label) => sum + persons[label], 0);
  return all ? right / all : null;
}

function chart(rows, per, since, until, W, H) {
  const step = per === "day" ? 86400 : 3600, first = Math.floor(since / step), count = Math.floor(until / step) - first + 1;
  const labels = [...new Set([...USUAL, ...rows.flatMap((row) => Object.keys(row.persons))])]
    .filter((label) => rows.some((row) => row.persons[label]));
  const B = 22, L = 34, most = Math.max(1, ...rows.map((row) => labels.reduce((sum, l) => sum + (row.persons[l] || 0), 0)));
  const X = (i) => L + (W - L) * i / count, Y = (v) => 6 + (H - B - 6) * (1 - v / most);
  const total = (label) => rows.reduce((sum, row) => sum + (row.persons[label] || 0), 0);
  const everybody = labels.reduce((sum, label) => sum + total(label), 0);
  const svg = shape("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": "Persons by " + per + ": " +
    labels.map((label) => total(label) + " " + readable(label)).join(", ") });
  for (const value of [most, most / 2, 0]) {
    svg.append(shape("line", { class: "grid", x1: L, x2: W, y1: Y(value), y2: Y(value) }));
    if (Number.isInteger(value)) svg.append(shape("text", { x: L - 5, y: Y(value) + 4, "text-anchor": "end" }, String(value)));
  }
  for (const row of rows) {
    let base = 0;
    const i = Math.floor(row.at / step) - first;
    labels.forEach((label, k) => {
      const value = row.persons[label] || 0;
      if (!value) return;
      const bar = shape("rect", { x: X(i) + 0.5, width: Math.max(1, X(i + 1) - X(i) - 1), y: Y(base + value), height: Y(base) - Y(base + value) });
      bar.style.fill = colour(label, k);
      bar.append(shape("title", {}, `${when(row.at, per)}: ${value} ${readable(label)}`));
      svg.append(bar);
      base += value;
    });
  }
  const shares = rows.filter((row) => share(row.persons) !== null).map((row) => {
    const i = Math.floor(row.at / step) - first, x = (X(i) + X(i + 1)) / 2, part = share(row.persons);
    const point = shape("circle", { class: "comply", cx: x, cy: 6 + (H - B - 6) * (1 - part), r: 2.5 });
    point.append(shape("title", {}, `${when(row.at, per)}: ${Math.round(100 * part)} % as they should be`));
    return { i, point, at: x + "," + point.getAttribute("cy") };
  });
  shares.forEach((one, k) => { // joined where nothing is missing between
    if (k && shares[k - 1].i === one.i - 1) svg.append(shape("polyline", { class: "comply", points: shares[k - 1].at + " " + one.at }));
  });
  svg.append(...shares.map((one) => one.point));
  svg.append(shape("text", { x: L, y: H - 5 }, when(first * step, per)),
    shape("text", { x: W, y: H - 5, "text-anchor": "end" }, when((first + count - 1) * step, per)));
  return { svg, labels, total, everybody };
}

function draw(rows, per, since, until) {
  const made = chart(rows, per, since, until, $("history-chart").clientWidth || 320, 220);
  $("history-chart").replaceChildren(made.svg);
  $("key").replaceChildren(...made.labels.map((label, k) => {
    const item = make("span"), mark = make("i");
    mark.style.background = colour(label, k);
    item.append(mark, ` ${readable(label)}: ${made.total(label)} (${Math.round(100 * made.total(label) / made.everybody)} %)`);
    return item;
  }));
  const sums = Object.fromEntries(made.labels.map((label) => [label, made.total(label)]));
  const part = share(sums);
  $("said").textContent = part === null ? "Nobody was counted in this time." :
    `${made.everybody} persons, ${Math.round(100 * part)} % as they should be. Line: that share, 0 to 100 % of the height.`;
  offer($("label"), made.labels);
}

function table(events, add) {
  const rows = events.map((event) => {
    const row = make("tr");
    row.append(cell(new Date(event.at).toLocaleString()), cell(event.kind), cell(event.camera === undefined || event.camera === null ? "" : String(event.camera)),
      cell(event.label ? readable(event.label) : event.reason || ""), cell(event.zone || ""), cell(event.person === undefined || event.person === null ? "" : "#" + event.person));
    row.append(make("td", { class: "media" }, ...thumbnail(event, readable(event.label || event.kind))));
    return row;
  });
  if (add) $("rows").append(...rows); else $("rows").replaceChildren(...rows);
  offer($("of"), [...new Set(events.map((event) => event.camera === undefined || event.camera === null ? "" : String(event.camera)))].sort());
}

function refresh() {
  const [seconds, per] = $("span").value.split(","), until = Date.now() / 1000, since = until - seconds;
  const hours = new URLSearchParams({ since: since.toFixed(0), until: until.toFixed(0), per });
  if ($("of").value) hours.set("camera", $("of").value);
  $("csv").href = "api/v1/events.csv?" + fields(true);
  $("json").href = "api/v1/events?count=10000&" + fields(true);
  before = null;
  ask("api/v1/hours?" + hours).then((found) => {
    const all = seconds > 366 * 86400; // from the first day that is kept
    draw(found.rows, per, all ? (found.rows.length ? found.rows[0].at : until - 86400) : since, until);
  })
    .then(older).catch((error) => { $("said").textContent = "No answer: " + error.message; });
}

function older() {
  const wanted = fields(true), add = before !== null;
  wanted.set("count", "50");
  if (add) wanted.set("before", before);
  return ask("api/v1/events?" + wanted).then((found) => {
    table(found.events, add);
    before = found.before;
    $("more").hidden = before === null;
  });
}

// The last day of one camera as a small chart; false where no events are kept.
export function small(place, camera) {
  const until = Date.now() / 1000, since = until - 86400;
  return ask("api/v1/hours?" + new URLSearchParams({ camera, since: since.toFixed(0), until: until.toFixed(0) })).then((found) => {
    place.parentElement.hidden = false;
    place.replaceChildren(chart(found.rows, "hour", since, until, place.clientWidth || 320, 130).svg);
    return true;
  }, () => false);
}

export function show(camera) {
  if (live.state) offer($("of"), live.state.cameras.map((c) => c.name));
  offer($("of"), [camera]);
  $("of").value = camera;
  refresh();
}

export function begin() {
  $("form").addEventListener("submit", (event) => { event.preventDefault(); refresh(); });
  for (const id of ["span", "of", "label"]) $(id).addEventListener("change", refresh);
  $("more").addEventListener("click", () => { older().catch((error) => { $("said").textContent = error.message; }); });
}
