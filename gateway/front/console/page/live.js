// What the gateway tells of its agents, kept up to date. Parts that show it are called at most once
// for each frame of the screen, with the names of the agents that have changed.

import { now } from "./clock.js";
import { get } from "./api.js";
import { follow } from "./stream.js";

/** What `hello` says; the same for the life of the page. */
export let hello = { bucket: 5, buckets: 60, hosts: [], dialects: ["native"], payloads: false };

export async function greet() {
  hello = { ...hello, ...(await get("console/api/hello")) };
}

/** The newest state of all agents, by name, and their series of points. */
export const agents = new Map();
export const series = new Map();

/** Follow the agents until `signal` is aborted. `changed(names)` gets the set of those that are
 * new, changed or gone. */
export function watchAgents(signal, changed, linked) {
  const batch = new Batch(changed, signal);
  return follow("console/api/live?topics=agents", {
    signal,
    linked,
    heard(event, data) {
      if (event === "agents") batch.add(applyAgents(data));
      else if (event === "series") batch.add(applySeries(data));
    },
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

/** Take an event of the topic `agents` over; the names of the agents that it concerns. */
export function applyAgents(data) {
  const concerned = new Set(data.removed ?? []);
  for (const gone of concerned) agents.delete(gone);
  if (data.reset) {
    const named = new Set(data.agents.map((each) => each.name));
    for (const name of agents.keys()) {
      concerned.add(name);
      if (!named.has(name)) agents.delete(name);
    }
  }
  for (const news of data.agents ?? []) {
    const old = data.reset ? undefined : agents.get(news.name);
    const workers = new Map(old?.workers);
    for (const [id, worker] of Object.entries(news.workers ?? {})) {
      if (worker === null) workers.delete(id);
      else workers.set(id, worker);
    }
    agents.set(news.name, { ...old, ...news, workers });
    concerned.add(news.name);
  }
  return concerned;
}

function applySeries(data) {
  if (data.reset) series.clear();
  const oldest = now() - hello.bucket * (hello.buckets + 1);
  for (const [name, points] of Object.entries(data.series)) {
    const known = new Map((series.get(name) ?? []).map((point) => [point[0], point]));
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
  const recent = recentPoints(name).slice(-many);
  const elapsed = (many - 1) * bucket + (now() % bucket);
  let count = 0;
  let errors = 0;
  let median = null;
  let high = null;
  for (const point of recent) {
    if (point === undefined) continue;
    count += point[1];
    errors += point[2];
    [median, high] = [point[3] ?? median, point[4] ?? high];
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
