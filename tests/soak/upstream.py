"""Runs the upstreams as a process: upstream.py CHAIN KEY HTTP_PORT GRPC_PORT. Prints a line once it listens.

Every call must carry an ID token for its host. Any other call is answered with 418.
"""

import asyncio
import base64
import concurrent.futures
import hashlib
import json
import signal
import socket
import sys

import grpc
import hypercorn.asyncio
import hypercorn.config

CHUNK = bytes(range(256)) * 64


def is_for(authorization, host):
    """Returns whether this is an ID token for a host. The signature is not checked."""
    try:
        payload = authorization.removeprefix("Bearer ").split(".")[1]
        return json.loads(base64.urlsafe_b64decode(payload + "==="))["aud"] == f"https://{host}"
    except (IndexError, KeyError, ValueError):
        return False


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        return await send({"type": "lifespan.shutdown.complete"})
    headers = dict(scope["headers"])
    host = (headers.get(b"host") or headers.get(b":authority", b"")).decode()
    token = (headers.get(b"x-serverless-authorization") or headers.get(b"authorization", b"")).decode()
    path = scope["path"]
    if host == "plain.example.com":
        allowed = not token
    else:
        allowed = is_for(token, host)
    if scope["type"] == "websocket":
        return await websocket(receive, send, allowed)
    if not allowed:
        return await answer(send, 418, b"no token for this host")
    if path.startswith("/down/"):
        return await down(send, int(path.removeprefix("/down/")))
    digest = hashlib.sha256()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        digest.update(message.get("body", b""))
        if not message.get("more_body"):
            break
    await answer(send, 200, digest.hexdigest().encode())


async def answer(send, status, body):
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def down(send, length):
    headers = [(b"content-length", str(length).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    while length > 0:
        part = CHUNK[:length]
        length -= len(part)
        await send({"type": "http.response.body", "body": part, "more_body": length > 0})


async def websocket(receive, send, allowed):
    await receive()
    if not allowed:
        return await send({"type": "websocket.close"})
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})


class Grpc(grpc.GenericRpcHandler):
    """`Echo`, `Count` (to the requested number) and `Chat`, over bytes."""

    def service(self, details):
        metadata = dict(details.invocation_metadata)
        token = metadata.get("x-serverless-authorization") or metadata.get("authorization", "")
        if not is_for(token, "grpc.a.run.app"):
            return grpc.unary_unary_rpc_method_handler(
                lambda _, context: context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token for this host")
            )
        match details.method.rsplit("/", 1)[-1]:
            case "Echo":
                return grpc.unary_unary_rpc_method_handler(lambda request, _: request)
            case "Count":
                return grpc.unary_stream_rpc_method_handler(
                    lambda request, _: (str(number).encode() for number in range(int(request)))
                )
            case "Chat":
                return grpc.stream_stream_rpc_method_handler(
                    lambda requests, _: (request.upper() for request in requests)
                )


async def serve(chain, key, http_port, grpc_port):
    with open(chain, "rb") as chain_file, open(key, "rb") as key_file:
        pair = (key_file.read(), chain_file.read())
    # First, because a process with a running gRPC server does not end if this fails.
    listener = socket.create_server(("127.0.0.1", int(http_port)), backlog=1024)
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(16))
    server.add_generic_rpc_handlers((Grpc(),))
    server.add_secure_port(f"127.0.0.1:{grpc_port}", grpc.ssl_server_credentials([pair]))
    server.start()
    config = hypercorn.config.Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.certfile, config.keyfile = chain, key
    config.accesslog = config.errorlog = None
    config.graceful_timeout = 1
    config.keep_alive_timeout = 120
    config.keep_alive_max_requests = 1_000_000
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    print("listening", flush=True)
    try:
        # It raises the error of a connection that it had to abort.
        await hypercorn.asyncio.serve(app, config, mode="asgi", shutdown_trigger=stopping.wait)
    finally:
        server.stop(0.5).wait()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
