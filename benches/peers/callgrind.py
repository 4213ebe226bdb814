"""Counts with callgrind what one request executes in user space: instructions, or calls of the allocator.

One connection sends one request after another. Each figure is the smallest of several windows: a token refresh, a new
connection or a timer makes the other windows larger."""

import http.client
import re
import subprocess

from processes import Failed, Process
from proxies import Sidentity
from stage import Stage

WARM_UP, WINDOWS, REQUESTS = 100, 12, 50
GET = ("GET", "/token/bytes/1024", None)
POST = ("POST", "/token/sink", b"x" * 65536)
ALLOCATOR = {"aligned_alloc", "calloc", "malloc", "posix_memalign", "realloc"}


def windows(tool, binary, requests, figure):
    """Sends each kind of request through this binary. Returns its figure per request in each window, by kind."""
    # The fields of a response are a sixth of the work, so the upstream is the same on every machine.
    with Stage(tool, name="callgrind", sidentity=binary, stop=False, nginx=False) as stage:
        proxy = Sidentity(stage)
        proxy.settings = {"SIDENTITY_SANDBOX": "off"}
        out = stage.folder / "callgrind.out"
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", *proxy.command()]
        process = Process("callgrind", command, stage.folder, env=proxy.env(), port=proxy.h1)
        connection = http.client.HTTPConnection("127.0.0.1", proxy.h1)
        found = {}
        for name, request in requests.items():
            _send(connection, WARM_UP, *request)
            _control(process, "--zero")
            found[name] = []
            for number in range(WINDOWS):
                _send(connection, REQUESTS, *request)
                # It also sets the counts to zero.
                _control(process, f"--dump={request[0]}-{number}")
                found[name].append(figure(_dump(stage.folder, f"{request[0]}-{number}")) // REQUESTS)
        process.stop()
        return found


def instructions(dump):
    return int(re.search(r"^(?:totals|summary): (\d+)", dump, re.MULTILINE)[1])


def allocations(dump):
    """Counts calls of the C library's allocator, which only a dynamic binary names."""
    names, calls, callee = {}, 0, None
    for line in dump.splitlines():
        if match := re.match(r"c?fn=\((\d+)\)(?: (\S+))?", line):
            if match[2]:
                names[match[1]] = match[2]
            if line.startswith("cfn"):
                callee = names.get(match[1], "").partition("'")[0]
        elif line.startswith("calls=") and callee in ALLOCATOR:
            calls += int(line.split("=")[1].split()[0])
    return calls


def _send(connection, times, method, path, body):
    for _ in range(times):
        connection.request(method, path, body)
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise Failed(f"{method} {path}: {answer.status}")


def _control(process, what):
    subprocess.run(["callgrind_control", what, str(process.child.pid)], check=True, capture_output=True)


def _dump(folder, name):
    """Returns the text of the dump of this name."""
    for file in folder.glob("callgrind.out.*"):
        text = file.read_text()
        if re.search(rf"^desc: Trigger: .*{name}$", text, re.MULTILINE):
            return text
    raise Failed(f"callgrind wrote no dump {name}")
