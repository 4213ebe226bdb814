"""An MCP server behind TLS, like a private Cloud Run service: both transports, and a tool that is silent for a given
time."""

import asyncio
import socket
import threading

import hypercorn.asyncio
import hypercorn.config
import jwt
from mcp.server import MCPServer
from starlette.applications import Starlette

from upstream import Doorkeeper, answer

HOST = "tools-424242.us-central1.run.app"


class McpUpstream:
    """Serves `/mcp` (streamable HTTP) and `/sse`. Every request needs an ID token for the host."""

    def __init__(self, certificates, emulator):
        self.doorkeeper = Doorkeeper(emulator)
        self.refused = 0
        server = MCPServer("tools")

        @server.tool()
        async def add(a: int, b: int) -> int:
            """Adds two numbers."""
            return a + b

        @server.tool()
        async def think(seconds: int) -> str:
            """Waits silently for a given time."""
            await asyncio.sleep(seconds)
            return "done"

        # With a non-loopback host, the library does not check Host.
        http = server.streamable_http_app(host="0.0.0.0")
        sse = server.sse_app(host="0.0.0.0")
        self.app = Starlette(routes=[*http.routes, *sse.routes], lifespan=http.router.lifespan_context)
        self.config = hypercorn.config.Config()
        self.config.certfile = str(certificates.chain)
        self.config.keyfile = str(certificates.key)
        self.config.accesslog = None
        self.config.errorlog = None
        self.config.graceful_timeout = 1

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            token = headers.get(b"x-serverless-authorization") or headers.get(b"authorization", b"")
            try:
                await asyncio.to_thread(self.doorkeeper.claims, token.decode(), HOST)
            except jwt.PyJWTError as error:
                self.refused += 1
                return await answer(send, 401, {"refused": str(error)})
        await self.app(scope, receive, send)

    def __enter__(self):
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self.config.bind = [f"fd://{listener.detach()}"]
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
