"""soak.py BINARY SECONDS: see `run`."""

import asyncio
import collections
import contextlib
import pathlib
import re
import statistics
import sys
import tempfile
import time

from faults import Faults
from http1 import Connection
from stage import Stage
from traffic import HOSTS, Traffic

# Growth from the first to the last third that is taken for noise.
MEMORY_FACTOR, MEMORY_MIB = 1.10, 4
# How many upstream connections are idle depends on how long ago a fault closed them all.
DESCRIPTOR_FACTOR, DESCRIPTORS = 1.20, 100
# grpcio keeps the connection of a closed channel open until the process ends.
GRPC_CONNECTIONS = 1


class Soak:
    def __init__(self, stage, seconds):
        self.stage, self.seconds = stage, seconds
        self.traffic, self.faults = Traffic(stage), Faults(stage, seconds)
        self.done = collections.Counter()
        self.failed = collections.Counter()
        self.uncaused = []
        self.samples = []
        self.checks = []

    async def run(self):
        background = [asyncio.create_task(self.faults.run()), asyncio.create_task(self.measure())]
        callers = []
        for kind, pause, count in self.traffic.kinds():
            callers += [asyncio.create_task(self.repeat(kind, pause)) for _ in range(count)]
        await self.warm_up()
        self.began = time.monotonic()
        await self.over_or_broken(background + callers)
        self.ended = time.monotonic()
        for task in background:
            task.cancel()
        for task in callers:
            task.cancel()
        await asyncio.gather(*background, *callers, return_exceptions=True)
        await self.traffic.channel.close()

    async def over_or_broken(self, tasks):
        """The time is up, or a task that should go on has ended."""
        done, _ = await asyncio.wait(tasks, timeout=self.seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def warm_up(self):
        """Every host once, so that each has its token; a fifth of the time more, so that pools are as they will be."""
        numbers = iter(range(HOSTS))

        async def some():
            for number in numbers:
                await self.exchange("many_hosts", self.traffic.one_host(number))

        await asyncio.gather(*(some() for _ in range(4)))
        await asyncio.sleep(self.seconds / 5)

    async def repeat(self, kind, pause):
        while True:
            await self.exchange(kind.__name__, kind())
            await asyncio.sleep(pause)

    async def exchange(self, kind, exchange):
        began = time.monotonic()
        try:
            await asyncio.wait_for(exchange, 60)
        except Exception as error:  # noqa: BLE001: every failure is judged.
            # The fault that broke this call may still be in the making.
            await asyncio.sleep(0)
            cause = self.faults.cause(error, began, time.monotonic())
            self.failed[kind, cause] += 1
            if cause is None:
                self.uncaused.append(f"{kind} after {time.monotonic() - began:.2f} s: {error!r} {self.context()}")
            await asyncio.sleep(0.2)
        else:
            self.done[kind] += 1

    def context(self):
        if not self.faults.windows:
            return "(no fault yet)"
        last = self.faults.windows[-1]
        return f"({time.monotonic() - last.began:.1f} s after the beginning of: {last.kind})"

    async def measure(self):
        pid = self.stage.sidecar.pid
        while True:
            status = pathlib.Path(f"/proc/{pid}/status").read_text()
            resident = int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024
            descriptors = sum(1 for _ in pathlib.Path(f"/proc/{pid}/fd").iterdir())
            self.samples.append((time.monotonic(), resident, descriptors))
            self.peak = int(re.search(r"VmHWM:\s+(\d+)", status).group(1)) / 1024
            await asyncio.sleep(0.5)

    def thirds(self, column):
        """The medians of the first and the last third of the time after the warm-up."""
        third = (self.ended - self.began) / 3
        first = [sample[column] for sample in self.samples if self.began <= sample[0] < self.began + third]
        last = [sample[column] for sample in self.samples if self.ended - third <= sample[0] <= self.ended]
        return statistics.median(first), statistics.median(last)

    def check(self, name, holds, found):
        self.checks.append(holds)
        print(f"{'ok  ' if holds else 'FAIL'}  {name}: {found}")

    async def judge(self):
        gauges = await self.settled()
        status = await self.stage.end()
        kinds = [kind.__name__ for kind, _, _ in self.traffic.kinds()]
        causes = sorted({cause for _, cause in self.failed if cause})
        print(f"\n{'traffic':<20}{'answered':>10}" + "".join(f"{cause:>20}" for cause in causes) + f"{'no cause':>12}")
        for kind in kinds:
            counts = "".join(f"{self.failed[kind, cause]:>20}" for cause in causes)
            print(f"{kind:<20}{self.done[kind]:>10}{counts}{self.failed[kind, None]:>12}")
        print("\nfaults: " + ", ".join(f"{count} {kind}" for kind, count in self.faults.counts().items()))
        (memory_first, memory_last), (fds_first, fds_last) = self.thirds(1), self.thirds(2)
        print(f"peak resident memory: {self.peak:.1f} MiB\n")
        for failure in self.uncaused[:20]:
            print("  " + failure)
        self.check("every kind of traffic was answered", all(self.done[kind] for kind in kinds), sum(self.done.values()))
        self.check("no failure without a cause", not self.uncaused, len(self.uncaused))
        self.check(
            "memory does not grow (MiB, first and last third)",
            memory_last <= memory_first * MEMORY_FACTOR + MEMORY_MIB, f"{memory_first:.1f}, {memory_last:.1f}",
        )
        self.check(
            "descriptors do not grow (first and last third)",
            fds_last <= fds_first * DESCRIPTOR_FACTOR + DESCRIPTORS, f"{fds_first:.0f}, {fds_last:.0f}",
        )
        self.check(
            "nothing is left in flight", gauges[0] == 0 and gauges[1] <= GRPC_CONNECTIONS,
            f"{gauges[0]:.0f} requests, {gauges[1]:.0f} connections",
        )
        panics = self.stage.panics()
        self.check("no panic", not panics, panics[:3] if panics else 0)
        self.check("a drained sidecar exits with 0", status == 0, status)
        passed = sum(self.checks)
        print(f"{passed} passed, {len(self.checks) - passed} failed")
        return passed == len(self.checks)

    async def settled(self):
        """Requests in flight and callers' connections, once they have ended, or after ten seconds."""
        found = (-1, -1)
        for _ in range(50):  # At most ten seconds.
            connection = await Connection.open(self.stage.admin)
            connection.writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            text = (await connection.reader.read(-1)).decode()
            connection.close()
            found = tuple(
                sum(float(value) for value in re.findall(rf"^{name}\{{[^}}]*\}} (\S+)", text, re.M))
                for name in ("sidentity_requests_in_flight", "sidentity_connections")
            )
            if found[0] == 0 and 0 <= found[1] <= GRPC_CONNECTIONS:
                break
            await asyncio.sleep(0.2)
        return found


async def main(binary, seconds):
    with tempfile.TemporaryDirectory() as folder:
        async with Stage(binary, pathlib.Path(folder)) as stage:
            soak = Soak(stage, seconds)
            print(f"{seconds} s with {HOSTS} hosts, a fault every {soak.faults.period:.0f} s", flush=True)
            await soak.run()
            return await soak.judge()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(0 if asyncio.run(main(sys.argv[1], int(sys.argv[2]))) else 1)
