// How a runtime comes to import an agent's file: TypeScript, and the SDK by its name.

import * as nodeModule from "node:module";
import { fileURLToPath, pathToFileURL } from "node:url";

// Newer than the oldest Node that this runs on, and missing elsewhere.
const modules = /** @type {any} */ (nodeModule);

const NAME = "agent-gateway-worker";
/** The modules that can be imported by name. @type {Record<string, string>} */
const MODULES = {
  [NAME]: new URL("./index.js", import.meta.url).href,
  [`${NAME}/ai-sdk`]: new URL("./ai-sdk.js", import.meta.url).href,
};
const TYPESCRIPT = /\.[cm]?ts$/;
const STRIPS_TYPES = /--experimental-(strip|transform)-types/;

/**
 * Make the runtime ready to import an agent's file.
 *
 * @param {string} file its absolute path
 * @returns {Promise<string | undefined>} why it cannot
 */
export async function prepare(file) {
  const require = modules.createRequire(file);
  const unable = TYPESCRIPT.test(file) ? await stripTypes(file, require) : undefined;
  await provideSdk(require);
  return unable;
}

/**
 * Node 22.18 and newer, Bun and Deno run TypeScript as it is; older ones with the agent's own tsx.
 *
 * @param {string} file
 * @param {NodeJS.Require} require
 */
async function stripTypes(file, require) {
  const { Bun, Deno } = /** @type {any} */ (globalThis);
  if (Bun || Deno || /** @type {any} */ (process.features).typescript) return undefined;
  // Before 22.10, Node does not tell.
  if (STRIPS_TYPES.test(`${process.execArgv} ${process.env.NODE_OPTIONS}`)) return undefined;
  let tsx;
  try {
    tsx = require.resolve("tsx");
  } catch {
    const flag = "from 22.6 with NODE_OPTIONS=--experimental-strip-types";
    return (
      `Node ${process.versions.node} does not run TypeScript, and tsx is not installed beside ` +
      `${file}: npm install tsx there, or use Node 22.18 or newer (${flag}), Bun or Deno`
    );
  }
  await import(pathToFileURL(tsx).href); // as `node --import tsx` does
  return undefined;
}

/**
 * Let the agent import the SDK that serves it, without an installation of its own.
 *
 * @param {NodeJS.Require} require
 */
async function provideSdk(require) {
  const { Bun } = /** @type {any} */ (globalThis);
  try {
    require.resolve(NAME);
    return;
  } catch {
    // not installed
  }
  if (Bun) {
    // Before anybody asks: what `require` gets cannot be waited for.
    const loaded = await Promise.all(Object.values(MODULES).map((url) => import(url)));
    const setup = (/** @type {any} */ build) => {
      for (const [index, name] of Object.keys(MODULES).entries()) {
        build.module(name, () => ({ exports: loaded[index], loader: "object" }));
      }
    };
    Bun.plugin({ name: NAME, setup });
  } else if ("registerHooks" in modules) {
    const resolve = (
      /** @type {string} */ name,
      /** @type {any} */ context,
      /** @type {any} */ next,
    ) => (name in MODULES ? { url: MODULES[name], shortCircuit: true } : next(name, context));
    modules.registerHooks({ resolve });
  } else if ("register" in modules) {
    // Node 20 has only hooks that run in a thread of their own, which takes 40 ms to start.
    const hook = `const modules = ${JSON.stringify(MODULES)};
      export const resolve = (name, context, next) =>
        name in modules ? { url: modules[name], shortCircuit: true } : next(name, context);`;
    modules.register(`data:text/javascript,${encodeURIComponent(hook)}`);
    provideToRequire(modules.Module);
  }
}

/**
 * The same for `require`, to which tsx translates the imports of a project that is no ES module.
 *
 * @param {any} Module
 */
function provideToRequire(Module) {
  const resolve = Module._resolveFilename;
  Module._resolveFilename = (/** @type {string} */ name, /** @type {unknown[]} */ ...rest) =>
    name in MODULES ? fileURLToPath(MODULES[name] ?? "") : resolve.call(Module, name, ...rest);
}
