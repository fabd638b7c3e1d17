// What the runner says: one stream of events feeds everything on the page.
import { ask } from "./dom.js";

export const live = { state: null, last: 0, events: [], change: 0, me: { changes: false, zones_in: null } };
export const classes = { names: [], words: {}, roles: {}, told: 0 }; // the bundle's, from the first state on
const MOST = 200;
const waiting = { state: [], events: [], contact: [] };
let seen = 0, born = 0, learnt = "";

export const on = (what, action) => waiting[what].push(action);
const tell = (what, value) => waiting[what].forEach((action) => action(value));
export const called = (name) => classes.words[name] || name; // an event of a run before may have another bundle's class
export const brief = (name) => classes.words[name] === "mask worn wrong" ? "worn wrong" : called(name);
export const find = (name) => live.state ? live.state.cameras.find((c) => c.name === name) || null : null;
export const total = (counts) => classes.names.reduce((sum, name) => sum + (counts[name] || 0), 0);

export function take(value) {
  const start = Date.parse(value.time) - 1000 * value.uptime_s;
  if (Math.abs(start - born) > 2000) forget(); // another run counts its events from 1
  born = start;
  live.state = value;
  live.last = Date.now();
  const told = JSON.stringify([value.classes, value.words, value.roles]);
  if (learnt !== told) { // at the first state, and when a runner of another bundle has taken over
    learnt = told;
    Object.assign(classes, { names: value.classes.filter((name) => value.roles[name] !== "ignore"), words: value.words, roles: value.roles, told: classes.told + 1 });
  }
  add(value.events);
  tell("state", value);
}

function forget() { seen = 0; live.events = []; }

function add(news) {
  const fresh = news.filter((event) => event.number > seen).sort((a, b) => a.number - b.number);
  if (!fresh.length) return;
  const first = seen === 0; // these have happened before the page was opened
  live.events.unshift(...fresh.slice().reverse());
  seen = fresh[fresh.length - 1].number;
  live.events.length = Math.min(live.events.length, MOST);
  live.change++;
  if (!first) tell("events", fresh);
}

function listen() {
  const source = new EventSource("api/events");
  source.addEventListener("open", () => { if (live.last) tell("contact", true); });
  source.addEventListener("state", (message) => take(JSON.parse(message.data)));
  source.addEventListener("event", (message) => add([JSON.parse(message.data)]));
  source.onerror = () => { if (source.readyState === 2) setTimeout(listen, 2000); };
}

export function begin() {
  let contact = true;
  ask("api/v1/me").then((me) => { live.me = me; if (live.state) tell("state", live.state); }, () => {});
  listen();
  setInterval(() => {
    if (!live.last) return;
    const now = Date.now() - live.last < 4000;
    if (now && !contact) forget();
    if (!now || now !== contact) tell("contact", now);
    contact = now;
  }, 1000);
}
