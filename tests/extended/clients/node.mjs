// Node.js' clients through a route and through the forward proxy. Prints one JSON object per line.
import assert from "node:assert/strict";
import http from "node:http";
import http2 from "node:http2";
import { once } from "node:events";
import { HttpProxyAgent } from "http-proxy-agent";
import { HttpsProxyAgent } from "https-proxy-agent";
import { ProxyAgent } from "undici";
import WebSocket from "ws";

const [what, route, proxy] = process.argv.slice(2);

async function text(stream) {
  let all = "";
  for await (const part of stream.setEncoding("utf8")) all += part;
  return all;
}

function request(url, options, body) {
  return new Promise((resolve, reject) => {
    const sent = http.request(url, options, async (response) => {
      resolve({ status: response.statusCode, seen: JSON.parse(await text(response)) });
    });
    sent.on("error", reject).end(body);
  });
}

const cases = {
  // The global agent keeps connections alive.
  async http() {
    for (let turn = 0; turn < 3; turn += 1) {
      const { status, seen } = await request(`${route}/node`, { method: "POST" }, "x".repeat(turn));
      assert.deepEqual([status, seen.length], [200, turn]);
      console.log(JSON.stringify(seen));
    }
  },

  async http_proxy_agent() {
    const agent = new HttpProxyAgent(proxy);
    const { seen } = await request("http://svc.a.run.app/agent", { agent });
    console.log(JSON.stringify(seen));
  },

  // The proxy is the host, so Node also writes it in Host.
  async http_get() {
    const { seen } = await request(proxy, { path: "http://svc.a.run.app/get" });
    console.log(JSON.stringify(seen));
  },

  // Node's own proxy support (NODE_USE_ENV_PROXY): CONNECT to port 80.
  async fetch_by_environment() {
    const response = await globalThis.fetch("http://svc.a.run.app/environment");
    console.log(await response.text());
  },

  // CONNECT to port 80.
  async undici_tunnel() {
    const dispatcher = new ProxyAgent(proxy);
    const { request } = await import("undici");
    const { body } = await request("http://svc.a.run.app/tunnel", { dispatcher });
    console.log(await body.text());
    await dispatcher.close();
  },

  async gaxios() {
    const { request } = await import("gaxios");
    const { data } = await request({ url: "http://svc.a.run.app/gaxios", proxy });
    console.log(JSON.stringify(data));
  },

  // Trailers of a request and an expectation of 100-continue.
  async trailers() {
    const sent = http.request(`${route}/trailers`, {
      method: "POST",
      headers: { Expect: "100-continue", Trailer: "x-sum" },
    });
    sent.flushHeaders();
    await once(sent, "continue");
    sent.addTrailers({ "x-sum": "1" });
    sent.end("body");
    const [response] = await once(sent, "response");
    console.log(await text(response));
  },

  async fetch() {
    const body = new ReadableStream({
      pull(controller) {
        this.left = (this.left ?? 100) - 1;
        if (this.left < 0) controller.close();
        else controller.enqueue(new Uint8Array(10_000));
      },
    });
    const response = await fetch(`${route}/fetch`, { method: "POST", body, duplex: "half" });
    assert.equal(response.status, 200);
    assert.deepEqual(response.headers.getSetCookie(), ["one=1", "two=2"]);
    console.log(await response.text());
  },

  async fetch_cancelled() {
    const leaving = new AbortController();
    setTimeout(() => leaving.abort(), 300);
    await assert.rejects(fetch(`${route}/stuck/fetch`, { signal: leaving.signal }), { name: "AbortError" });
    console.log("{}");
  },

  // undici's proxy sends absolute URLs if it is configured not to tunnel.
  async undici_proxy() {
    const dispatcher = new ProxyAgent({ uri: proxy, proxyTunnel: false });
    const { request } = await import("undici");
    const { body } = await request("http://svc.a.run.app/undici", { dispatcher });
    console.log(await body.text());
    await dispatcher.close();
  },

  async http2() {
    const session = http2.connect(route);
    const calls = Array.from({ length: 50 }, async (_, number) => {
      const stream = session.request({ ":method": "POST", ":path": `/http2/${number}` });
      stream.end("y".repeat(number));
      const [headers] = await once(stream, "response");
      assert.equal(headers[":status"], 200);
      const seen = JSON.parse(await text(stream));
      assert.deepEqual([seen.path, seen.length], [`/http2/${number}`, number]);
      return seen;
    });
    for (const seen of await Promise.all(calls)) console.log(JSON.stringify(seen));
    session.close();
  },

  ws: () => talk(new WebSocket(`${route.replace("http", "ws")}/ws`)),

  ws_tunnel: () => talk(new WebSocket("ws://svc.a.run.app/ws", { agent: new HttpsProxyAgent(proxy) })),
};

async function talk(socket) {
  await once(socket, "open");
  socket.send("hello");
  const [answer] = await once(socket, "message");
  assert.equal(answer.toString(), "hello");
  socket.send("bye");
  const [code] = await once(socket, "close");
  assert.equal(code, 4001);
  console.log("{}");
}

await cases[what]();
