/** A Standard Schema (https://standardschema.dev), as zod, valibot, arktype and others make them. */
export interface StandardSchema<Input = unknown, Output = Input> {
  readonly "~standard": {
    readonly version: 1;
    readonly vendor: string;
    readonly validate: (value: unknown) => SchemaResult<Output> | Promise<SchemaResult<Output>>;
    readonly types?: { readonly input: Input; readonly output: Output } | undefined;
  };
}

export type SchemaResult<Output> =
  | { readonly value: Output; readonly issues?: undefined }
  | { readonly issues: ReadonlyArray<SchemaIssue> };

export interface SchemaIssue {
  readonly message: string;
  readonly path?: ReadonlyArray<PropertyKey | { readonly key: PropertyKey }> | undefined;
}

export interface AgentOptions {
  /** Shown by the gateway. At most 4,096 characters. */
  description?: string | undefined;
  /** Shown by the gateway. At most 65,536 bytes as JSON. */
  metadata?: Record<string, unknown> | undefined;
  /** How many requests one worker runs at the same time. By default 8. */
  concurrency?: number | undefined;
}

/** One message of a conversation, as the caller sent it; other members pass through. */
export interface Message {
  role: "system" | "user" | "assistant" | "tool";
  content?: string | unknown[] | Record<string, unknown> | null;
  name?: string;
  tool_call_id?: string;
  tool_calls?: unknown[];
  [member: string]: unknown;
}

/** A message that a chat handler answers with. */
export type Answer = Message & { content: string | unknown[] | Record<string, unknown> | null };

/** The pieces of an answer, as they are made. */
export type Stream =
  | AsyncIterable<string | Uint8Array>
  | Iterable<string | Uint8Array>
  | ReadableStream<string>
  | ReadableStream<Uint8Array>;

export interface ContextFields {
  conversationId: string | undefined;
  userId: string | undefined;
  /** `context.custom`: the caller's own data; empty when there is none. */
  custom: Record<string, unknown>;
  /** All other members of the caller's `context`. */
  extras: Record<string, unknown>;
  /** Identifies the request in the gateway's log and in the `X-Request-Id` of its response. */
  requestId: string;
  /** Whether the caller asked for a stream. A handler may yield in either case: the gateway adapts. */
  stream: boolean;
}

/** What the caller sent as `context`, and what is known about the request. */
export class Context implements Readonly<ContextFields> {
  /** Tests of your own handlers can construct one: `new Context({ userId: "u1" })`. */
  constructor(fields?: Partial<ContextFields>);
  readonly conversationId: string | undefined;
  readonly userId: string | undefined;
  readonly custom: Record<string, unknown>;
  readonly extras: Record<string, unknown>;
  readonly requestId: string;
  readonly stream: boolean;
  /**
   * Aborted when nobody waits for the answer any more. Pass it on to what your handler waits for:
   * a promise cannot be stopped from outside.
   */
  readonly signal: AbortSignal;
}

export interface HandlerOptions<
  S extends StandardSchema<unknown, unknown> = StandardSchema<unknown, unknown>,
> {
  /** What the handler takes. A caller whose input does not match gets 400 and the path. */
  schema?: S | undefined;
}

/** What a schema makes of the value that it has checked. */
export type SchemaOutput<S> = S extends {
  readonly "~standard": { readonly types?: { readonly output: infer Output } | undefined };
}
  ? Output
  : unknown;

/** Something that answers requests, with one handler for `invoke`, one for `chat`, or both. */
export class Agent {
  /** `name` identifies the agent in messages of errors: letters, digits, `-` and `_`. */
  constructor(name: string, options?: AgentOptions);
  readonly name: string;
  readonly description: string | undefined;
  readonly metadata: Record<string, unknown>;
  readonly concurrency: number;

  /** The handler that processes structured input. It returns the output, or a stream of text. */
  invoke<S extends StandardSchema<unknown, unknown>>(
    handler: (input: SchemaOutput<S>, ctx: Context) => unknown,
    options: { schema: S },
  ): this;
  // biome-ignore lint/suspicious/noExplicitAny: without a schema nothing is known of the input
  invoke<Input = any>(
    handler: (input: Input, ctx: Context) => unknown,
    options?: HandlerOptions,
  ): this;

  /** The handler that answers in conversations, with text, a message, or a stream of text. */
  chat<S extends StandardSchema<unknown, unknown>>(
    handler: (messages: SchemaOutput<S>, ctx: Context) => ChatAnswer | Promise<ChatAnswer>,
    options: { schema: S },
  ): this;
  chat(
    handler: (messages: Message[], ctx: Context) => ChatAnswer | Promise<ChatAnswer>,
    options?: HandlerOptions,
  ): this;

  /** The reference API's `invoke`: the handler returns `{ output }`. */
  // biome-ignore lint/suspicious/noExplicitAny: without a schema nothing is known of the input
  onInvoke<Input = any>(
    handler: (input: Input, ctx: Context) => { output: unknown } | Promise<{ output: unknown }>,
  ): this;
  /** The reference API's streaming `invoke`: the handler yields `{ chunk }`. */
  // biome-ignore lint/suspicious/noExplicitAny: without a schema nothing is known of the input
  onInvokeStream<Input = any>(handler: (input: Input, ctx: Context) => WrappedChunks): this;
  /** The reference API's `chat`: the handler returns `{ message }`. */
  onChat(
    handler: (
      messages: Message[],
      ctx: Context,
    ) => { message: string | Answer } | Promise<{ message: string | Answer }>,
  ): this;
  /** The reference API's streaming `chat`: the handler yields `{ chunk }`. */
  onChatStream(handler: (messages: Message[], ctx: Context) => WrappedChunks): this;

  /**
   * Serve requests from stdin until stdin ends. From then on the process's stdin is empty and its
   * stdout is its stderr. The process exits by itself.
   */
  run(): Promise<void>;
}

export type WrappedChunks =
  | AsyncIterable<string | { chunk: string }>
  | Iterable<string | { chunk: string }>;

/** The reference API's name for `agent.run()`. There is no port: the gateway listens. */
export function serve(agent: Agent, options?: { port?: number }): Promise<void>;

export type ChatAnswer = string | Answer | Stream;

/** Throw this in a handler to refuse the caller's input: the caller gets 400 and the text. */
export class InvalidInput extends Error {
  constructor(message?: string, options?: ErrorOptions);
}
