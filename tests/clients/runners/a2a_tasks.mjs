/** What @a2a-js/sdk does with tasks and cards: `node a2a_tasks.mjs URL KEY`, told as a line of JSON. */

import { ListTasksRequest, SendMessageRequest, StreamResponse, Task } from "@a2a-js/sdk";
import {
  ClientFactory,
  ClientFactoryOptions,
  DefaultAgentCardResolver,
  JsonRpcTransportFactory,
} from "@a2a-js/sdk/client";

const [, , gateway, key] = process.argv;
const url = `${gateway}/a2a/told/`;
const fetchImpl = (address, init) =>
  fetch(address, { ...init, headers: { ...init?.headers, "X-API-Key": key } });

const said = (text, configuration = {}) => {
  const message = { messageId: "m1", role: "ROLE_USER", parts: [{ text }] };
  return SendMessageRequest.fromJSON({ message, configuration });
};
const state = (task) => task.status.state.replace("TASK_STATE_", "");
const text = (task) => (task.artifacts ?? []).map(({ parts }) => parts[0].text).join("");

/** The name of the error that is raised. */
async function error(doing) {
  try {
    await doing();
    return "";
  } catch (raised) {
    return raised.constructor.name.replace("JsonRpc", "");
  }
}

const resolver = new DefaultAgentCardResolver({ fetchImpl });
const stranger = await new DefaultAgentCardResolver().resolve(url);
const factory = new ClientFactory(
  ClientFactoryOptions.createFrom(ClientFactoryOptions.default, {
    transports: [new JsonRpcTransportFactory({ fetchImpl })],
    cardResolver: resolver,
  }),
);
const client = await factory.createFromUrl(url);
const known = await client.getAgentCard();
const cards = {
  strangers_skills: stranger.skills.map(({ id }) => id),
  skills: known.skills.map(({ id }) => id),
  modes: known.defaultInputModes,
  url: known.supportedInterfaces[0].url,
};

const tasks = {};
let id = "";
for await (const event of client.sendMessageStream(said("hold a2a-tasks"))) {
  const { task, artifactUpdate } = StreamResponse.toJSON(event);
  if (task) id = task.id;
  if (artifactUpdate) break;
}
const named = { id, tenant: "" };
const get = async () => Task.toJSON(await client.getTask(named));
const now = await get();
tasks["while it runs"] = [state(now), text(now).slice(0, 6)];
const follower = client.resubscribeTask(named);
const first = StreamResponse.toJSON((await follower.next()).value).task;
tasks.followed = [first.id === id, state(first), text(first).slice(0, 6)];
tasks.cancelled = state(Task.toJSON(await client.cancelTask({ ...named, metadata: {} })));
let last;
for await (const event of follower) last = StreamResponse.toJSON(event).statusUpdate ?? last;
tasks["the stream's end"] = state(last);
tasks.afterwards = state(await get());
tasks["cancelled again"] = await error(() => client.cancelTask({ ...named, metadata: {} }));
tasks["followed again"] = await error(() => client.resubscribeTask(named).next());
const listed = await client.listTasks(ListTasksRequest.fromJSON({ pageSize: 100 }));
tasks.listed = listed.tasks.some((task) => task.id === id);
tasks.another = await error(() => client.getTask({ id: `task_${"0".repeat(56)}`, tenant: "" }));
tasks.push = await error(() =>
  client.createTaskPushNotificationConfig({ taskId: id, url: "http://127.0.0.1/" }),
);

const began = await client.sendMessage(said("hello a2a-poll", { returnImmediately: true }));
let task = Task.toJSON(began);
while (["SUBMITTED", "WORKING"].includes(state(task))) {
  await new Promise((resolve) => setTimeout(resolve, 10));
  task = Task.toJSON(await client.getTask({ id: began.id, tenant: "" }));
}
process.stdout.write(`${JSON.stringify({ cards, tasks, polled: [state(task), text(task)] })}\n`);
