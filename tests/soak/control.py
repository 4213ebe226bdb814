"""Calls the upstreams without the sidecar: control.py CA HTTP_PORT GRPC_PORT. Prints `[kind, began, ended]` for each
call.

A slow call here shows that the upstreams or the machine are slow. The clock is the machine's monotonic clock, so that
other processes can compare times.
"""

import asyncio
import base64
import contextlib
import itertools
import json
import ssl
import sys
import time

import grpc
import h2.config
import h2.connection
import h2.events
import websockets

HOST = "plain.example.com"
DEADLINE = 60
BODY = bytes(512 * 1024)


class Http2:
    """One connection with one request at a time."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.state = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.state.initiate_connection()

    async def call(self, method, path, body=b"", leave=False):
        stream = self.state.get_next_available_stream_id()
        fields = [(":method", method), (":scheme", "https"), (":authority", HOST), (":path", path)]
        self.state.send_headers(stream, fields, end_stream=not body)
        while True:
            if body:
                length = min(len(body), self.state.local_flow_control_window(stream), self.state.max_outbound_frame_size)
                if length:
                    part, body = body[:length], body[length:]
                    self.state.send_data(stream, part, end_stream=not body)
                    continue
            self.writer.write(self.state.data_to_send())
            await self.writer.drain()
            data = await self.reader.read(64 * 1024)
            if not data:
                raise ConnectionError("the connection ended")
            ended = False
            for event in self.state.receive_data(data):
                match event:
                    case h2.events.DataReceived():
                        self.state.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    case h2.events.ResponseReceived(stream_id=which) if leave and which == stream:
                        ended = True
                    case h2.events.StreamEnded(stream_id=which) if which == stream:
                        ended = True
                    case h2.events.StreamReset() | h2.events.ConnectionTerminated():
                        raise ConnectionError(repr(event))
            if ended:
                if leave:
                    self.state.reset_stream(stream)
                self.writer.write(self.state.data_to_send())
                return

    def close(self):
        self.writer.transport.abort()


class Control:
    def __init__(self, ca, http_port, grpc_port):
        self.http_port, self.grpc_port = int(http_port), int(grpc_port)
        self.contexts = {}
        for protocol in ("h2", "http/1.1"):
            context = ssl.create_default_context(cafile=ca)
            context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
            context.set_alpn_protocols([protocol])
            self.contexts[protocol] = context
        with open(ca, "rb") as file:
            credentials = grpc.ssl_channel_credentials(file.read())
        options = [("grpc.ssl_target_name_override", "grpc.a.run.app"), ("grpc.enable_retries", 0)]
        self.channel = grpc.aio.secure_channel(f"127.0.0.1:{grpc_port}", credentials, options=options)
        claims = base64.urlsafe_b64encode(b'{"aud":"https://grpc.a.run.app"}').decode()
        self.metadata = [("authorization", f"Bearer e30.{claims}.e30")]
        self.kept = None

    async def connect(self, protocol):
        return await asyncio.open_connection(
            "127.0.0.1", self.http_port, ssl=self.contexts[protocol], server_hostname=HOST, ssl_handshake_timeout=DEADLINE
        )

    async def new_connection(self):
        connection = Http2(*await self.connect("h2"))
        try:
            await connection.call("GET", "/")
        finally:
            connection.close()

    async def kept_get(self):
        await self.keep("GET", "/")

    async def kept_upload(self):
        await self.keep("POST", "/up", BODY)

    async def kept_download(self):
        await self.keep("GET", f"/down/{len(BODY)}")

    async def kept_leaver(self):
        await self.keep("GET", f"/down/{64 << 20}", leave=True)

    async def keep(self, *args, **more):
        if self.kept is None:
            self.kept = Http2(*await self.connect("h2"))
        try:
            await self.kept.call(*args, **more)
        except BaseException:
            self.kept.close()
            self.kept = None
            raise

    async def web_socket(self):
        context = self.contexts["http/1.1"]
        async with websockets.connect(
            f"wss://{HOST}/ws", host="127.0.0.1", port=self.http_port, ssl=context, proxy=None, open_timeout=DEADLINE
        ) as socket:
            for number in range(3):
                await socket.send(f"message {number}")
                await socket.recv()

    async def grpc_unary(self):
        await self.channel.unary_unary("/soak.Soak/Echo")(b"hello", timeout=DEADLINE, metadata=self.metadata)

    async def grpc_server_stream(self):
        count = self.channel.unary_stream("/soak.Soak/Count")
        async for _ in count(b"200", timeout=DEADLINE, metadata=self.metadata):
            pass


async def repeat(pause, *calls):
    """Makes the calls in turn, and times each."""
    for call in itertools.cycle(calls):
        began = time.monotonic()
        # Failures have injected faults as their cause and are ignored.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(DEADLINE):
                await call()
        print(json.dumps([call.__name__, began, time.monotonic()]), flush=True)
        await asyncio.sleep(pause)


async def main(*args):
    control = Control(*args)
    await asyncio.gather(
        repeat(0.4, control.new_connection),
        repeat(0.2, control.kept_get, control.kept_upload, control.kept_download, control.kept_leaver),
        repeat(0.4, control.web_socket),
        repeat(0.4, control.grpc_unary),
        repeat(0.4, control.grpc_server_stream),
    )


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
