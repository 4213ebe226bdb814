"""Vertex AI for three SDKs. It accepts a call only with an access token and no other key."""

import json
import re
import threading
import urllib.parse

from tls_server import Handler, TlsServer

# The places in which a client may put a key.
KEYS = ("x-goog-api-key", "x-api-key", "api-key")


def chat(text, streamed):
    """Returns a chat completion, or a part of one, in the format of OpenAI's clients."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "finish_reason": None if streamed else "stop"} | {"delta" if streamed else "message": message}
    kind = "chat.completion.chunk" if streamed else "chat.completion"
    return {"id": "c-1", "object": kind, "created": 1, "model": "m", "choices": [choice]}


def gemini(text, _):
    return {"candidates": [{"content": {"role": "model", "parts": [{"text": text}]}}]}


def claude(text, streamed):
    if streamed:
        delta = {"type": "text_delta", "text": text}
        return {"type": "content_block_delta", "index": 0, "delta": delta}
    return {
        "id": "m-1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn", "stop_sequence": None,
        "content": [{"type": "text", "text": text}], "usage": {"input_tokens": 1, "output_tokens": 1},
    }  # fmt: skip


class Models(TlsServer):
    """A server for `*.googleapis.com` behind TLS."""

    def __init__(self, certificates):
        self.calls = []
        # A stream's second event is sent once the client has shown the first.
        self.go_on = threading.Event()
        models = self

        class Answering(Handler):
            def do_POST(self):
                models.answer(self, json.loads(self.rfile.read(int(self.headers["content-length"]))))

        super().__init__(certificates, Answering)

    def answer(self, request, body):
        url = urllib.parse.urlsplit(request.path)
        tokens = request.headers.get_all("authorization", [])
        keys = [request.headers[name] for name in KEYS if name in request.headers]
        keys += urllib.parse.parse_qs(url.query).get("key", [])
        self.calls.append({"path": url.path, "host": request.headers["host"], "tokens": tokens, "keys": keys})
        if len(tokens) != 1 or not re.fullmatch(r"Bearer ya29\.\S+", tokens[0]) or keys:
            return self.send(request, 401, {"error": {"code": 401, "message": "no token", "status": "UNAUTHENTICATED"}})
        if url.path.endswith("/chat/completions"):
            shape, streamed = chat, body.get("stream", False)
        elif url.path.endswith("Predict"):
            shape, streamed = claude, body.get("stream", False)
        else:
            shape, streamed = gemini, url.path.endswith(":streamGenerateContent")
        if not streamed:
            return self.send(request, 200, shape("hello", False))
        request.send_response(200)
        request.send_header("content-type", "text/event-stream")
        request.send_header("transfer-encoding", "chunked")
        request.end_headers()
        self.event(request, shape("first", True))
        self.go_on.wait(30)
        self.event(request, shape("second", True))
        if shape is chat:
            self.chunk(request, b"data: [DONE]\n\n")
        request.wfile.write(b"0\r\n\r\n")

    def event(self, request, value):
        # Anthropic's clients read the event's name, the others only its data.
        name = f"event: {value['type']}\n" if "type" in value else ""
        self.chunk(request, f"{name}data: {json.dumps(value)}\n\n".encode())

    @staticmethod
    def chunk(request, data):
        request.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        request.wfile.flush()

    @staticmethod
    def send(request, status, value):
        body = json.dumps(value).encode()
        request.send_response(status)
        request.send_header("content-type", "application/json")
        request.send_header("content-length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)
