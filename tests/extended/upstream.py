"""Private services behind TLS. Each accepts a call only with an ID token that the metadata server signed for it."""

import asyncio
import collections
import concurrent.futures
import dataclasses
import datetime
import gzip
import hashlib
import ipaddress
import json
import pathlib
import socket
import threading
import time
import urllib.parse

import grpc
import hypercorn.asyncio
import hypercorn.config
import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

NAMES = ["*.a.run.app", "*.us-central1.run.app", "*.europe-west1.run.app", "*.googleapis.com", "*.pkg.dev", "*.example.com"]


@dataclasses.dataclass
class Certificates:
    ca: pathlib.Path
    chain: pathlib.Path
    key: pathlib.Path


def write_certificates(folder):
    """Creates an authority, and a certificate for every name that the tests call."""
    now = datetime.datetime.now(datetime.timezone.utc)

    def certificate(subject, names, public_key, issuer, signing_key, ca):
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer or name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if names:
            loopback = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            alternatives = [x509.DNSName(name) for name in names] + [loopback]
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        return builder.sign(signing_key, hashes.SHA256())

    pem = serialization.Encoding.PEM
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = certificate("Test CA", [], ca_key.public_key(), None, ca_key, True)
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = certificate("service", NAMES, key.public_key(), ca.subject, ca_key, False)
    files = Certificates(folder / "ca.pem", folder / "chain.pem", folder / "key.pem")
    files.ca.write_bytes(ca.public_bytes(pem))
    files.chain.write_bytes(leaf.public_bytes(pem))
    files.key.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


class Doorkeeper:
    """Verifies ID tokens with the metadata server's published keys, like a private service."""

    def __init__(self, emulator):
        self.keys = jwt.PyJWKClient(emulator.url("/oauth2/v3/certs"))

    def claims(self, authorization, host):
        """Returns the claims of a token for this host. Raises for any other token."""
        scheme, _, token = authorization.partition(" ")
        if scheme != "Bearer":
            raise jwt.InvalidTokenError("no bearer token")
        key = self.keys.get_signing_key_from_jwt(token)
        return jwt.decode(
            token, key, algorithms=["RS256"], audience=f"https://{host}", issuer="https://accounts.google.com"
        )


class Upstream:
    """HTTP/1.1, HTTP/2 and WebSocket. Paths without a meaning below return the request as JSON."""

    def __init__(self, certificates, emulator):
        self.doorkeeper = Doorkeeper(emulator)
        # Calls of a path, and the number of them whose body was read to its end.
        self.counts = collections.Counter()
        self.completed = collections.Counter()
        # The events that paths wait for, and the events when callers leave.
        self.left = collections.defaultdict(threading.Event)
        self.go_on = collections.defaultdict(threading.Event)
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        config = hypercorn.config.Config()
        config.bind = [f"fd://{listener.detach()}"]
        config.certfile = str(certificates.chain)
        config.keyfile = str(certificates.key)
        config.accesslog = None
        config.errorlog = None
        config.graceful_timeout = 1
        self.config = config

    def __enter__(self):
        self.loop = asyncio.new_event_loop()
        self.stop = asyncio.Event()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()
        return self

    def _serve(self):
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(
            hypercorn.asyncio.serve(self, self.config, mode="asgi", shutdown_trigger=self.stop.wait)
        )

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.stop.set)
        self.thread.join(10)

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            return await send({"type": "lifespan.shutdown.complete"})
        headers = [(name.decode("latin1").lower(), value.decode("latin1")) for name, value in scope["headers"]]
        first = dict(reversed(headers))
        host = first.get("host") or first.get(":authority", "")
        call = {
            "headers": headers,
            "host": host,
            "http": scope["http_version"],
            "path": scope["raw_path"].decode("latin1"),
            "query": scope["query_string"].decode("latin1"),
        }
        self.counts[call["path"]] += 1
        token = first.get("x-serverless-authorization") or first.get("authorization", "")
        try:
            if not host.endswith(".run.app"):
                call["token"] = token
            else:
                claims = await asyncio.to_thread(self.doorkeeper.claims, token, host)
                call["email"], call["audience"] = claims["email"], claims["aud"]
        except (jwt.PyJWTError, KeyError) as error:
            if scope["type"] == "websocket":
                return await send({"type": "websocket.close"})
            return await answer(send, 401, {"refused": str(error)})
        if scope["type"] == "websocket":
            return await websocket(receive, send)
        await self.http(scope["method"], call, receive, send)

    async def http(self, method, call, receive, send):
        path, query = call["path"], dict(urllib.parse.parse_qsl(call["query"]))
        match path.split("/")[1]:
            case "status":
                status = int(path.split("/")[2])
                await send({"type": "http.response.start", "status": status, "headers": []})
                await send({"type": "http.response.body", "body": b""})
            case "down":
                await down(send, int(query["bytes"]), "length" in query)
            case "events":
                await self.events(path, send)
            case "stuck":
                while (await receive())["type"] != "http.disconnect":
                    pass
                self.left[path].set()
            case "redirect":
                location = [(b"location", f"https://{call['host']}/landed?from=redirect".encode())]
                await send({"type": "http.response.start", "status": 302, "headers": location})
                await send({"type": "http.response.body", "body": b""})
            case "gzip":
                body = gzip.compress(b"squeezed " * 1000)
                encoding = [(b"content-encoding", b"gzip"), (b"content-length", str(len(body)).encode())]
                await send({"type": "http.response.start", "status": 200, "headers": encoding})
                await send({"type": "http.response.body", "body": body})
            case _:
                length, digest = await swallow(receive)
                if digest:
                    self.completed[path] += 1
                await answer(send, 200, call | {"method": method, "length": length, "sha256": digest}, method)

    async def events(self, path, send):
        """Server-sent events. The second waits until the test has read the first."""
        kind = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": kind})
        await send({"type": "http.response.body", "body": b"data: first\n\n", "more_body": True})
        await asyncio.to_thread(self.go_on[path].wait, 30)
        await send({"type": "http.response.body", "body": b"data: second\n\n"})


async def answer(send, status, value, method="GET"):
    body = json.dumps(value).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"set-cookie", b"one=1"),
        (b"set-cookie", b"two=2"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})


async def swallow(receive):
    digest, length = hashlib.sha256(), 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return length, None
        digest.update(message.get("body", b""))
        length += len(message.get("body", b""))
        if not message.get("more_body"):
            return length, digest.hexdigest()


async def down(send, length, told):
    headers = [(b"content-length", str(length).encode())] if told else []
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    chunk = pattern(64 * 1024)
    while length > 0:
        part = chunk[:length]
        length -= len(part)
        await send({"type": "http.response.body", "body": part, "more_body": length > 0})
    if not told:
        await send({"type": "http.response.body", "body": b""})


def pattern(length):
    """Returns bytes that show missing or swapped parts."""
    return bytes((i * 7 + i // 251) % 256 for i in range(length))


async def websocket(receive, send):
    await receive()
    await send({"type": "websocket.accept", "subprotocol": None})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        if message.get("text") == "bye":
            return await send({"type": "websocket.close", "code": 4001, "reason": "as you wish"})
        await send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})


class GrpcUpstream(grpc.GenericRpcHandler):
    """All four kinds of gRPC calls over bytes. The name of each method describes it."""

    def __init__(self, certificates, emulator, host="grpc.a.run.app"):
        self.host = host
        self.doorkeeper = Doorkeeper(emulator)
        self.cancelled = collections.defaultdict(threading.Event)
        self.deadlines = {}
        self.server = grpc.server(
            concurrent.futures.ThreadPoolExecutor(64),
            options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
        )
        self.server.add_generic_rpc_handlers((self,))
        pair = (certificates.key.read_bytes(), certificates.chain.read_bytes())
        self.port = self.server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))

    def __enter__(self):
        self.server.start()
        return self

    def __exit__(self, *_):
        self.server.stop(1).wait()

    def service(self, details):
        metadata = dict(details.invocation_metadata)
        try:
            token = metadata.get("x-serverless-authorization") or metadata.get("authorization", "")
            claims = self.doorkeeper.claims(token, self.host)
        except jwt.PyJWTError as error:
            text = str(error)
            return grpc.unary_unary_rpc_method_handler(
                lambda _, context: context.abort(grpc.StatusCode.UNAUTHENTICATED, text)
            )
        name = details.method.rsplit("/", 1)[-1]
        method = getattr(self, name.lower(), None)
        if method is None:
            return None
        kind = {
            "collect": grpc.stream_unary_rpc_method_handler,
            "count": grpc.unary_stream_rpc_method_handler,
            "quiet": grpc.unary_stream_rpc_method_handler,
            "chat": grpc.stream_stream_rpc_method_handler,
        }.get(name.lower(), grpc.unary_unary_rpc_method_handler)

        def tell(context):
            context.send_initial_metadata((("x-email", claims["email"]), ("x-initial-bin", b"\x00\xff")))
            context.set_trailing_metadata((("x-trailing", "the end"), ("x-trailing-bin", b"\x01\xfe")))

        def handle(request, context):
            tell(context)
            return method(request, context)

        def stream(request, context):
            tell(context)
            yield from method(request, context)

        return kind(stream if name.lower() in ("count", "chat", "quiet") else handle)

    def echo(self, request, _):
        return request

    def check(self, _request, _context):
        """`grpc.health.v1.Health`: SERVING."""
        return b"\x08\x01"

    def collect(self, requests, _):
        return b"".join(requests)

    def count(self, request, _):
        for number in range(int(request)):
            yield str(number).encode()

    def quiet(self, request, context):
        """Waits silently between its first and its last response."""
        yield b"first"
        left = threading.Event()
        context.add_callback(left.set)
        left.wait(int(request))
        yield b"last"

    def chat(self, requests, _):
        for request in requests:
            yield request.upper()

    def fail(self, request, context):
        context.set_details(request.decode())
        context.set_code(grpc.StatusCode.FAILED_PRECONDITION)
        return b""

    def wait(self, request, context):
        """Never responds. Reports when its caller has left."""
        name = request.decode()
        self.deadlines[name] = context.time_remaining()
        context.add_callback(self.cancelled[name].set)
        started = time.monotonic()
        while context.is_active() and time.monotonic() - started < 30:
            self.cancelled[name].wait(0.05)
        return b""
