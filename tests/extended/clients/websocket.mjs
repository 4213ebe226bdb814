// npm's ws with wss://, which reads no variables: alone it resolves the host itself, with https-proxy-agent it uses the proxy.
import assert from "node:assert/strict";
import { once } from "node:events";
import { HttpsProxyAgent } from "https-proxy-agent";
import WebSocket from "ws";

const [what, url] = process.argv.slice(2);

if (what === "alone") {
  const socket = new WebSocket(url, {
    lookup(host, _options, done) {
      console.log(`looks up ${host}`);
      done(new Error("no further"));
    },
  });
  await once(socket, "error").catch(() => {});
} else {
  const socket = new WebSocket(url, { agent: new HttpsProxyAgent(process.env.HTTPS_PROXY) });
  await once(socket, "open");
  socket.send("hello");
  const [answer] = await once(socket, "message");
  assert.equal(answer.toString(), "hello");
  socket.close();
  console.log("hello");
}
