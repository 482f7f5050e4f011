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
  /** The JSON Schema of an invoke's input; or a schema that has one, as those of zod and arktype. */
  input?: Record<string, unknown> | StandardSchema<unknown, unknown> | undefined;
  /** That of its output. */
  output?: Record<string, unknown> | StandardSchema<unknown, unknown> | undefined;
  /** Kinds of content that its messages may hold. What is not declared, the gateway refuses. */
  modes?: ("text" | "image" | "audio" | "file")[] | undefined;
  /** Whether it calls tools of the client's: `ctx.tools`. */
  tools?: boolean | undefined;
  /** Whether it asks questions, and takes their answers: `ctx.resume`. */
  asks?: boolean | undefined;
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

/** A message that a chat handler answers with. It may tell its usage and why it ends. */
export type Answer = Message & {
  content: string | unknown[] | Record<string, unknown> | null;
  usage?: Omit<Usage, "type"> | Record<string, unknown> | undefined;
  finish?: "stop" | "length" | "refused" | "tool_calls" | undefined;
};

/** A piece of what the model thinks, which is no part of the answer. */
export interface Reasoning {
  type: "reasoning";
  text: string;
}

/**
 * A tool is called: one of the agent's own, or one of the client's (`ctx.tools`). Either `arguments` are
 * complete, or `delta` is a piece of their JSON text. A call of a client's tool without a
 * `ToolResult` ends the turn: the client makes the call, and sends the result with its next request.
 */
export type ToolCall = { type: "tool_call"; call: string; name: string } & (
  | { arguments: Record<string, unknown>; delta?: undefined }
  | { delta: string; arguments?: undefined }
);

/** What came of a call of one of the agent's own tools. */
export interface ToolResult {
  type: "tool_result";
  call: string;
  content: unknown;
  is_error?: boolean;
}

/** What the agent is doing: "Searching…", and `progress` of `total`, in units of its own. */
export interface Status {
  type: "status";
  text: string;
  progress?: number;
  total?: number;
}

/** A file that the agent made: its bytes (or base64), or a path at which the client can find it. */
export type File = { type: "file"; name: string; mime: string } & (
  | { data: Uint8Array | string; path?: undefined }
  | { path: string; data?: undefined }
);

/** Tokens that the answer took, and any other counts. Several in one answer are added up. */
export interface Usage {
  type: "usage";
  input_tokens: number;
  output_tokens: number;
  cached_input_tokens?: number;
  reasoning_tokens?: number;
}

/** Why the answer ends here, if not because it is whole. */
export interface Finish {
  type: "finish";
  reason: "stop" | "length" | "refused";
}

/**
 * A question to the user, which ends the turn. Several may be asked at once. The answer comes in a new
 * request, in `ctx.resume`, under the same `id`. `schema` is a JSON Schema of the answer; `call` the tool
 * call that the question is about.
 */
export interface Ask {
  type: "ask";
  id: string;
  message: string;
  reason?: string;
  schema?: Record<string, unknown>;
  call?: string;
}

/** The agent's state as a client may show it: whole, or as a patch (RFC 6902). */
export interface State {
  type: "state";
  value?: unknown;
  patch?: unknown[];
}

/** An event of the agent's own. */
export interface Custom {
  type: `x-${string}`;
  [member: string]: unknown;
}

/** What a handler may say beside text. */
export type Event =
  | Reasoning
  | ToolCall
  | ToolResult
  | Status
  | File
  | Usage
  | Finish
  | Ask
  | State
  | Custom;

/** A tool of the client's, which the agent may call (`ToolCall`) and the client runs. */
export interface Tool {
  name: string;
  description: string;
  /** The JSON Schema of its arguments. */
  parameters: Record<string, unknown>;
}

/** The answer to a question that an earlier turn ended with. */
export interface Resume {
  /** That of the question. */
  id: string;
  status: "resolved" | "cancelled";
  payload?: unknown;
}

/** The pieces of an answer, as they are made. */
export type Stream =
  | AsyncIterable<string | Uint8Array | Event>
  | Iterable<string | Uint8Array | Event>
  | ReadableStream<string | Event>
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
  /** Whether the caller sees more than text. A handler may yield events in either case. */
  events: boolean;
  /** The client's tools. */
  tools: Tool[];
  /** Answers to the questions that the last turn ended with. */
  resume: Resume[];
  /** The caller's span, as W3C Trace Context has it, to which the agent's own may belong. */
  traceparent: string | undefined;
  /** What tracing systems have added to that. */
  tracestate: string | undefined;
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
  readonly events: boolean;
  readonly tools: Tool[];
  readonly resume: Resume[];
  readonly traceparent: string | undefined;
  readonly tracestate: string | undefined;
  /**
   * Aborted when nobody waits for the answer any more. Pass it on to what your handler waits for:
   * a promise cannot be stopped from outside.
   */
  readonly signal: AbortSignal;
}

export interface HandlerOptions<
  S extends StandardSchema<unknown, unknown> = StandardSchema<unknown, unknown>,
> {
  /**
   * What the handler takes. A caller whose input does not match gets 400 and the path. Of `invoke`,
   * it is also declared as the agent's `input`, where it has a JSON Schema and no other is given.
   */
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
  readonly input: Record<string, unknown> | undefined;
  readonly output: Record<string, unknown> | undefined;
  readonly modes: readonly string[];
  readonly tools: boolean;
  readonly asks: boolean;

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
  | AsyncIterable<string | { chunk: string } | Event>
  | Iterable<string | { chunk: string } | Event>;

/** The reference API's name for `agent.run()`. There is no port: the gateway listens. */
export function serve(agent: Agent, options?: { port?: number }): Promise<void>;

export type ChatAnswer = string | Answer | Ask | Stream;

/** Throw this in a handler to refuse the caller's input: the caller gets 400 and the text. */
export class InvalidInput extends Error {
  constructor(message?: string, options?: ErrorOptions);
}
