// What the AI SDK streams, as words and events: see "Adapters" in the README.

import type { Context, ContextFields, Event, Message } from "./index.js";

/**
 * The words and events of a run: of `streamText(…)`, or of its `fullStream`. An error of the run is
 * thrown.
 */
export function events(
  run: AsyncIterable<{ type: string }> | { fullStream: AsyncIterable<{ type: string }> },
): AsyncGenerator<string | Event, void, undefined>;

/** The client's tools, for `tools`: their calls end the run. `jsonSchema` is that of the AI SDK. */
export function clientTools<S>(
  context: Context | ContextFields,
  // biome-ignore lint/suspicious/noExplicitAny: each version of the AI SDK has types of its own
  jsonSchema: (schema: any) => S,
): Record<string, { description: string | undefined; inputSchema: S }>;

/**
 * The messages of a chat, for `messages`: content parts, tool calls and their results, too. Throws
 * InvalidInput for a part that is of no known type.
 */
// biome-ignore lint/suspicious/noExplicitAny: as above
export function modelMessages(messages: readonly Message[]): any[];

/**
 * The answers to approvals (`ctx.resume`), as the message that follows those of the run that asked;
 * undefined if there are none.
 */
// biome-ignore lint/suspicious/noExplicitAny: as above
export function approvals(context: Context | ContextFields): any;
