/** MCP's clients for Node: the newest version's, and the one of the older handshake. */

import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { Client as OlderClient } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport as OlderTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";

import { SECONDS, serve } from "./runner.mjs";

const url = new URL(`${process.argv[2]}/mcp`);
const info = { name: "tests", version: "1" };

/** After which a call is left: nothing of its result is there before its end. */
const LEAVE_MS = 1000;

function connection(order, elicit) {
  const capabilities = order.answer ? { elicitation: {} } : {};
  const options = { requestInit: { headers: { authorization: `Bearer ${order.key}` } } };
  if (order.api === "newest") {
    const client = new Client(info, { capabilities, versionNegotiation: { mode: "auto" } });
    if (order.answer) client.setRequestHandler("elicitation/create", elicit);
    const call = (tool, options) => client.callTool(tool, options);
    return { client, call, transport: new StreamableHTTPClientTransport(url, options) };
  }
  const client = new OlderClient(info, { capabilities });
  if (order.answer) client.setRequestHandler(ElicitRequestSchema, elicit);
  const call = (tool, options) => client.callTool(tool, undefined, options);
  return { client, call, transport: new OlderTransport(url, options) };
}

async function carryOut(order, reply) {
  const elicit = async ({ params }) => {
    reply.asks.push(params.message);
    return { action: "accept", content: order.answer };
  };
  const { client, call, transport } = connection(order, elicit);
  const leaving = new AbortController();
  const onprogress = ({ message }) => reply.statuses.push(message);
  try {
    await client.connect(transport);
    if (order.do === "leave") setTimeout(() => leaving.abort(), LEAVE_MS);
    const tool = { name: `${order.model}_chat`, arguments: { message: order.text } };
    const options = { signal: leaving.signal, timeout: SECONDS * 1000, onprogress };
    take(await call(tool, options), reply);
  } catch (error) {
    if (!leaving.signal.aborted) {
      reply.caught(error);
      reply.error.status = null; // some of its errors have HTTP's, and most have JSON-RPC's
    }
  } finally {
    await client.close();
  }
}

function take(result, reply) {
  const blocks = [...result.content];
  if (result.isError) reply.fail("isError", blocks.pop().text);
  for (const block of blocks) {
    if (block.type === "text") reply.say(block.text);
    if (block.type === "resource") {
      const { uri, mimeType, text } = block.resource;
      const data = Buffer.from(text).toString("base64");
      reply.files.push([uri.split("/").at(-1), mimeType, data]);
    }
  }
  const usage = result._meta?.["agent-gateway/usage"];
  reply.spent(usage?.input_tokens, usage?.output_tokens);
  if (!result.isError) reply.finish = result._meta?.["agent-gateway/finish"] ?? "stop";
}

console.log = console.error; // one of the clients tells there what it does
await serve(["@modelcontextprotocol/client", "@modelcontextprotocol/sdk"], carryOut);
