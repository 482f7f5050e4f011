// The SDK for writing agents in TypeScript and JavaScript: `Agent`, its handlers, and their `Context`.
//
// The SDK knows the wire (protocol/README.md), and nothing of HTTP or of the gateway. It needs no
// packages and no build. README.md is the manual, index.d.ts the declarations.

export { Agent } from "./agent.js";
export { Context, InvalidInput } from "./context.js";

/**
 * The reference API's name for `agent.run()`. There is no port: the gateway listens.
 *
 * @param {{run(): Promise<void>}} agent
 */
export function serve(agent) {
  return agent.run();
}
