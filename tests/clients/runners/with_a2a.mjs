/** The @a2a-js/sdk package. */

import { SendMessageRequest, StreamResponse, Task } from "@a2a-js/sdk";
import {
  ClientFactory,
  ClientFactoryOptions,
  DefaultAgentCardResolver,
  JsonRpcTransportFactory,
} from "@a2a-js/sdk/client";
import { MAX_STEPS, PICTURE, SECONDS, serve, TOOL } from "./runner.mjs";

const TOOLS = "urn:agent-gateway:a2a:tools:1";
const FAILED = ["TASK_STATE_FAILED", "TASK_STATE_REJECTED"];

/** What is said of one task, in one turn or more. */
class Turn {
  task = "";
  calls = [];
  asks = [];
  said = new Set();

  constructor(reply) {
    this.reply = reply;
  }

  begin() {
    this.calls = [];
    this.asks = [];
  }

  /** Take an event of a stream, or the task that is the answer. */
  take({ task, artifactUpdate, statusUpdate }) {
    if (task) {
      this.task = task.id;
      const artifacts = task.artifacts ?? [];
      for (const artifact of artifacts) {
        if (!this.said.has(artifact.artifactId)) this.artifact(artifact);
      }
      for (const artifact of artifacts) this.said.add(artifact.artifactId);
      this.status(task.status, task.metadata ?? {});
    } else if (artifactUpdate) {
      this.artifact(artifactUpdate.artifact);
      this.said.add(artifactUpdate.artifact.artifactId);
    } else if (statusUpdate) {
      this.status(statusUpdate.status, statusUpdate.metadata ?? {});
    }
  }

  artifact(artifact) {
    for (const part of artifact.parts) {
      this.reply.say(part.text);
      if (part.raw) this.reply.files.push([part.filename, part.mediaType, part.raw]);
    }
  }

  status({ state, message }, metadata) {
    const parts = message?.parts ?? [];
    if (FAILED.includes(state)) {
      this.reply.fail(state, parts.map((part) => part.text ?? "").join(" "));
      return;
    }
    for (const { data } of parts) if (data) this.data(data);
    if (!["TASK_STATE_SUBMITTED", "TASK_STATE_WORKING"].includes(state)) {
      this.reply.finish = metadata.finish ?? state.replace("TASK_STATE_", "").toLowerCase();
      this.reply.spent(metadata.usage?.input_tokens, metadata.usage?.output_tokens);
    }
  }

  data(data) {
    const { reply } = this;
    this.calls.push(...(data.toolCalls ?? []));
    this.asks.push(...(data.asks ?? []));
    reply.asks.push(...(data.asks ?? []).map((each) => each.message));
    if (data.type === "reasoning") reply.reasoning += data.text;
    else if (data.type === "status") reply.statuses.push(data.text);
    else if (data.type === "state" && "value" in data) reply.state = data.value;
    else if (data.type === "state") {
      // A patch (RFC 6902), of which the agent uses this much.
      for (const { path, value } of data.patch) reply.state[path.slice(1)] = value;
    } else if (data.type === "tool_call") reply.own.push([data.name, data.arguments, null]);
    else if (data.type === "tool_result") reply.own.at(-1)[2] = data.content;
  }
}

async function converse(order, reply) {
  const signal = AbortSignal.timeout(SECONDS * 1000);
  const fetchImpl = (url, init) => {
    const headers = { ...init?.headers, Authorization: `Bearer ${order.key}` };
    return fetch(url, { ...init, headers, signal: init?.signal ?? signal });
  };
  const factory = new ClientFactory(
    ClientFactoryOptions.createFrom(ClientFactoryOptions.default, {
      transports: [new JsonRpcTransportFactory({ fetchImpl })],
      cardResolver: new DefaultAgentCardResolver({ fetchImpl }),
    }),
  );
  const client = await factory.createFromUrl(`${process.argv[2]}/a2a/${order.model}/`);
  const turn = new Turn(reply);
  let parts = [{ text: order.text }];
  if (order.image) {
    const [mediaType, raw] = PICTURE.replace("data:", "").split(";base64,");
    parts.push({ raw, mediaType });
  }
  const metadata = order.tools ? { [TOOLS]: [TOOL] } : {};
  for (let step = 0; step < MAX_STEPS; step += 1) {
    turn.begin();
    const message = { messageId: `m${step}`, role: "ROLE_USER", parts, metadata };
    if (turn.task) message.taskId = turn.task;
    const request = SendMessageRequest.fromJSON({ message });
    if (order.do === "answer") {
      turn.take({ task: Task.toJSON(await client.sendMessage(request)) });
    } else {
      for await (const event of client.sendMessageStream(request)) {
        turn.take(StreamResponse.toJSON(event));
        if (order.do === "leave" && reply.text) {
          await client.cancelTask({ id: turn.task, tenant: "", metadata: {} });
          return;
        }
      }
    }
    if (turn.calls.length > 0) {
      const toolResults = turn.calls.map(({ id, name, arguments: given }) => ({
        call: id,
        content: reply.call(name, given),
      }));
      parts = [{ data: { toolResults } }];
    } else if (turn.asks.length > 0 && order.answer) {
      parts = [{ data: order.answer }];
    } else {
      return;
    }
  }
}

await serve(["@a2a-js/sdk"], async (order, reply) => {
  try {
    await converse(order, reply);
  } catch (error) {
    reply.caught(error);
  }
});
