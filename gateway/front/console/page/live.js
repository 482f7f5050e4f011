// What the gateway tells of its agents, kept up to date. Parts that show it are called at most once
// for each frame of the screen, with the names of the agents that have changed.

import { now } from "./clock.js";
import { get } from "./api.js";
import { follow } from "./stream.js";

/** What `hello` says; the same for the life of the page. */
export let hello = { bucket: 5, buckets: 60, hosts: [], dialects: ["native"], payloads: false, fleet: false };

export async function greet() {
  hello = { ...hello, ...(await get("console/api/hello")) };
}

/** The newest state of all agents, by name, and their series of points. */
export const agents = new Map();
export const series = new Map();

let whole = false;

/** Whether `agents` has had all of them, and not one alone. */
export const knowsAll = () => whole;

/** Follow the agents until `signal` is aborted: all of them, or the one with that name, whose
 * workers are then kept in a `Workers`. `changed(names)` gets the set of the names of those that
 * are new, changed or gone. */
export function watchAgents(signal, changed, linked, { name = null, workers = null } = {}) {
  const batch = new Batch(changed, signal);
  const topics = workers === null ? "agents" : "agents,workers";
  const kept = new Kept(agents, name);
  const of = name === null ? "" : `&agent=${encodeURIComponent(name)}`;
  return follow(`console/api/live?topics=${topics}${of}`, {
    signal,
    linked,
    heard(event, data) {
      if (event === "agents") {
        batch.add(applyAgents(kept, data));
        whole ||= name === null && !data.more;
      }
      if (event === "series") batch.add(applySeries(data, name));
      if (event === "workers") batch.add(workers.take(data) && [name]);
    },
  });
}

/** Follow the workers of an agent. */
export function watchWorkers(name, workers, signal, changed) {
  const batch = new Batch(changed, signal);
  follow(`console/api/live?topics=workers&agent=${encodeURIComponent(name)}`, {
    signal,
    heard: (event, data) => event === "workers" && batch.add(workers.take(data) && [name]),
  });
}

class Batch {
  #names = new Set();
  #frame = 0;

  constructor(changed, signal) {
    this.changed = changed;
    signal.addEventListener("abort", () => cancelAnimationFrame(this.#frame));
  }

  add(names) {
    for (const name of names) this.#names.add(name);
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      const names = this.#names;
      this.#names = new Set();
      this.changed(names);
    });
  }
}

/** A map that is told anew by an event with `reset` and all that follow it with `more`: what is
 * not told again goes only then. */
export class Kept {
  #old = null;

  /** `only` is the one key that is told of, or null. */
  constructor(map, only = null) {
    this.map = map;
    this.only = only;
  }

  /** Take an event over; `told` has the entries that it tells, null for what is gone. Returns the
   * keys that it concerns. */
  take({ reset, more }, told) {
    const concerned = new Set();
    if (reset) this.#old = new Set(this.only === null ? this.map.keys() : [this.only]);
    for (const [key, value] of told) {
      if (value === null) this.map.delete(key);
      else this.map.set(key, value);
      this.#old?.delete(key);
      concerned.add(key);
    }
    if (more || this.#old === null) return concerned;
    for (const key of this.#old) {
      this.map.delete(key);
      concerned.add(key);
    }
    this.#old = null;
    return concerned;
  }
}

function applyAgents(kept, data) {
  const told = data.agents.map((news) => [news.name, data.reset ? news : { ...kept.map.get(news.name), ...news }]);
  return kept.take(data, [...data.removed.map((name) => [name, null]), ...told]);
}

/** The workers of one agent, by id. */
export class Workers {
  map = new Map();
  #kept = new Kept(this.map);

  take(data) {
    return this.#kept.take(data, Object.entries(data.workers).map(([id, worker]) => [id, worker && asWorker(worker)]));
  }
}

function asWorker([pid, state, started, served, inFlight, capacity, memory]) {
  return { pid, state, started, served, inFlight, capacity, memory };
}

function applySeries(data, only) {
  if (data.reset && only === null) series.clear();
  const oldest = now() - hello.bucket * (hello.buckets + 1);
  for (const [name, points] of Object.entries(data.series)) {
    const known = new Map(data.reset ? [] : (series.get(name) ?? []).map((point) => [point[0], point]));
    for (const point of points) known.set(point[0], point);
    const kept = [...known.values()].filter((point) => point[0] >= oldest);
    series.set(name, kept.sort((a, b) => a[0] - b[0]));
  }
  return Object.keys(data.series);
}

/** The points of an agent by their place in the window that ends now: `buckets` places, of which
 * those without requests are undefined. */
export function recentPoints(name) {
  const { bucket, buckets } = hello;
  const last = Math.floor(now() / bucket);
  const places = new Array(buckets);
  for (const point of series.get(name) ?? []) {
    const place = buckets - 1 - (last - Math.round(point[0] / bucket));
    if (place >= 0 && place < buckets) places[place] = point;
  }
  return places;
}

/** Requests a second and the latencies of the last minute. The bucket that is not over counts for
 * as long as it has lasted. */
export function lastMinute(name) {
  const { bucket } = hello;
  const many = Math.max(1, Math.round(60 / bucket));
  const oldest = (Math.floor(now() / bucket) - many + 1) * bucket;
  const elapsed = (many - 1) * bucket + (now() % bucket);
  const points = series.get(name) ?? [];
  let count = 0;
  let errors = 0;
  let median = null;
  let high = null;
  for (let place = points.length - 1; place >= 0 && points[place][0] >= oldest; place -= 1) {
    count += points[place][1];
    errors += points[place][2];
    median ??= points[place][3];
    high ??= points[place][4];
  }
  return { rate: count / elapsed, count, errors, median, high };
}

const TONES = {
  cold: "calm", starting: "wait", ready: "good", busy: "busy",
  backoff: "bad", open: "bad", draining: "wait", away: "bad",
};

const WORDS = {
  cold: "cold", starting: "starting", ready: "ready", busy: "busy",
  backoff: "waiting to restart", open: "failing", draining: "draining", away: "no host",
};

const MEANINGS = {
  cold: "No worker runs; a request starts one.",
  starting: "A request waits for a worker that is starting.",
  ready: "A worker has room.",
  busy: "A request waits until a worker has room.",
  backoff: "It failed, and is started again after a pause.",
  open: "It failed too often: requests are refused until it is tried again.",
  draining: "It is ending: requests are refused.",
  away: "No host of the fleet has it: requests are refused.",
};

/** How a state of an agent is shown: its tone, its word and its meaning. */
export const shownState = (state) => ({
  tone: TONES[state] ?? "calm",
  word: WORDS[state] ?? state,
  meaning: MEANINGS[state] ?? "",
});

export const inTrouble = (agent) => ["backoff", "open", "away"].includes(agent.state);
