"""Writes docs/performance.md: tables between markers, and charts."""

import os
import re
import subprocess
from datetime import date
from pathlib import Path

import chart
import install
from chart import figure
from rows import ROWS

DOCS = install.ROOT / "docs"
PAGE = DOCS / "performance.md"
PICTURES = DOCS / "performance"
US = "sidentity"


def section(name, text):
    """Replaces the text between the markers of this name."""
    page = PAGE.read_text()
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if begin not in page or end not in page:
        raise SystemExit(f"{PAGE} has no markers {begin} and {end}")
    before, rest = page.split(begin, 1)
    _, after = rest.split(end, 1)
    PAGE.write_text(f"{before}{begin}\n{text.strip()}\n{end}{after}")


def picture(name, svg):
    PICTURES.mkdir(exist_ok=True)
    (PICTURES / f"{name}.svg").write_text(svg)
    return f"performance/{name}.svg"


def conditions(rounds, seconds):
    """Describes the conditions of the measurement."""
    versions = ", ".join(f"{name} {version}" for name, version in install.versions().items())
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=install.ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    load = os.getloadavg()[0]
    return (
        f"Measured on {date.today()} at commit {commit}: {_machine()}; {rounds} rounds of {seconds:g} s; load average "
        f"at the end {load:.1f}.\n\nVersions: {versions}."
    )


def _machine():
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    kernel = os.uname().release
    gigabytes = int(memory.group(1)) / 1024 / 1024
    name = cpu.group(1) if cpu else os.uname().machine
    return f"{os.cpu_count()} cores of {name}, {gigabytes:.0f} GiB, Linux {kernel}"


def of(figures):
    """Returns median and spread for a table cell."""
    if figures.failed:
        return f"failed: {figures.failed[:120]}"
    if figures.median is None:
        return "–"
    low, high = figures.spread
    return f"{figure(figures.median)} ({figure(low)}–{figure(high)})"


def ratio(ours, theirs):
    if ours.median is None or theirs.median is None or not theirs.median:
        return "–"
    return f"{ours.median / theirs.median:.2f}"


def rows(figures, absent):
    """Writes one table for each row, and the chart of all rows."""
    text, groups = [], []
    for row in ROWS:
        if row.key not in figures:
            continue
        peers = figures[row.key]
        text += [f"### {row.title}", "", f"| | {row.unit}, median (min–max) | sidentity ÷ it | proxy's core busy | requests/s |"]
        text += ["|---|---:|---:|---:|---:|"]
        for name, found in peers.items():
            against = "" if name == US or US not in peers else ratio(peers[US], found)
            busy = f"{_middle(found.busy) * 100:.0f} %" if found.busy else "–"
            rate = figure(_middle(found.rate)) if found.rate else "–"
            text.append(f"| {name} | {of(found)} | {against} | {busy} | {rate} |")
        text += [f"| {name} | not available: {why} | | | |" for name, why in absent.items()]
        text.append("")
        entries = [(name, found.median, *found.spread) for name, found in peers.items() if found.values]
        groups.append((row.title, row.unit, entries))
    where = picture("peers", chart.bars("sidentity beside its peers", groups))
    return "\n".join([f"![CPU a request, beside peers]({where})", "", *text])


def plain(title, unit, figures, base=None):
    """Writes a table that compares our own cases with the first of them."""
    names = list(figures)
    text = [f"### {title}", "", f"| | {unit}, median (min–max) | ÷ {base or names[0]} |", "|---|---:|---:|"]
    for name in names:
        against = ratio(figures[name], figures[base or names[0]])
        text.append(f"| {name} | {of(figures[name])} | {against} |")
    return "\n".join([*text, ""])


def starts(found):
    text = ["### Start", "", "| | to the first connection, ms, median (min–max) | to the first 200 through it, ms |", "|---|---:|---:|"]
    text += [f"| {name} | {of(accepted)} | {of(answered)} |" for name, (accepted, answered) in found.items()]
    return "\n".join([*text, ""])


def memory(found):
    text = ["### Memory", "", "| | idle, MiB resident (proportional) | after the load above | peak |", "|---|---:|---:|---:|"]
    for name, at in found.items():
        if "failed" in at:
            text.append(f"| {name} | failed: {at['failed'][:120]} | | |")
            continue
        idle, after = at["idle"], at.get("after", {})
        cell = lambda m: f"{m['rss']:.1f} ({m['pss']:.1f})" if m else "–"
        text.append(f"| {name} | {cell(idle)} | {cell(after)} | {after.get('peak', 0):.1f} |")
    return "\n".join([*text, ""])


def held(found):
    before, with_them, count = found["before"], found["with"], found["count"]
    more = (with_them["rss"] - before["rss"]) * 1000 / count
    descriptors = (with_them["descriptors"] - before["descriptors"]) * 1000 / count
    return (
        f"{count:,} connections of an app, each with one call behind it, and as many to the upstream, take {more:.1f} MiB "
        f"resident and {descriptors:.0f} descriptors for every 1,000."
    )


def kept(found):
    names = {
        "pair": "a busy pair: an app's connection and one to the upstream, which waits for its response",
        "idle h1": "an idle HTTP/1.1 connection to an upstream",
        "idle h2": "an idle HTTP/2 connection to an upstream",
        "unread": "a download that the app does not read",
    }
    text = ["### Connections", "", "| | KiB resident for each |", "|---|---:|"]
    text += [f"| {name} | {found[key]:.0f} |" for key, name in names.items()]
    spike = (
        f"1,000 connections that download 64 KiB at a time take {found['peak']:.0f} MiB resident. After all of them were "
        f"closed, {found['after peak']:.0f} MiB stay."
    )
    return "\n".join([*text, "", spike, ""])


def _middle(values):
    return sorted(values)[len(values) // 2]
