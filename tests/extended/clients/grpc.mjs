// @grpc/grpc-js, which has its own HTTP/2: a bidirectional stream, then an error. With "tls" it verifies the server.
import assert from "node:assert/strict";
import grpc from "@grpc/grpc-js";

const { createInsecure, createSsl } = grpc.credentials;
const client = new grpc.Client(process.argv[2], process.argv[3] === "tls" ? createSsl() : createInsecure());
const same = (bytes) => bytes;

const chat = client.makeBidiStreamRequest("/test.Service/Chat", same, same);
for (const word of ["one", "two"]) chat.write(Buffer.from(word));
chat.end();
const answers = [];
for await (const answer of chat) answers.push(answer.toString());
assert.deepEqual(answers, ["ONE", "TWO"]);

const error = await new Promise((resolve) => {
  client.makeUnaryRequest("/test.Service/Fail", same, same, Buffer.from("no"), resolve);
});
assert.deepEqual([error.code, error.details], [grpc.status.FAILED_PRECONDITION, "no"]);
client.close();
