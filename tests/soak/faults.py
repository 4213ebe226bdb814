"""The injected faults, and the failures that each of them explains."""

import asyncio
import contextlib
import dataclasses
import time

import grpc

from http1 import Broken, NoAnswer, Refused, UpstreamFailed

# The values of `Proxy-Status` while an upstream restarts.
UPSTREAM_ERRORS = {
    "connection_refused", "connection_terminated", "http_protocol_error", "tls_protocol_error",
}
# The kernel closes the connections of an ended process, so the sidecar must notice at once.
UPSTREAM_GRACE = 1.0
GRPC_CODES = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED}


@dataclasses.dataclass
class Window:
    kind: str
    began: float
    ended: float = float("inf")

    def covers(self, began, ended, grace):
        return began <= self.ended + grace and ended >= self.began


class Faults:
    """Injects one fault in each period, in turn."""

    def __init__(self, stage, seconds):
        self.stage = stage
        self.period = max(6.0, min(30.0, seconds / 20))
        # The duration of a fault and of its effects on tokens: a fetch that began during it ends within 8 s.
        self.length = self.period * 0.3
        self.grace = min(9.0, self.period * 0.4)
        self.windows = []
        # Set once every kind has been injected.
        self.first_round = asyncio.Event()

    async def run(self):
        kinds = [self.reload, self.metadata_down, self.upstream_killed, self.metadata_errors, self.upstream_restarted]
        while True:
            for fault in kinds:
                await asyncio.sleep(self.period - self.length)
                await fault()
            self.first_round.set()

    @contextlib.asynccontextmanager
    async def window(self, kind):
        window = Window(kind, time.monotonic())
        self.windows.append(window)
        yield
        window.ended = time.monotonic()

    async def reload(self):
        """This fault explains no failure."""
        async with self.window("reload"):
            await self.stage.reload()
        await asyncio.sleep(self.length)

    async def metadata_down(self):
        async with self.window("metadata down"):
            await self.stage.stop_metadata()
            await asyncio.sleep(self.length)
            await self.stage.start_metadata()

    async def metadata_errors(self):
        async with self.window("metadata 500"):
            await self.stage.stop_metadata()
            async with self.stage.metadata_errors():
                await asyncio.sleep(self.length)
            await self.stage.start_metadata()

    async def upstream_killed(self):
        async with self.window("upstream killed"):
            await self.stage.stop_upstream(kill=True)
            await asyncio.sleep(self.length / 2)
            await self.stage.start_upstream()

    async def upstream_restarted(self):
        async with self.window("upstream restarted"):
            await self.stage.stop_upstream(kill=False)
            await self.stage.start_upstream()

    def cause(self, traffic, error, began, ended):
        """Returns the kind of fault that explains a failure, or `None`."""
        for window in self.windows:
            grace = self.grace if window.kind.startswith("metadata") else UPSTREAM_GRACE
            if window.covers(began, ended, grace) and accounts_for(window.kind, traffic, error):
                return window.kind
        return None

    def context(self, began, ended):
        """Describes when a failure happened, relative to the faults before it."""
        before = [window for window in self.windows if window.began <= ended]
        if not before:
            return "before the first fault"
        last = before[-1]
        return f"from {began - last.began:.1f} s to {ended - last.began:.1f} s after the beginning of: {last.kind}"

    def counts(self):
        kinds = {}
        for window in self.windows:
            kinds[window.kind] = kinds.get(window.kind, 0) + 1
        return kinds


def accounts_for(kind, traffic, error):
    if kind.startswith("metadata"):
        if isinstance(error, grpc.RpcError):
            return error.code() == grpc.StatusCode.UNAVAILABLE and "token:" in (error.details() or "")
        return isinstance(error, Refused) and error.error == "proxy_internal_error" and error.about_token
    if kind.startswith("upstream"):
        if isinstance(error, grpc.RpcError):
            return error.code() in GRPC_CODES
        if isinstance(error, Refused):
            return error.error in UPSTREAM_ERRORS
        if isinstance(error, NoAnswer):
            # In all other cases the sidecar responds.
            return traffic == "blind_tunnel"
        # A killed process sends nothing, so a 500 would be the sidecar's.
        return isinstance(error, Broken) or (isinstance(error, UpstreamFailed) and kind == "upstream restarted")
    return False
