"""soak.py BINARY SECONDS: see `run`."""

import asyncio
import collections
import contextlib
import dataclasses
import pathlib
import sys
import tempfile
import time

from faults import Faults
from measure import Measure
from stage import Stage
from stalls import STALL, Stalls
from traffic import Traffic

DEADLINE = 60
MOST_HOSTS = 1000
# Growth from the first to the last third that counts as noise.
MEMORY_FACTOR, MEMORY_MIB = 1.10, 4
# Descriptors of connections that are opening or closing, which no gauge counts.
OPENING = 8
# The connection to the metadata server may be open in only one of the quiet moments.
OWN = 1


@dataclasses.dataclass
class Failure:
    traffic: str
    error: Exception
    began: float
    ended: float


class Soak:
    def __init__(self, stage, seconds):
        self.stage, self.seconds = stage, seconds
        self.hosts = min(MOST_HOSTS, 10 * seconds)
        self.traffic, self.faults = Traffic(stage, self.hosts), Faults(stage, seconds)
        self.stalls, self.measure = Stalls(stage), Measure(stage)
        self.done = collections.Counter()
        self.failures = []
        self.over = False
        self.checks = []

    async def run(self):
        try:
            await self.load()
        finally:
            self.over = True
        await self.traffic.end()
        self.after = await self.measure.quiet(self.stage.idle_timeout + 10)

    async def load(self):
        self.before = await self.measure.quiet(1)
        watchers = [self.faults.run(), self.measure.run(), self.stalls.watch_upstreams(), self.stalls.watch_callers()]
        background = [asyncio.create_task(watcher) for watcher in watchers]
        callers = []
        for kind, pause, count in self.traffic.kinds():
            callers += [asyncio.create_task(self.repeat(kind, pause)) for _ in range(count)]
        self.started = time.monotonic()
        await self.until(self.warm_up(), background + callers)
        self.began = time.monotonic()
        await self.until(asyncio.gather(asyncio.sleep(self.seconds), self.faults.first_round.wait()), background + callers)
        self.ended = time.monotonic()
        self.over = True
        for task in background + callers:
            task.cancel()
        await asyncio.gather(*background, *callers, return_exceptions=True)

    async def until(self, end, tasks):
        """Fails at once if a task ends that should go on."""
        end = asyncio.ensure_future(end)
        done, _ = await asyncio.wait([end, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def warm_up(self):
        """Calls every host once, so that each has its token. Continues for a twentieth of the time, so that pools reach
        their size."""
        numbers = iter(range(self.hosts))

        async def some():
            for number in numbers:
                await self.exchange("many_hosts", self.traffic.one_host(number))

        await asyncio.gather(*(some() for _ in range(4)))
        await asyncio.sleep(self.seconds / 20)

    async def repeat(self, kind, pause):
        while not self.over:
            await self.exchange(kind.__name__, kind())
            await asyncio.sleep(pause)

    async def exchange(self, kind, exchange):
        began = time.monotonic()
        try:
            # Python 3.11's `wait_for` can swallow the cancellation of its caller.
            async with asyncio.timeout(DEADLINE):
                await exchange
        except Exception as error:  # noqa: BLE001: every failure is judged, at the end.
            self.failures.append(Failure(kind, error.with_traceback(None), began, time.monotonic()))
            await asyncio.sleep(0.2)
        else:
            self.done[kind] += 1

    def cause(self, failure):
        facts = (failure.traffic, failure.error, failure.began, failure.ended)
        return self.faults.cause(*facts) or self.stalls.cause(*facts)

    def check(self, name, holds, found):
        self.checks.append(holds)
        print(f"{'ok  ' if holds else 'FAIL'}  {name}: {found}")

    async def judge(self):
        status = await self.stage.end()
        failed, uncaused = collections.Counter(), []
        for failure in self.failures:
            cause = self.cause(failure)
            failed[failure.traffic, cause] += 1
            if cause is None:
                uncaused.append(failure)
        kinds = [kind.__name__ for kind, _, _ in self.traffic.kinds()]
        self.table(kinds, failed)
        self.circumstances()
        for failure in uncaused[:20]:
            print(f"  {failure.traffic} {self.faults.context(failure.began, failure.ended)}: {failure.error!r}")
        self.check("every kind of traffic was answered", all(self.done[kind] for kind in kinds), sum(self.done.values()))
        self.check("no failure without a cause", not uncaused, len(uncaused))
        first, last = self.measure.thirds(lambda sample: sample.resident, self.began, self.ended)
        self.check(
            "memory does not grow (MiB, first and last third)",
            last <= first * MEMORY_FACTOR + MEMORY_MIB, f"{first:.1f}, {last:.1f}",
        )
        first, last = self.measure.thirds(lambda sample: sample.unexplained(), self.began, self.ended)
        self.check(
            "descriptors without a connection do not grow (first and last third)",
            last <= first + OPENING, f"{first:.0f}, {last:.0f}",
        )
        before, after = self.before, self.after
        self.check(
            "nothing is left in flight", after.requests == after.callers == after.upstreams == 0,
            f"{after.requests} requests, {after.callers} callers' connections, {after.upstreams} upstream connections",
        )
        self.check(
            "no descriptor is left (before and after)", after.descriptors <= before.descriptors + OWN,
            f"{before.descriptors}, {after.descriptors}",
        )
        panics = self.stage.panics()
        self.check("no panic", not panics, panics[:3] if panics else 0)
        self.check("a drained sidecar exits with 0", status == 0, status)
        passed = sum(self.checks)
        print(f"{passed} passed, {len(self.checks) - passed} failed")
        return passed == len(self.checks)

    def table(self, kinds, failed):
        causes = sorted({cause for _, cause in failed if cause})
        print(f"\n{'traffic':<20}{'answered':>10}" + "".join(f"{cause:>20}" for cause in causes) + f"{'no cause':>12}")
        for kind in kinds:
            counts = "".join(f"{failed[kind, cause]:>20}" for cause in causes)
            print(f"{kind:<20}{self.done[kind]:>10}{counts}{failed[kind, None]:>12}")

    def circumstances(self):
        stalls = self.stalls
        stalled = ", ".join(f"{what} {stalls.seconds(what):.0f} s" for what in ("http", "grpc", "callers"))
        print("\nfaults: " + ", ".join(f"{count} {kind}" for kind, count in self.faults.counts().items()))
        print(
            f"control caller: {stalls.calls} calls past the sidecar, the slowest took {stalls.slowest:.1f} s; "
            f"stalled for more than {STALL:.0f} s: {stalled}"
        )
        print(f"warm-up: {self.began - self.started:.0f} s; peak resident memory: {self.measure.peak:.1f} MiB\n")


async def main(binary, seconds):
    with tempfile.TemporaryDirectory() as folder:
        async with Stage(binary, pathlib.Path(folder), idle_timeout=10 if seconds >= 60 else 5) as stage:
            soak = Soak(stage, seconds)
            print(f"{seconds} s with {soak.hosts} hosts, a fault every {soak.faults.period:.0f} s", flush=True)
            await soak.run()
            return await soak.judge()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(0 if asyncio.run(main(sys.argv[1], int(sys.argv[2]))) else 1)
