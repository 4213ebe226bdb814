"""`sidentity exec`: unmodified apps that call `https://` and are configured only by their environment."""

import base64
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

import git_upstream
from conftest import run
from stage import BINARY, TIMEOUT, WORK, Emulator

CLIENTS = WORK / "clients"
PRIVATE = "https://svc.a.run.app/private"
API = "https://storage.googleapis.com/storage/v1/b?project=p"
# Neither gets a token: a host that is not Google's, and Google's OAuth endpoint.
OTHERS = ["https://www.example.com/", "https://oauth2.googleapis.com/token"]


@pytest.fixture(scope="session")
def git_server(certificates, emulator, tmp_path_factory):
    with git_upstream.GitUpstream(certificates, emulator, tmp_path_factory.mktemp("git")) as server:
        yield server


@pytest.fixture
def env(emulator, certificates, tmp_path):
    """The environment of a system that trusts only the tests' authority."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "XDG_RUNTIME_DIR": str(tmp_path),
        "GCE_METADATA_HOST": emulator.address,
        "SSL_CERT_FILE": str(certificates.ca),
    }


@pytest.fixture
def wrapped(upstream, grpc_upstream, git_server):
    """Returns the command line that runs a command under `exec`."""

    def command(*args, options=()):
        return [
            str(BINARY), "exec",
            "--connect-to", f"grpc.a.run.app:443:127.0.0.1:{grpc_upstream.port}",
            "--connect-to", f"{git_upstream.HOST}:443:127.0.0.1:{git_server.port}",
            "--connect-to", f"*:443:127.0.0.1:{upstream.port}",
            *options, "--", *map(str, args),
        ]  # fmt: skip

    return command


@pytest.fixture
def printed(wrapped, env):
    """Returns the output of a command under `exec`."""

    def called(*args, **more):
        return run(*wrapped(*args), env=env, **more)

    return called


REQUESTS = "import requests, sys\nfor url in sys.argv[1:]: print(requests.get(url).text)"
HTTPX = "import httpx, sys\nwith httpx.Client(http2={}) as client:\n for url in sys.argv[1:]: print(client.get(url).text)"
URLLIB = "import sys, urllib.request\nfor url in sys.argv[1:]: print(urllib.request.urlopen(url).read().decode())"
HTTPLIB2 = "import httplib2, sys\nfor url in sys.argv[1:]: print(httplib2.Http().request(url)[1].decode())"
LWP = 'use LWP::UserAgent; my $app = LWP::UserAgent->new; print $app->get($_)->decoded_content, "\\n" for @ARGV'
AIOHTTP = """
import aiohttp, asyncio, sys
async def main():
    async with aiohttp.ClientSession(trust_env=True) as session:
        for url in sys.argv[1:]:
            async with session.get(url) as response:
                print(await response.text())
asyncio.run(main())
"""

# Each prints the responses to the URLs that follow, one in each line.
COMMANDS = {
    "curl": ["curl", "-sS", "-w", "\n"],
    "curl-http1": ["curl", "-sS", "-w", "\n", "--http1.1"],
    "wget": ["wget", "-q", "-O", "-"],
    "requests": [sys.executable, "-c", REQUESTS],
    "httpx": [sys.executable, "-c", HTTPX.format(False)],
    "httpx-http2": [sys.executable, "-c", HTTPX.format(True)],
    "aiohttp": [sys.executable, "-c", AIOHTTP],
    "urllib": [sys.executable, "-c", URLLIB],
    "httplib2": [sys.executable, "-c", HTTPLIB2],
    "lwp": ["perl", "-e", LWP],
    "node-fetch": [CLIENTS / "node_modules/.bin/node", CLIENTS / "https.mjs", "fetch"],
    "node-https": [CLIENTS / "node_modules/.bin/node", CLIENTS / "https.mjs", "https"],
    "java-HttpClient": ["java", CLIENTS / "Https.java", "HttpClient"],
    "java-URLConnection": ["java", CLIENTS / "Https.java", "URLConnection"],
}


def objects(text):
    """Returns JSON objects that follow each other, with or without line breaks."""
    decoder, found, text = json.JSONDecoder(), [], text.strip()
    while text:
        value, end = decoder.raw_decode(text)
        found.append(value)
        text = text[end:].strip()
    return found


@pytest.mark.parametrize("client", COMMANDS)
def test_a_private_service_and_an_api_accept_the_call_and_others_get_no_token(printed, client):
    private, api, *others = objects(printed(*COMMANDS[client], PRIVATE, API, *OTHERS))
    assert (private["audience"], private["path"]) == ("https://svc.a.run.app", "/private")
    assert private["email"] == Emulator.EMAIL
    assert api["token"].startswith("Bearer ya29.") and api["query"] == "project=p"
    assert [other["host"] for other in others] == ["www.example.com", "oauth2.googleapis.com"]
    assert [other["token"] for other in others] == ["", ""]


@pytest.mark.parametrize("client", ["curl", "wget", "requests", "urllib", "aiohttp", "httpx", "lwp", "node-fetch"])
@pytest.mark.parametrize("credentials", ["proxy.example:1#rest", "u@proxy.example:a/b?c:%25 d"])
def test_a_password_cannot_change_the_clients_proxy_host(wrapped, env, client, credentials):
    command = wrapped(*COMMANDS[client], API, options=("--proxy-auth", credentials))
    assert objects(run(*command, env=env))[0]["token"].startswith("Bearer ya29.")


def test_without_exec_the_private_service_refuses(env, upstream):
    there = f"svc.a.run.app:443:127.0.0.1:{upstream.port}"
    curl = ["curl", "-sS", "--cacert", env["SSL_CERT_FILE"], "--connect-to", there, PRIVATE]
    assert json.loads(run(*curl, env=env))["refused"]


def test_git_clones_a_private_repository(printed, git_server, tmp_path):
    out = tmp_path / "clone"
    printed("git", "clone", "-q", f"https://{git_upstream.HOST}/demo.git", out)
    assert run("git", "-C", out, "rev-parse", "HEAD").strip() == git_server.commit
    assert (out / "file").read_text() == "held in Git\n" * 1000
    assert git_server.refused == 0


GOOGLE_CLOUD_STORAGE = """
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
client = storage.Client(project="p", credentials=AnonymousCredentials())
blob = client.bucket("bucket").blob("folder/object")
print(blob.download_as_text())
"""


def test_google_cloud_storage_with_anonymous_credentials_is_authenticated(printed):
    seen = json.loads(printed(sys.executable, "-c", GOOGLE_CLOUD_STORAGE))
    assert seen["path"] == "/download/storage/v1/b/bucket/o/folder%2Fobject"
    assert seen["host"] == "storage.googleapis.com"
    assert seen["token"].startswith("Bearer ya29.")


GRPC = """
import grpc
with grpc.secure_channel("grpc.a.run.app:443", grpc.ssl_channel_credentials()) as channel:
    answer, call = channel.unary_unary("/test.Service/Echo").with_call(b"hello", timeout=60)
    print(answer.decode(), dict(call.initial_metadata())["x-email"])
    print(b" ".join(channel.unary_stream("/test.Service/Count")(b"5", timeout=60)).decode())
"""


def test_grpc_calls_a_private_service(printed):
    assert printed(sys.executable, "-c", GRPC).splitlines() == [f"hello {Emulator.EMAIL}", "0 1 2 3 4"]


def ders(text):
    """Returns the certificates in a text, with any line width."""
    blocks = text.split("-----BEGIN CERTIFICATE-----")[1:]
    return [base64.b64decode(block.split("-----END")[0]) for block in blocks]


@pytest.mark.parametrize("url", OTHERS)
def test_the_app_sees_the_real_certificate_of_other_hosts(printed, certificates, url):
    seen = ders(printed("curl", "-sS", "-o", "/dev/null", "-w", "%{certs}", url))
    assert seen[0] == ders(certificates.chain.read_text())[0]


def test_the_app_sees_a_local_certificate_for_a_host_with_a_token(printed, certificates):
    seen = ders(printed("curl", "-sS", "-o", "/dev/null", "-w", "%{certs}", PRIVATE))
    assert seen[0] not in ders(certificates.chain.read_text())


class Held:
    """A command that runs until its standard input ends."""

    def __init__(self, command, env):
        pipe = subprocess.PIPE
        self.child = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=env)

    def line(self):
        return self.child.stdout.readline().strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.communicate(timeout=30)


def test_another_user_of_the_machine_is_refused(wrapped, env):
    script = 'echo "$HTTPS_PROXY"; echo "$JAVA_TOOL_OPTIONS"; read line'
    with Held(wrapped("sh", "-c", script), env) as held:
        proxy = held.line()
        java = dict(option.split("=", 1) for option in held.line().split() if "=" in option)
        address = proxy.rsplit("@", 1)[1]
        java_address = f"127.0.0.1:{java['-Dhttps.proxyPort']}"
        for stranger in (address, f"sidentity:wrong@{address}", java_address):
            for url in (PRIVATE, PRIVATE.replace("https", "http")):
                code = "%{http_connect} %{http_code}"
                curl = ["curl", "-s", "-o", "/dev/null", "-w", code, "-x", f"http://{stranger}", url]
                done = subprocess.run(curl, capture_output=True, text=True, timeout=60)
                assert "407" in done.stdout.split(), (stranger, url, done.stdout)
                assert "200" not in done.stdout
        # Only the password differs.
        url = PRIVATE.replace("https", "http")
        assert json.loads(run("curl", "-sS", "-x", proxy, url))["audience"] == "https://svc.a.run.app"


class Terminal:
    """A command on its own terminal, with the screen and the keyboard."""

    def __init__(self, command, env):
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.execvpe(command[0], command, env)
        self.screen = ""
        self.seen = 0

    def wait_for(self, pattern):
        """Waits for the next match on the screen after the previous one."""
        end = time.monotonic() + TIMEOUT
        while not (found := re.compile(pattern).search(self.screen, self.seen)):
            assert select.select([self.master], [], [], max(0, end - time.monotonic()))[0], self.screen
            self.screen += os.read(self.master, 4096).decode()
        self.seen = found.end()
        return found

    def type(self, text):
        os.write(self.master, text.encode())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.master)
        # Ends the command too, which may have caught the hang-up.
        os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


# Prints the signals that it received, on request.
COUNTING = """
import os, signal, sys
got = []
for name in ("SIGINT", "SIGQUIT", "SIGWINCH", "SIGHUP"):
    signal.signal(getattr(signal, name), lambda number, _: got.append(signal.Signals(number).name))
signal.signal(signal.SIGUSR1, lambda *_: os.write(1, " ".join(["got", *got, "end", ""]).encode()))
print("tty", os.isatty(0), os.isatty(1), os.isatty(2), flush=True)
while True:
    signal.pause()
"""


@pytest.mark.parametrize("key, name", [("\x03", "SIGINT"), ("\x1c", "SIGQUIT"), (None, "SIGWINCH")])
def test_the_command_has_the_terminal_and_gets_its_signals_once(wrapped, env, key, name):
    with Terminal(wrapped(sys.executable, "-c", COUNTING), env) as terminal:
        terminal.wait_for("tty True True True")
        if key:
            terminal.type(key)
        else:
            fcntl.ioctl(terminal.master, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 123, 0, 0))
        # SIGUSR1 has a smaller number than SIGWINCH, so the command may handle it first.
        found = []
        while not found:
            os.kill(terminal.pid, signal.SIGUSR1)
            found = terminal.wait_for("got (.*)end").group(1).split()
        os.kill(terminal.pid, signal.SIGUSR1)
        found = terminal.wait_for("got (.*)end").group(1).split()
        assert found == [name]
        # A signal that only exec receives is forwarded.
        os.kill(terminal.pid, getattr(signal, name))
        while found == [name]:
            os.kill(terminal.pid, signal.SIGUSR1)
            found = terminal.wait_for("got (.*)end").group(1).split()
        assert found == [name] * 2


def test_a_shell_stops_and_continues_the_job(wrapped, env):
    shell = ["bash", "--noprofile", "--norc", "-i"]
    with Terminal(shell, env | {"PS1": "ready> "}) as terminal:
        command = " ".join(f"'{part}'" for part in wrapped("sh", "-c", "echo be; echo gun; exec cat"))
        terminal.wait_for("ready> ")
        terminal.type(command + "\n")
        terminal.wait_for("be\r\ngun")
        terminal.type("one\n")
        terminal.wait_for("one\r\none\r\n")
        terminal.type("\x1a")
        terminal.wait_for("Stopped")
        terminal.wait_for("ready> ")
        terminal.type("fg\n")
        terminal.wait_for("exec cat'?\r\n")
        terminal.type("two\n")
        terminal.wait_for("two\r\ntwo\r\n")
        terminal.type("\x04")
        terminal.wait_for("ready> ")
        terminal.type("echo status=$?\n")
        terminal.wait_for("status=0")
