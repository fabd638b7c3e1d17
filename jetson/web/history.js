"use strict";
// Stored events and persons by hour or day. Asks /api/v1/…; nothing is sent back.
(function () {
  const $ = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";
  const COLOURS = ["var(--mask)", "var(--bare)", "var(--wrong)", "var(--s2)", "var(--s5)", "var(--s3)", "var(--s1)"];
  const USUAL = ["with_mask", "without_mask", "mask_worn_incorrect"];
  const shape = (tag, attributes, words) => {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (words) node.textContent = words;
    return node;
  };
  const cell = (words, tag) => { const node = document.createElement(tag || "td"); node.textContent = words; return node; };
  const ask = (path) => fetch(path).then((answer) => answer.json().then((value) => {
    if (!answer.ok || value.error) throw new Error(value.error || answer.status);
    return value;
  }));
  const when = (seconds, per) => new Date(1000 * seconds).toLocaleString([], per === "day" ?
    { day: "numeric", month: "short" } : { weekday: "short", hour: "2-digit", minute: "2-digit" });
  const readable = (label) => label.replace(/_/g, " ");
  let before = null;

  function fields(time) {
    const out = new URLSearchParams();
    for (const name of ["camera", "label", "zone"]) if ($(name).value) out.set(name, $(name).value);
    if (time) { out.set("since", Math.floor(Date.now() / 1000 - $("span").value.split(",")[0])); }
    return out;
  }

  function offer(select, values) {
    const known = [...select.options].map((option) => option.value);
    for (const value of values) if (value && !known.includes(value)) select.add(new Option(readable(value), value));
  }

  function draw(rows, per, since, until) {
    const step = per === "day" ? 86400 : 3600, first = Math.floor(since / step), count = Math.floor(until / step) - first + 1;
    const labels = [...new Set([...USUAL, ...rows.flatMap((row) => Object.keys(row.persons))])]
      .filter((label) => rows.some((row) => row.persons[label]));
    const W = 900, H = 220, B = 22, L = 34, most = Math.max(1, ...rows.map((row) => labels.reduce((sum, l) => sum + (row.persons[l] || 0), 0)));
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
        bar.style.fill = COLOURS[(USUAL.includes(label) ? USUAL.indexOf(label) : 3 + k) % COLOURS.length];
        bar.append(shape("title", {}, `${when(row.at, per)}: ${value} ${readable(label)}`));
        svg.append(bar);
        base += value;
      });
    }
    svg.append(shape("text", { x: L, y: H - 5 }, when(first * step, per)),
      shape("text", { x: W, y: H - 5, "text-anchor": "end" }, when((first + count - 1) * step, per)));
    $("chart").replaceChildren(svg);
    $("key").replaceChildren(...labels.map((label, k) => {
      const item = document.createElement("span"), mark = document.createElement("i");
      mark.style.background = COLOURS[(USUAL.includes(label) ? USUAL.indexOf(label) : 3 + k) % COLOURS.length];
      item.append(mark, ` ${readable(label)}: ${total(label)} (${Math.round(100 * total(label) / everybody)} %)`);
      return item;
    }));
    $("said").textContent = everybody ? `${everybody} persons` : "Nobody was counted in this time.";
    offer($("label"), labels);
  }

  function table(events, add) {
    const rows = events.map((event) => {
      const row = document.createElement("tr");
      row.append(cell(new Date(event.at).toLocaleString()), cell(event.kind), cell(event.camera === undefined ? "" : event.camera),
        cell(event.label ? readable(event.label) : event.reason || ""), cell(event.zone || ""), cell(event.person === undefined ? "" : event.person));
      return row;
    });
    if (add) $("rows").append(...rows); else $("rows").replaceChildren(...rows);
    offer($("camera"), [...new Set(events.map((event) => event.camera === undefined || event.camera === null ? "" : String(event.camera)))].sort());
  }

  function show() {
    const [seconds, per] = $("span").value.split(","), until = Date.now() / 1000, since = until - seconds;
    const hours = new URLSearchParams({ since: since.toFixed(0), until: until.toFixed(0), per });
    if ($("camera").value) hours.set("camera", $("camera").value);
    $("csv").href = "api/v1/events.csv?" + fields(true);
    before = null;
    ask("api/v1/hours?" + hours).then((found) => draw(found.rows, per, since, until))
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

  $("form").addEventListener("submit", (event) => { event.preventDefault(); show(); });
  $("span").addEventListener("change", show);
  $("camera").addEventListener("change", show);
  $("label").addEventListener("change", show);
  $("more").addEventListener("click", () => { older().catch((error) => { $("said").textContent = error.message; }); });
  show();
}());
