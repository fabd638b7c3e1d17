// What an operator should look at now, what was told to whom, and whether the receivers take it.
import { $, ask, button, make } from "./dom.js";
import { thumbnail } from "./media.js";
import { live } from "./state.js";

const PERIOD = 10000;
let shown = false, timer = 0, spoken = null, drawn = null;

export function show(wish) {
  shown = wish;
  clearTimeout(timer);
  if (shown) refresh();
}

export function warn(state) { // at the top of every view
  const said = state.warnings.join("\n");
  if (said === spoken) return; // an unchanged alert must not be read out again
  spoken = said;
  const one = (w) => {
    const [words, where] = w.split(/(\/drift)$/);
    return make("p", { class: "alert" + (/no picture|fails/i.test(w) ? " bad" : "") }, words, where ? make("a", { href: "#drift" }, where) : "");
  };
  const few = state.warnings.slice(0, 3), more = state.warnings.length - few.length;
  $("alerts").replaceChildren(...few.map(one), ...(more > 0 ? [make("p", { class: "alert" }, make("a", { href: "#alerts" }, more + " more"))] : []));
  $("warnings").replaceChildren(...(state.warnings.length ? state.warnings.map(one) : [make("p", { class: "quiet" }, "Nothing needs to be looked at.")]));
}

function refresh() {
  ask("api/v1/alerts").then(draw, (error) => {
    $("alert-said").textContent = error.status === 404 ? "No alerts are set up: rules and receivers stand in the configuration file, under “alerts”." : "No answer: " + error.message;
    $("alert-lists").hidden = true;
  }).then(() => { if (shown) timer = setTimeout(refresh, PERIOD); });
}

const line = (row) => make("tr", {}, ...row.map((value) => make("td", {}, value)));
const cells = (row) => make("tr", {}, ...row.map((value, i) => make(i ? "td" : "th", i ? {} : { scope: "row" }, value)));

function draw(found) {
  const alerts = found.alerts || [], receivers = found.receivers || [];
  $("alert-said").textContent = alerts.length ? "" : "No alert yet.";
  $("alert-lists").hidden = false;
  const newest = JSON.stringify(alerts.map((a) => [a.id, a.picture_url, a.clip_url]));
  if (newest !== drawn) { // pictures that are there are not asked for again
    drawn = newest;
    $("alert-rows").replaceChildren(...alerts.map((a) => {
      const row = line([new Date(a.at).toLocaleString(), a.rule || "", a.camera === undefined || a.camera === null ? "" : String(a.camera), a.text || a.reason || ""]);
      row.append(make("td", { class: "media" }, ...thumbnail(a, a.text || a.rule || "alert")));
      return row;
    }));
  }
  $("receiver-rows").replaceChildren(...receivers.map((r) => {
    const said = make("span", { role: "status" });
    const test = button("Test", { "aria-label": "Send a test to " + r.name }, () => {
      said.textContent = "sending…";
      ask("api/v1/alerts/test", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ receiver: r.name }) })
        .then((answer) => { said.textContent = answer.result || "sent"; }, (error) => { said.textContent = error.message; });
    });
    return cells([r.name, r.kind || "", r.error ? "down: " + r.error : "ready", String(r.waiting || 0), String(r.dropped || 0), make("span", {}, live.me.role === "viewer" ? "" : test, " ", said)]);
  }));
}
