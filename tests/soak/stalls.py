"""Stalls of the upstreams, the callers and the machine, measured by the control caller and a timer."""

import asyncio
import collections
import json
import time

import grpc

from http1 import Refused

# A direct call takes milliseconds. A call of this duration counts as stalled.
STALL = 1.0
# The part of a call's time that must be stalled to explain its timeout.
SHARE = 0.5
TICK = 0.1
TIMEOUTS = {"connection_timeout", "http_response_timeout"}


class Stalls:
    def __init__(self, stage):
        self.stage = stage
        # The intervals of each stalled component.
        self.intervals = collections.defaultdict(list)
        self.calls = 0
        self.slowest = 0.0

    async def watch_upstreams(self):
        async for line in await self.stage.start_control():
            call, began, ended = json.loads(line)
            self.calls += 1
            self.slowest = max(self.slowest, ended - began)
            if ended - began > STALL:
                self.intervals["grpc" if call.startswith("grpc") else "http"].append((began, ended))
        raise AssertionError("the control caller has ended")

    async def watch_callers(self):
        while True:
            began = time.monotonic()
            await asyncio.sleep(TICK)
            ended = time.monotonic()
            if ended - began > STALL:
                self.intervals["callers"].append((began, ended))

    def cause(self, traffic, error, began, ended):
        """Returns the cause of a timeout, or `None`. A stall never causes another failure."""
        if not timed_out(error):
            return None
        upstream = "grpc" if traffic.startswith("grpc") else "http"
        stalled = covered(self.intervals[upstream] + self.intervals["callers"], began, ended)
        return "measured stall" if stalled >= SHARE * (ended - began) else None

    def seconds(self, what):
        return covered(self.intervals[what], 0, float("inf"))


def timed_out(error):
    if isinstance(error, grpc.RpcError):
        return error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    return isinstance(error, asyncio.TimeoutError) or (isinstance(error, Refused) and error.error in TIMEOUTS)


def covered(intervals, began, ended):
    """Returns the number of seconds of a time that at least one interval covers."""
    total, reached = 0.0, began
    for first, last in sorted(intervals):
        first, last = max(first, reached), min(last, ended)
        if last > first:
            total += last - first
            reached = last
    return total
