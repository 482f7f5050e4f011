#!/usr/bin/env node
// `agent-worker bot.ts`: serves the agent that a file of JavaScript or TypeScript makes.
//
// The command takes stdin and stdout away before it imports the agent's module. Every mistake in the
// command line is one line on stderr; an error thrown by the module comes with its stack.

import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { Agent } from "./agent.js";
import { describe } from "./errors.js";
import { prepare } from "./loading.js";
import { isServing, run, tooOld, useWire } from "./run.js";
import { adopt, takeStdio } from "./stdio.js";

const USAGE = "usage: agent-worker PATH/TO/FILE.ts[:AGENT], or .js, .mjs, .mts";

const realExit = process.exit.bind(process);

/** @param {string[]} words */
async function main(words) {
  const why = tooOld();
  if (why) fail(why);
  const { file, name, wire } = parse(words);
  if (!fs.existsSync(file)) fail(`no file ${JSON.stringify(file)} in ${process.cwd()}`);
  try {
    useWire(wire ? adopt(wire) : takeStdio());
  } catch (error) {
    fail(`stdin or stdout is closed: ${error instanceof Error ? error.message : error}`);
  }
  const module = exportsOf(await load(file));
  // A module may call `agent.run()` itself, as it does when it is started without this command.
  if (isServing()) return;
  const agent = select(module, file, name);
  try {
    await run(agent);
  } catch (error) {
    fail(error instanceof Error ? error.message : String(error));
  }
}

/** @param {string[]} words */
function parse(words) {
  const targets = [];
  let wire;
  for (const word of words) {
    if (word === "-h" || word === "--help") {
      process.stdout.write(`${USAGE}\n`);
      realExit(0);
    }
    const moved = /^--wire=(\d+),(\d+)$/.exec(word);
    if (moved) wire = { input: Number(moved[1]), output: Number(moved[2]) };
    else if (word.startsWith("-")) fail(`no option ${word}; ${USAGE}`, 2);
    else targets.push(word);
  }
  if (targets.length !== 1) fail(`expected one agent to serve, got ${targets.length}; ${USAGE}`, 2);
  const [, file = "", name] = /^(.+\.[cm]?[jt]s)(?::(\w+))?$/.exec(targets[0] ?? "") ?? [];
  if (!file) fail(`${JSON.stringify(targets[0])} does not name an agent; ${USAGE}`, 2);
  return { file, name, wire };
}

/** @param {string} file */
async function load(file) {
  const place = path.resolve(file);
  const unable = await prepare(place);
  if (unable) fail(unable);
  process.exit = (status) => {
    throw new Error(`process.exit(${status ?? ""}) was called`);
  };
  const crash = (/** @type {unknown} */ error) => failImporting(file, error);
  process.on("uncaughtException", crash);
  try {
    return await import(pathToFileURL(place).href);
  } catch (error) {
    return failImporting(file, error);
  } finally {
    process.off("uncaughtException", crash);
    if (!isServing()) process.exit = realExit;
  }
}

/**
 * What a module exports. A module of CommonJS, and TypeScript that was translated to one, may have it
 * all in its default export.
 *
 * @param {Record<string, any>} module
 * @returns {Record<string, any>}
 */
function exportsOf(module) {
  const whole = module.default;
  const holdsOthers = typeof whole === "object" && whole !== null && !Agent.isAgent(whole);
  return holdsOthers ? { ...module, ...whole } : module;
}

/** @param {Record<string, unknown>} module @param {string} file @param {string} [name] @returns {Agent} */
function select(module, file, name) {
  const agents = Object.keys(module).filter((key) => Agent.isAgent(module[key]));
  const found = agents.length ? `it has ${agents.join(", ")}` : "it has no agents at all";
  if (name !== undefined) {
    const agent = module[name];
    if (Agent.isAgent(agent)) return agent;
    fail(
      name in module
        ? `${file}:${name} is ${describe(module[name])}, expected an Agent; ${found}`
        : `${file} has no ${name}; ${found}`,
    );
  }
  if (Agent.isAgent(module.default)) return module.default;
  const [only, another] = new Set(agents.map((key) => /** @type {Agent} */ (module[key])));
  if (only !== undefined && another === undefined) return only;
  if (another !== undefined)
    fail(`${file} has ${agents.join(" and ")}: say which, ${file}:${agents[0]}`);
  return fromExports(module, file);
}

/** The agent of a module that exports its handlers. */
function fromExports(/** @type {Record<string, any>} */ module, /** @type {string} */ file) {
  const { invoke, chat, schema, ...options } = module;
  if (!invoke && !chat) {
    fail(`${file} exports neither an Agent nor a function named invoke or chat`);
  }
  const name = path
    .basename(file)
    .replace(/\.\w+$/, "")
    .replace(/[^a-zA-Z0-9_-]/g, "-");
  try {
    const agent = new Agent(name, options);
    if (invoke) agent.invoke(invoke, { schema });
    if (chat) agent.chat(chat);
    return agent;
  } catch (error) {
    return fail(`${file}: ${error instanceof Error ? error.message : error}`);
  }
}

/** @param {string} file @param {unknown} error @returns {Promise<never>} */
async function failImporting(file, error) {
  const { trace } = await import("./explain.js");
  process.stderr.write(`${trace(error)}\n`);
  const what = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  return fail(`importing ${file} failed: ${what}`);
}

/** @param {string} message @param {number} [status] @returns {never} */
function fail(message, status = 1) {
  process.stderr.write(`agent-worker: ${message}\n`);
  return realExit(status);
}

await main(process.argv.slice(2));
