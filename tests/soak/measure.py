"""Samples the sidecar's memory, descriptors and gauges while it runs."""

import asyncio
import dataclasses
import pathlib
import re
import statistics
import time

from http1 import Connection

PERIOD = 0.5


@dataclasses.dataclass
class Sample:
    at: float
    resident: float
    descriptors: int
    # Requests in flight, callers' connections and upstream connections.
    requests: int
    callers: int
    upstreams: int

    def unexplained(self):
        """Returns the number of descriptors that belong to no connection in the metrics."""
        return self.descriptors - self.callers - self.upstreams


class Measure:
    def __init__(self, stage):
        self.stage = stage
        self.samples = []
        self.connection = None
        self.peak = 0.0

    async def run(self):
        while True:
            self.samples.append(await self.sample())
            await asyncio.sleep(PERIOD)

    async def sample(self):
        if self.connection is None:
            self.connection = await Connection.open(self.stage.admin)
        _, text = await self.connection.call("GET", "/metrics", "localhost")
        text = text.decode()
        gauges = (
            int(sum(float(value) for value in re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)", text, re.M)))
            for name in ("sidentity_requests_in_flight", "sidentity_connections", "sidentity_upstream_connections")
        )
        process = pathlib.Path(f"/proc/{self.stage.sidecar.pid}")
        status = (process / "status").read_text()
        self.peak = int(re.search(r"VmHWM:\s+(\d+)", status).group(1)) / 1024
        resident = int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024
        descriptors = sum(1 for _ in (process / "fd").iterdir())
        return Sample(time.monotonic(), resident, descriptors, *gauges)

    async def quiet(self, timeout):
        """Returns a sample without requests and connections, or the last one before the deadline."""
        async with asyncio.timeout(timeout + 5):
            until = time.monotonic() + timeout
            while True:
                sample = await self.sample()
                if sample.requests == sample.callers == sample.upstreams == 0 or time.monotonic() > until:
                    return sample
                await asyncio.sleep(0.2)

    def thirds(self, value, began, ended):
        """Returns the medians of the first and the last third of a time."""
        third = (ended - began) / 3
        first = [value(sample) for sample in self.samples if began <= sample.at < began + third]
        last = [value(sample) for sample in self.samples if ended - third <= sample.at <= ended]
        return statistics.median(first), statistics.median(last)
