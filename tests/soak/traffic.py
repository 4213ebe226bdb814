"""The callers. Each kind is a coroutine that makes one call and raises if anything is wrong."""

import asyncio
import gc
import hashlib
import random
import ssl

import grpc
import websockets

from http1 import Broken, Connection, NoAnswer, raise_failed

SVC = "svc.a.run.app"
BODY = bytes(range(256)) * 2048
DIGEST = hashlib.sha256(BODY).hexdigest().encode()
EMPTY = hashlib.sha256(b"").hexdigest().encode()
# gRPC's own channel must not hide a failure by waiting.
CHANNEL = [("grpc.enable_retries", 0), ("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]


def expect(condition, what):
    if not condition:
        raise AssertionError(what)


class Traffic:
    def __init__(self, stage, hosts):
        self.stage = stage
        self.host_count = hosts
        self.inside = ssl.create_default_context(cafile=stage.folder / "ca.pem")
        self.intercepted_context = ssl.create_default_context(cafile=stage.folder / "trust" / "ca.pem")
        for context in (self.inside, self.intercepted_context):
            # Python 3.13 requires extensions that Google's certificates have and these do not need.
            context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
        self.channel = grpc.aio.insecure_channel(stage.grpc_route, options=CHANNEL)

    def kinds(self):
        """Kind of traffic, pause between two calls, callers."""
        return [
            (self.many_hosts, 0.1, 3),
            (self.kept_alive, 0.1, 2),
            (self.upload, 0.5, 2),
            (self.download, 0.5, 2),
            (self.slow_reader, 0.5, 3),
            (self.leaver, 0.7, 2),
            (self.grpc_unary, 0.15, 2),
            (self.grpc_server_stream, 0.5, 1),
            (self.grpc_chat, 0.5, 1),
            (self.web_socket, 0.5, 2),
            (self.blind_tunnel, 0.4, 2),
            (self.intercepted, 0.4, 2),
        ]

    async def end(self):
        await self.channel.close()
        # grpcio closes the connection of a channel when it drops the channel.
        del self.channel
        gc.collect()

    async def one_host(self, number):
        host = f"host-{number}.a.run.app"
        await self._get(self.stage.proxy, f"http://{host}/", host, EMPTY)

    async def many_hosts(self):
        await self.one_host(random.randrange(self.host_count))

    async def kept_alive(self):
        connection = await Connection.open(self.stage.route)
        try:
            for _ in range(10):
                status, body = await connection.call("GET", "/", self.stage.route)
                expect((status, body) == (200, EMPTY), f"{status} {body[:100]}")
                await asyncio.sleep(0.05)
        finally:
            connection.close()

    async def upload(self):
        connection = await Connection.open(self.stage.route)
        try:
            status, body = await connection.call("POST", "/up", self.stage.route, BODY)
            expect((status, body) == (200, DIGEST), f"{status} {body[:100]}")
        finally:
            connection.close()

    async def download(self):
        await self._get(self.stage.proxy, f"http://{SVC}/down/{len(BODY)}", SVC, None)

    async def slow_reader(self):
        connection = await Connection.open(self.stage.route, limit=32 * 1024)
        try:
            status, body = await connection.call("GET", f"/down/{2 << 20}", self.stage.route, pause=0.05)
            expect((status, len(body)) == (200, 2 << 20), f"{status} {len(body)}")
        finally:
            connection.close()

    async def leaver(self):
        """Reads the head of a large response, then closes."""
        connection = await Connection.open(self.stage.route)
        try:
            await connection.send("GET", f"/down/{64 << 20}", self.stage.route)
            status, _ = await connection.head()
            expect(status == 200, status)
        finally:
            connection.close()

    async def grpc_unary(self):
        echo = self.channel.unary_unary("/soak.Soak/Echo")
        expect(await echo(b"hello", timeout=20) == b"hello", "echo")

    async def grpc_server_stream(self):
        count = self.channel.unary_stream("/soak.Soak/Count")
        received = [message async for message in count(b"200", timeout=20)]
        expect(len(received) == 200, len(received))

    async def grpc_chat(self):
        async def messages():
            for number in range(20):
                yield f"message {number}".encode()
                await asyncio.sleep(0.01)

        chat = self.channel.stream_stream("/soak.Soak/Chat")
        received = [message async for message in chat(messages(), timeout=20)]
        expect(received[-1:] == [b"MESSAGE 19"], received[-1:])

    async def web_socket(self):
        try:
            async with websockets.connect(f"ws://{self.stage.route}/ws", proxy=None, open_timeout=20) as socket:
                for number in range(10):
                    await socket.send(f"message {number}")
                    expect(await socket.recv() == f"message {number}", number)
                    await asyncio.sleep(0.02)
        except websockets.InvalidStatus as error:
            raise_failed(error.response.status_code, {name.lower(): value for name, value in error.response.headers.raw_items()})
            raise
        except websockets.InvalidHandshake as error:
            raise NoAnswer(repr(error)) from error
        except (websockets.WebSocketException, ConnectionError, EOFError) as error:
            raise Broken(repr(error)) from error

    async def blind_tunnel(self):
        await self._tunnel("plain.example.com", self.inside)

    async def intercepted(self):
        await self._tunnel(SVC, self.intercepted_context)

    async def _tunnel(self, host, context):
        connection = await Connection.open(self.stage.proxy)
        try:
            await connection.send("CONNECT", f"{host}:443", f"{host}:443")
            status, _ = await connection.head()
            expect(status == 200, status)
            await connection.secure(context, host)
            for _ in range(3):
                status, body = await connection.call("GET", "/", host)
                expect((status, body) == (200, EMPTY), f"{status} {body[:100]}")
        finally:
            connection.close()

    async def _get(self, address, target, host, body):
        connection = await Connection.open(address)
        try:
            status, got = await connection.call("GET", target, host)
            expect(status == 200 and (body is None or got == body), f"{status} {got[:100]}")
        finally:
            connection.close()
