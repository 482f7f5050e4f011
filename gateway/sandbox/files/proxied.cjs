// Takes what Node's fetch, https and http connect to through the proxy of the agent's network.
//
// Node obeys NODE_USE_ENV_PROXY from 22.21 and 24.5 on, in fetch and in the agents that it made
// itself: older versions are helped here in both, and newer ones with agents of a library's own. The
// gateway has this file loaded (NODE_OPTIONS) where `network` names hosts, and there only. It needs no
// packages. The proxy speaks CONNECT, so that there is a tunnel to whatever is connected to.

"use strict";

const { env, versions } = process;
const [major, minor] = versions.node.split(".").map(Number);
const obeys = major >= 24 ? major > 24 || minor >= 5 : major === 22 && minor >= 21;
if (env.https_proxy && !versions.bun && !versions.deno) install(new URL(env.https_proxy));

function install({ hostname, port }) {
  const http = require("node:http");
  const https = require("node:https");
  const net = require("node:net");
  const tls = require("node:tls");
  const here = new Set(["localhost", "127.0.0.1", "::1", "[::1]"]);
  const toProxy = new http.Agent();
  toProxy.createConnection = () => net.connect(port, hostname);

  // Gives `callback` an error, or the connected socket of a tunnel to where `options` says.
  function connect(options, secure, callback) {
    const host = options.hostname ?? options.host;
    const to = options.port || (secure ? 443 : 80);
    if (here.has(host)) {
      const socket = net.connect(to, host).once("error", callback);
      socket.once("connect", () => finish(socket));
      return;
    }
    const path = `${net.isIPv6(host) ? `[${host}]` : host}:${to}`;
    const request = http.request({ method: "CONNECT", path, agent: toProxy });
    request.once("error", callback).once("connect", (response, socket) => {
      if (response.statusCode === 200) return finish(socket);
      socket.destroy();
      callback(new Error(`the proxy refused ${path}: ${response.statusMessage}`));
    });
    request.end();

    function finish(socket) {
      socket.off("error", callback);
      if (!secure) return callback(null, socket);
      const servername = options.servername || (net.isIP(host) ? "" : host);
      const encrypted = tls.connect({ ...options, path: undefined, socket, servername });
      encrypted.once("error", callback).once("secureConnect", () => {
        encrypted.off("error", callback);
        callback(null, encrypted);
      });
    }
  }

  for (const [{ Agent }, secure] of [[https, true], [http, false]]) {
    const direct = Agent.prototype.createConnection;
    Agent.prototype.createConnection = function (options, callback) {
      if (options.socketPath) return direct.call(this, options, callback);
      connect(options, secure, callback);
    };
  }

  if (obeys) return;
  // What `fetch` connects with is made when that is loaded, which takes a third of a start.
  const original = globalThis.fetch;
  const key = Symbol.for("undici.globalDispatcher.1");
  let loaded = false;
  globalThis.fetch = function fetch(...given) {
    if (!loaded) {
      loaded = true;
      void globalThis.Headers; // loads it
      const through = (options, callback) => connect(options, options.protocol === "https:", callback);
      globalThis[key] = new globalThis[key].constructor({ connect: through });
    }
    return original(...given);
  };
}
