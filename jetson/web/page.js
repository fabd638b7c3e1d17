"use strict";
// The page: one event stream feeds everything; nothing is sent back. No library, nothing from elsewhere.
(function () {
  const $ = (id) => document.getElementById(id);
  let CLASSES = [], WORDS = {}, ROLES = {}; // the bundle's, from the first state on
  const MARKS = { ok: "✓", alert: "✕", attention: "!", ignore: "·" };
  const ICONS = { // each role has a shape of its own, for those who see no red and green
    ok: [["circle", { cx: 12, cy: 12, r: 9.5 }], ["path", { d: "m7.5 12.3 3.2 3.2 6-6.5" }]],
    alert: [["path", { d: "M8 2.500h8L21.5 8v8L16 21.500H8L2.5 16V8z" }], ["path", { d: "m8.5 8.5 7 7m0-7-7 7" }]],
    attention: [["path", { d: "M12 3 22 20.500H2z" }], ["path", { d: "M12 9.500v5.200m0 2.600v.1" }]],
    ignore: [["circle", { cx: 12, cy: 12, r: 9.5 }]],
  };
  const MANY = 6; // of more classes only those are shown that were seen
  const STAGES = [["wait", "waiting", "--s3"], ["preprocess", "preprocess", "--s1"], ["queue", "hand over", "--s5"],
    ["infer", "infer", "--s4"], ["postprocess", "postprocess", "--s2"]];
  let camera = 0, paused = false, lastState = 0, state = null, events = [], seen = 0, spoken = "", spot = "", born = 0;

  const make = (tag, attributes, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name === "class") node.className = value; else node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  };
  const SVG = "http://www.w3.org/2000/svg";
  const shape = (tag, attributes, words) => {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (words) node.textContent = words;
    return node;
  };
  const text = (id, value) => { const node = $(id); if (node.textContent !== value) node.textContent = value; };
  const number = (value, digits) => value === null || value === undefined ? "–" : value.toFixed(digits);
  const ms = (value) => value === undefined || value === null ? "–" : value >= 100 ? value.toFixed(0) : value.toFixed(1);
  const bytes = (value) => value > 1e9 ? (value / 1e9).toFixed(2) + " GB" : (value / 1e6).toFixed(0) + " MB";
  const clock = (iso) => { // with the day where it is not today's, by the clock of the runner
    const at = new Date(iso), time = at.toLocaleTimeString([], { hour12: false });
    return state && at.toDateString() !== new Date(state.time).toDateString() ?
      at.toLocaleDateString([], { day: "numeric", month: "short" }) + ", " + time : time;
  };
  const span = (s) => s < 90 ? Math.round(s) + " s" : s < 5400 ? Math.round(s / 60) + " min" : s < 172800 ?
    (s / 3600).toFixed(1) + " h" : (s / 86400).toFixed(1) + " days";
  const place = (c) => c.kind === "file" || c.kind === "folder" ? c.source.replace(/\/+$/, "").split("/").pop() : c.source;
  const unit = (id, value, name) => {
    const node = $(id);
    if (node.dataset.value === value) return;
    node.dataset.value = value;
    node.replaceChildren(value, make("small", {}, name));
  };

  // The picture ----------------------------------------------------------------------------------------------------
  const picture = $("picture");
  let retry = 0;
  function look() {
    clearTimeout(retry);
    if (paused || document.hidden) return; // a hidden tab needs no pictures: nothing is encoded for it
    picture.src = "stream.mjpg?camera=" + camera + "&t=" + Date.now();
  }
  picture.addEventListener("error", () => { clearTimeout(retry); retry = setTimeout(look, 1500); });
  function pause(wish) {
    paused = wish;
    $("pause").setAttribute("aria-pressed", String(paused));
    text("pause", paused ? "Resume" : "Pause");
    if (paused) {
      // A still of what is shown, so that no stream runs behind a paused picture.
      const canvas = document.createElement("canvas");
      canvas.width = picture.naturalWidth || 640;
      canvas.height = picture.naturalHeight || 360;
      canvas.getContext("2d").drawImage(picture, 0, 0);
      picture.src = canvas.toDataURL("image/jpeg", 0.9);
    } else look();
  }
  $("pause").addEventListener("click", () => pause(!paused));
  const full = () => document.fullscreenElement ? document.exitFullscreen() : $("frame").requestFullscreen().catch(() => {});
  $("full").addEventListener("click", full);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || /^(BUTTON|A|INPUT|SUMMARY)$/.test(event.target.tagName)) return;
    if (event.key === " " && event.target === document.body) { event.preventDefault(); pause(!paused); }
    if (event.key === "f") full();
    const wish = Number(event.key) - 1;
    if (event.key >= "1" && event.key <= "9" && state && wish < state.cameras.length) choose(wish);
  });
  document.addEventListener("visibilitychange", () => {
    if (paused) return; // the still stays
    if (document.hidden) picture.removeAttribute("src"); else look();
  });
  function choose(index) {
    camera = index;
    spot = "";
    if (paused) pause(false); else look();
    if (state) draw();
  }

  // The state -------------------------------------------------------------------------------------------------------
  function drawTabs() {
    const tabs = $("tabs");
    tabs.hidden = state.cameras.length < 2;
    if (tabs.hidden) return;
    if (tabs.children.length !== state.cameras.length) {
      tabs.replaceChildren(...state.cameras.map((c) => {
        const button = make("button", { type: "button" }, "Camera " + c.index);
        button.addEventListener("click", () => choose(c.index));
        return button;
      }));
    }
    state.cameras.forEach((c, i) => {
      tabs.children[i].setAttribute("aria-pressed", String(i === camera));
      tabs.children[i].textContent = "Camera " + i + (c.status === "live" ? "" : " · " + c.status);
    });
  }

  function drawPicture(c) {
    const label = { live: "live", lost: "no picture", starting: "starting", ended: "ended" }[c.status];
    text("camera-state", c.status === "live" && c.frozen ? "standing still" : label);
    $("camera-state").dataset.state = c.frozen ? "wait" : c.status;
    text("camera-facts", [place(c), c.frame_wh ? c.frame_wh.join("×") : "",
      c.status === "live" ? c.camera_fps.toFixed(1) + " frames/s in" : "", spot ? "point " + spot : ""].filter(Boolean).join("  ·  "));
    const veil = c.status === "lost" || c.status === "starting";
    $("veil").hidden = !veil;
    picture.classList.toggle("old", veil); // an old picture would lie
    text("veil-title", c.status === "lost" ? "No picture since " + clock(c.since) : "Waiting for the first picture");
    text("veil-text", c.status === "lost" ? c.last_error + " · " + c.restarts + " restarts since the start" : place(c));
    picture.alt = c.status === "live" ? "Live picture: " + CLASSES.map((k) => c.now[k] + " " + WORDS[k]).join(", ") :
      "No live picture";
  }

  const called = (name) => WORDS[name] || name; // an event of a run before may have another bundle's class
  const brief = (name) => WORDS[name] === "mask worn wrong" ? "worn wrong" : WORDS[name];
  function learn() { // the classes, at the first state and when a runner of another bundle has taken over
    const told = JSON.stringify([state.classes, state.words, state.roles]);
    if (learn.told === told) return;
    learn.told = told;
    CLASSES = state.classes.filter((k) => state.roles[k] !== "ignore");
    WORDS = state.words;
    ROLES = state.roles;
    const icon = (role) => {
      const svg = shape("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" });
      svg.append(...ICONS[role].map(([tag, attributes]) => shape(tag, attributes)));
      return svg;
    };
    $("now").replaceChildren(...CLASSES.map((k) => make("li", { class: "role-" + ROLES[k], id: "tile-" + k }, icon(ROLES[k]),
      make("output", { id: "now-" + k }, "–"), make("span", {}, brief(k)))));
    $("share").replaceChildren(...CLASSES.map((k) => make("i", { class: "role-" + ROLES[k] })));
    $("persons").replaceChildren(...CLASSES.map((k) => make("div", { id: "row-" + k }, make("dt", {}, brief(k)), make("dd", { id: "persons-" + k }, "–"))));
  }

  function drawCounts(c) {
    const known = c.status === "live" || c.status === "ended";
    let total = 0;
    for (const name of CLASSES) {
      text("now-" + name, known ? String(c.now[name]) : "–");
      text("persons-" + name, String(c.persons[name]));
      const shown = CLASSES.length <= MANY || c.persons[name] > 0 || c.now[name] > 0;
      $("tile-" + name).hidden = $("row-" + name).hidden = !shown;
      total += c.persons[name];
    }
    text("persons-total", total ? "· " + total : "");
    const share = $("share");
    CLASSES.forEach((name, i) => { share.children[i].style.width = total ? 100 * c.persons[name] / total + "%" : "0"; });
    share.setAttribute("aria-label", total ? CLASSES.map((k) => c.persons[k] + " " + WORDS[k]).join(", ") : "No person counted yet");
  }

  // Lines and zones, drawn over the picture in the page's own pixels, so that a phone's labels are as large as any.
  function drawOverlay(c) {
    const view = $("view"), overlay = $("overlay"), W = view.clientWidth, H = view.clientHeight;
    overlay.replaceChildren();
    if (!c.frame_wh || !W || !H || !(c.lines.length + c.zones.length) || !$("veil").hidden) return;
    const scale = Math.min(W / c.frame_wh[0], H / c.frame_wh[1]), w = c.frame_wh[0] * scale, h = c.frame_wh[1] * scale;
    const at = ([x, y]) => [(W - w) / 2 + x * w, (H - h) / 2 + y * h];
    const label = (x, y, words) => {
      const node = shape("text", { x: x, y: y, "text-anchor": "middle" }, words), box = shape("rect", { rx: 4 });
      overlay.append(box, node);
      const half = node.getComputedTextLength() / 2 + 6;
      const cx = Math.min(Math.max(x, (W - w) / 2 + half + 2), (W + w) / 2 - half - 2), cy = Math.min(Math.max(y, (H - h) / 2 + 18), (H + h) / 2 - 7);
      node.setAttribute("x", cx);
      node.setAttribute("y", cy);
      for (const [key, value] of [["x", cx - half], ["y", cy - 15], ["width", 2 * half], ["height", 20]]) box.setAttribute(key, value);
    };
    for (const zone of c.zones) {
      const points = zone.points.map((p) => at(p).join(",")).join(" ");
      overlay.append(shape("polygon", { class: "edge", points: points }), shape("polygon", { class: "polygon" + (zone.now.total ? " busy" : ""), points: points }));
    }
    const arrows = [];
    for (const line of c.lines) {
      const [a, b] = line.points.map(at), length = Math.hypot(b[0] - a[0], b[1] - a[1]);
      const dx = (b[0] - a[0]) / length, dy = (b[1] - a[1]) / length, mx = (a[0] + b[0]) / 2, my = (a[1] + b[1]) / 2;
      const place = { x1: a[0], y1: a[1], x2: b[0], y2: b[1] };
      // The way in is to the left hand of a -> b.
      const tip = [mx + dy * 22, my - dx * 22], foot = (s) => [mx + dy * 6 + s * dx * 9, my - dx * 6 + s * dy * 9];
      overlay.append(shape("line", Object.assign({ class: "edge" }, place)), shape("line", Object.assign({ class: "line" }, place)));
      arrows.push(shape("polygon", { class: "arrow", points: [tip, foot(1), foot(-1)].map((p) => p.join(",")).join(" ") }));
    }
    for (const zone of c.zones) {
      const points = zone.points.map(at), top = points.reduce((best, p) => p[1] < best[1] ? p : best);
      label(points.reduce((sum, p) => sum + p[0], 0) / points.length, top[1] + 20, zone.name + ": " + zone.now.total);
    }
    for (const line of c.lines) {
      const [a, b] = line.points.map(at), low = a[1] > b[1] ? a : b;
      label(low[0] + (a[0] + b[0] - 2 * low[0]) * 0.1, low[1] - 10 + (a[1] + b[1] - 2 * low[1]) * 0.1, line.name + ": " + line.in.total + " in, " + line.out.total + " out");
    }
    overlay.append(...arrows);
  }
  new ResizeObserver(() => { if (state) drawOverlay(state.cameras[camera]); }).observe($("view"));
  $("view").addEventListener("click", (event) => {
    const c = state && state.cameras[camera], view = $("view").getBoundingClientRect();
    if (!c || !c.frame_wh) return;
    const scale = Math.min(view.width / c.frame_wh[0], view.height / c.frame_wh[1]);
    const share = (at, from, size, whole) => 0.5 + (at - from - size / 2) / (whole * scale);
    const x = share(event.clientX, view.left, view.width, c.frame_wh[0]), y = share(event.clientY, view.top, view.height, c.frame_wh[1]);
    if (Math.min(x, y) >= 0 && Math.max(x, y) <= 1) { spot = x.toFixed(2) + "," + y.toFixed(2); draw(); }
  });

  function drawPlaces(c) {
    const places = c.lines.map((line) => [line.name, "line", [["in", line.in], ["out", line.out]]]).concat(
      c.zones.map((zone) => [zone.name, "zone", [["now", zone.now], ["entered", zone.entered]]]));
    $("places").hidden = !places.length;
    $("places-list").replaceChildren(...places.map(([name, kind, rows]) => make("div", { class: "place" },
      make("h3", {}, name + " ", make("span", { class: "quiet" }, kind)),
      make("table", {}, make("thead", {}, make("tr", {}, make("th", { scope: "col" }), make("th", { scope: "col" }, "persons"), ...CLASSES.map((k) => make("th", { scope: "col" }, brief(k))))),
        make("tbody", {}, ...rows.map(([word, counts]) => make("tr", {}, make("td", {}, word), make("td", { class: "total" }, String(counts.total)), ...CLASSES.map((k) => make("td", {}, String(counts[k]))))))))));
  }

  function drawSpeed() {
    const latency = state.latency_ms;
    text("fps", number(state.fps, 1));
    unit("lat50", ms(latency.total.p50), "ms");
    unit("lat99", ms(latency.total.p99), "ms");
    const bar = $("bar"), list = $("stages");
    if (!list.children.length) {
      const root = getComputedStyle(document.documentElement);
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

  function drawEvents() {
    const list = $("events");
    if (!events.length) return;
    list.replaceChildren(...events.slice(0, 60).map((e) => {
      const person = e.label !== undefined;
      const role = e.role || ROLES[e.label] || "ok";
      let kind = person ? "role-" + role : /lost|refused|drifted/.test(e.kind) ? "bad" : "good", words;
      if (e.kind === "enter") words = "Person #" + e.person + " came: " + called(e.label);
      else if (e.kind === "change") words = "Person #" + e.person + " now: " + called(e.label);
      else if (e.kind === "leave") words = "Person #" + e.person + " left after " +
        span((Date.parse(e.at) - Date.parse(e.began)) / 1000) + ": " + called(e.label);
      else if (e.kind === "crossed") words = "Person #" + e.person + " crossed " + e.line + " (" + e.direction + "): " + called(e.label);
      else if (e.kind === "zone entered") words = "Person #" + e.person + " entered " + e.zone + ": " + called(e.label);
      else if (e.kind === "zone left") words = "Person #" + e.person + " left " + e.zone + " after " + span((Date.parse(e.at) - Date.parse(e.began)) / 1000) + ": " + called(e.label);
      else words = (e.kind[0].toUpperCase() + e.kind.slice(1)) + (e.camera !== undefined && /camera/.test(e.kind) ? " " + e.camera : "") + (e.reason ? ": " + e.reason : e.variant ? ": " + e.variant : "");
      if (person && state && state.cameras.length > 1) words += " (camera " + e.camera + ")";
      const body = make("span", {}, words);
      if (person && e.kind === "enter" && state && state.privacy.crops_kept) {
        const crop = make("img", { src: "api/crops/" + e.camera + "-" + e.person, alt: "", loading: "lazy" });
        crop.addEventListener("error", () => crop.remove());
        body.append(crop);
      }
      return make("li", { class: kind }, make("time", { datetime: e.at || e.time || "" }, e.at ? clock(e.at) : ""),
        make("span", { class: "mark", "aria-hidden": "true" }, person ? MARKS[role] : kind === "bad" ? "✕" : "✓"), body);
    }));
  }

  function drawCameras() {
    $("cameras").replaceChildren(...state.cameras.map((c) => make("li", {},
      make("div", { class: "name" }, make("span", { class: "dot", "data-state": c.status }, c.status === "lost" ? "no picture" : c.status),
        make("span", { class: "mono", title: c.source }, place(c))),
      make("p", { class: "quiet" }, [c.camera_fps.toFixed(1) + " in, " + c.result_fps.toFixed(1) + " out frames/s",
        "age " + (c.status === "live" ? ms(c.frame_age_ms) + " ms" : "–"), c.dropped + " skipped",
        c.restarts ? c.restarts + " restarts" : ""].filter(Boolean).join(" · ")),
      c.last_error ? make("p", { class: "quiet" }, "Last: " + c.last_error) : "",
      c.drift ? make("p", { class: "quiet" }, make("a", { href: "drift" }, "Then and now"), ": " + (c.drift.look ? "look at it" :
        c.drift.ratio !== null ? "as it was" : c.drift.state === "learning" ? "learning, " + Math.floor(100 * c.drift.learned) + " %" : "not enough seen yet")) : "")));
  }

  function drawBoard() {
    const rows = [], board = state.board || {};
    if (board.model) rows.push(["board", board.model]);
    if (board.power_mode) rows.push(["power mode", board.power_mode]);
    for (const [name, value] of Object.entries(board.power_mw || {}).slice(0, 4)) rows.push([name, (value / 1000).toFixed(2) + " W"]);
    const zones = Object.entries(board.temperature_c || {});
    for (const [name, value] of zones.slice(0, 4)) rows.push([name, value.toFixed(1) + " °C"]);
    if (board.gpu_load !== undefined && board.gpu_load !== null) rows.push(["GPU", board.gpu_load.toFixed(0) + " %"]);
    if (board.cpu_load !== undefined && board.cpu_load !== null) rows.push(["CPU", board.cpu_load.toFixed(0) + " %"]);
    if (board.throttled !== undefined && board.throttled !== null) rows.push(["throttled", board.throttled ? "yes" : "no"]);
    rows.push(["memory", bytes(state.memory_bytes)], ["running for", span(state.uptime_s)],
      ["engine errors", String(state.engine_errors)], ["bundle", state.bundle]);
    $("board").replaceChildren(...rows.flatMap(([k, v]) => [make("dt", {}, k), make("dd", {}, v)]));
  }

  function drawAlerts() {
    const words = state.warnings.join("\n");
    if (words === spoken) return; // an unchanged alert must not be read out again
    spoken = words;
    $("alerts").replaceChildren(...state.warnings.map((w) => {
      const [words, where] = w.split(/(\/drift)$/); // relative, so that it holds below a proxy's path
      return make("p", { class: "alert" + (/no picture|fails/i.test(w) ? " bad" : "") }, words, where ? make("a", { href: where.slice(1) }, where) : "");
    }));
  }

  function draw() {
    if (camera >= state.cameras.length) camera = 0;
    const c = state.cameras[camera];
    text("variant", state.variant.name + " · " + state.variant.runtime);
    const health = $("health");
    health.dataset.state = state.health.status;
    health.title = state.health.reason || "";
    health.lastChild.textContent = { ok: "healthy", degraded: "degraded", stuck: "stuck" }[state.health.status];
    learn();
    const alert = state.classes.filter((k) => ROLES[k] === "alert");
    const alarms = alert.reduce((sum, k) => sum + c.now[k], 0) + " " + (alert.length === 1 ? WORDS[alert[0]] : "alarms") + " · ";
    document.title = (state.health.status === "ok" ? "" : "⚠ ") + (alert.length ? alarms : "") + "jetmask";
    drawTabs();
    drawPicture(c);
    drawOverlay(c);
    drawPlaces(c);
    drawCounts(c);
    drawSpeed();
    drawCameras();
    drawBoard();
    drawAlerts();
    drawTradeoff();
    const p = state.privacy;
    text("privacy", [p.faces_blurred ? "Faces are blurred." : "Faces are shown.",
      p.crops_kept ? "The best picture of each person is kept in memory." : "No picture is stored.",
      p.events_file ? "Events are written to a file." : ""].filter(Boolean).join(" "));
    text("foot", "jetmask " + state.version + " · " + clock(state.time));
  }

  // The trade-off ---------------------------------------------------------------------------------------------------
  function drawTradeoff() {
    const t = state.tradeoff;
    $("tradeoff").hidden = !t;
    if (!t) return;
    text("tradeoff-note", t.note);
    const rows = t.variants;
    $("variants").tBodies[0].replaceChildren(...rows.map((v) => make("tr", v.active ? { class: "active" } : {},
      make("td", {}, v.name), make("td", {}, ms(v.latency_p50_ms)), make("td", {}, v.fps ? v.fps.toFixed(1) : "–"),
      make("td", {}, v.reference ? "reference" : v.agreement === null ? "–" : (100 * v.agreement).toFixed(1) + " %" +
        (v.low !== null ? " (" + (100 * v.low).toFixed(0) + "–" + (100 * v.high).toFixed(0) + ")" : "")),
      make("td", {}, v.ap_here ? number(v.ap_here.map50, 1) + " here" : v.ap ? v.ap.map50.toFixed(1) : "–"))));
    const g = state.governor;
    text("governor", g ? "Governor: " + g.text : "");
    chart(rows.filter((v) => v.latency_p50_ms && (v.agreement !== null || v.reference)));
  }
  function chart(rows) {
    const W = Math.max(280, $("chart").clientWidth || 620), H = 300, L = 46, R = 16, T = 14, B = 40;
    const svg = shape("svg", { viewBox: "0 0 " + W + " " + H, role: "img" });
    if (!rows.length) { $("chart").replaceChildren(make("p", { class: "quiet" }, "The first samples are being taken…")); return; }
    const quality = (v) => v.reference ? 1 : v.agreement;
    const x0 = Math.min(...rows.map((v) => v.latency_p50_ms)) * 0.7, x1 = Math.max(...rows.map((v) => v.latency_p50_ms)) * 1.35;
    const low = Math.min(0.95, ...rows.map((v) => v.reference || v.low === null ? quality(v) : v.low));
    const y0 = Math.max(0, Math.floor((low - 0.02) * 20) / 20), y1 = 1;
    const X = (v) => L + (W - L - R) * Math.log(v / x0) / Math.log(x1 / x0), Y = (v) => T + (H - T - B) * (y1 - v) / (y1 - y0);
    for (let i = 0; i <= 4; i++) {
      const value = y0 + (y1 - y0) * i / 4;
      svg.append(shape("line", { class: "grid", x1: L, x2: W - R, y1: Y(value), y2: Y(value) }),
        shape("text", { x: L - 8, y: Y(value) + 4, "text-anchor": "end" }, (100 * value).toFixed(0) + " %"));
    }
    for (const tick of [0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].filter((v) => v > x0 && v < x1)) {
      svg.append(shape("line", { class: "grid", x1: X(tick), x2: X(tick), y1: T, y2: H - B }),
        shape("text", { x: X(tick), y: H - B + 17, "text-anchor": "middle" }, String(tick)));
    }
    svg.append(shape("text", { x: W - R, y: H - 6, "text-anchor": "end" }, W > 480 ? "ms for one frame (log scale), less is faster" : "ms for one frame (log scale)"));
    const front = rows.filter((v) => v.front).sort((a, b) => a.latency_p50_ms - b.latency_p50_ms);
    if (front.length > 1) svg.append(shape("polyline", { class: "front", points: front.map((v) => X(v.latency_p50_ms) + "," + Y(quality(v))).join(" ") }));
    const taken = [];
    for (const v of rows) {
      const x = X(v.latency_p50_ms), y = Y(quality(v));
      if (!v.reference && v.low !== null) svg.append(shape("line", { class: "whisker", x1: x, x2: x, y1: Y(v.low), y2: Y(v.high) }));
      svg.append(shape("circle", { class: "point" + (v.front ? " on-front" : "") + (v.active ? " active" : ""), cx: x, cy: y, r: 6 }));
      if (v.active || v.reference || (v.front && W > 480)) {
        const right = x > W * 0.62;
        let at = y + 18;
        while (taken.some(([a, b]) => Math.abs(a - x) < 130 && Math.abs(b - at) < 13)) at += 13;
        taken.push([x, at]);
        svg.append(shape("text", { class: "name", x: x + (right ? -8 : 8), y: at, "text-anchor": right ? "end" : "start" }, v.name + (v.reference ? " (reference)" : "")));
      }
    }
    svg.setAttribute("aria-label", "Speed against agreement; the table beside it has the numbers");
    $("chart").replaceChildren(svg);
  }

  // The stream of events --------------------------------------------------------------------------------------------
  function take(value) {
    const start = Date.parse(value.time) - 1000 * value.uptime_s;
    if (Math.abs(start - born) > 2000) { seen = 0; events = []; } // another run counts its events from 1
    born = start;
    state = value;
    lastState = Date.now();
    const news = value.events.filter((e) => e.number > seen);
    if (news.length) add(news);
    draw();
  }
  function add(news) {
    for (const e of news.sort((a, b) => a.number - b.number)) {
      if (e.number <= seen) continue;
      seen = e.number;
      events.unshift(e);
      if (e.kind === "enter" && /alert|attention/.test(e.role) && lastState) text("polite", "Person " + e.person + ": " + called(e.label));
    }
    events.length = Math.min(events.length, 200);
    drawEvents();
  }
  function listen() {
    const source = new EventSource("api/events");
    // A stream of pictures that breaks off tells the page nothing: the last one would stand there for ever.
    source.addEventListener("open", () => { if (lastState) look(); });
    source.addEventListener("state", (m) => take(JSON.parse(m.data)));
    source.addEventListener("event", (m) => add([JSON.parse(m.data)]));
    source.onerror = () => { if (source.readyState === 2) setTimeout(listen, 2000); };
  }
  setInterval(() => {
    if (lastState && Date.now() - lastState > 4000) {
      $("health").dataset.state = "gone";
      $("health").lastChild.textContent = "no contact";
      $("veil").hidden = false;
      text("veil-title", "No contact with the runner");
      text("veil-text", "Last word at " + new Date(lastState).toLocaleTimeString([], { hour12: false }) + "; it is tried again.");
    }
  }, 1000);
  let contact = true;
  setInterval(() => {
    const now = lastState && Date.now() - lastState < 4000;
    if (now && !contact) { seen = 0; events = []; look(); }
    contact = Boolean(now);
  }, 1000);
  listen();
  look();
}());
