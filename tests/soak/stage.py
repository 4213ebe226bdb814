"""The processes of a soak: metadata server, upstreams, sidecar."""

import asyncio
import contextlib
import datetime
import json
import os
import pathlib
import random
import signal
import socket
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

HERE = pathlib.Path(__file__).resolve().parent
TIMEOUT = 20

CONFIGURATION = """\
routes:
  - {{listen: "127.0.0.1:0", upstream: "https://svc.a.run.app"}}
  - {{listen: "127.0.0.2:0", upstream: "https://grpc.a.run.app"}}
rules:
  - {{host: plain.example.com, credential: none}}
  - {{host: reload-{generation}.example.com, credential: none}}
"""


def free_port():
    """Returns a port outside of the ephemeral range. An outgoing connection could otherwise take the port."""
    while True:
        port = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class Stage:
    def __init__(self, binary, folder, idle_timeout):
        self.binary, self.folder, self.idle_timeout = binary, folder, idle_timeout
        self.metadata_port, self.http_port, self.grpc_port = free_port(), free_port(), free_port()
        self.configuration = folder / "sidentity.yaml"
        self.generation = self.reloads = 0
        self.lines = []
        self.news = asyncio.Condition()
        self.metadata = self.upstream = self.control = self.sidecar = None

    async def __aenter__(self):
        write_certificates(self.folder)
        await self.start_metadata()
        await self.start_upstream()
        await self.start_sidecar()
        return self

    async def __aexit__(self, *_):
        for process in (self.control, self.sidecar, self.upstream, self.metadata):
            if process is not None and process.returncode is None:
                process.kill()
                await process.wait()

    # Metadata server

    async def start_metadata(self):
        self.metadata = await asyncio.create_subprocess_exec(
            self.binary, "metadata-server", "--listen", f"127.0.0.1:{self.metadata_port}", "--lifetime", "120s",
            stdout=asyncio.subprocess.PIPE, env={},
        )
        await asyncio.wait_for(self.metadata.stdout.readline(), TIMEOUT)

    async def stop_metadata(self):
        self.metadata.kill()
        await self.metadata.wait()

    @contextlib.asynccontextmanager
    async def metadata_errors(self):
        """Replaces the metadata server with one that answers 500."""

        writers = []

        async def answer(reader, writer):
            writers.append(writer)
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while await reader.readuntil(b"\r\n\r\n"):
                    writer.write(b"HTTP/1.1 500 Oops\r\nMetadata-Flavor: Google\r\nContent-Length: 0\r\n\r\n")
                    await writer.drain()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", self.metadata_port)
        try:
            yield
        finally:
            server.close()
            for writer in writers:
                writer.close()
            await server.wait_closed()

    # Upstreams

    async def start_upstream(self):
        self.upstream = await asyncio.create_subprocess_exec(
            sys.executable, HERE / "upstream.py", self.folder / "chain.pem", self.folder / "key.pem",
            str(self.http_port), str(self.grpc_port),
            # hypercorn writes a traceback for every connection that a restart aborts.
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )
        assert await asyncio.wait_for(self.upstream.stdout.readline(), TIMEOUT), "the upstreams do not listen"

    async def stop_upstream(self, kill):
        self.upstream.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        try:
            await asyncio.wait_for(self.upstream.wait(), 5)
        except asyncio.TimeoutError:
            self.upstream.kill()
            await self.upstream.wait()

    async def start_control(self):
        """Starts the caller that bypasses the sidecar."""
        self.control = await asyncio.create_subprocess_exec(
            sys.executable, HERE / "control.py", self.folder / "ca.pem", str(self.http_port), str(self.grpc_port),
            stdout=asyncio.subprocess.PIPE, env={"PATH": os.environ["PATH"]},
        )
        return self.control.stdout

    # Sidecar

    async def start_sidecar(self):
        self.configuration.write_text(CONFIGURATION.format(generation=0))
        (self.folder / "trust").mkdir()
        self.sidecar = await asyncio.create_subprocess_exec(
            self.binary, "run", "--config", self.configuration, "--proxy", "127.0.0.1:0", "--admin", "127.0.0.1:0",
            "--log-format", "json", "--intercept", "--ca-dir", self.folder / "trust", "--idle-timeout", f"{self.idle_timeout}s",
            "--connect-to", f"grpc.a.run.app:443:127.0.0.1:{self.grpc_port}",
            "--connect-to", f"*:443:127.0.0.1:{self.http_port}", "--upstream-ca", self.folder / "ca.pem",
            stderr=asyncio.subprocess.PIPE,
            env={"GCE_METADATA_HOST": f"127.0.0.1:{self.metadata_port}", "PATH": os.environ["PATH"]},
        )
        self.reader = asyncio.create_task(self._read())
        self.admin = await self.logged(lambda entry: entry.get("listener") == "admin" and entry["address"])
        self.proxy = self._address("proxy")
        self.route, self.grpc_route = self._address("127.0.0.1:0"), self._address("127.0.0.2:0")
        self.admin = self.admin.removeprefix("http://").rstrip("/")

    def _address(self, listener):
        found = next(entry for entry in self.lines if entry.get("listener") == listener and "address" in entry)
        return found["address"].removeprefix("http://").rstrip("/")

    async def _read(self):
        async for line in self.sidecar.stderr:
            try:
                entry = json.loads(line)
            except ValueError:
                entry = {"message": line.decode(errors="replace").rstrip()}
            async with self.news:
                # Tens of thousands of equal lines are useless.
                if len(self.lines) < 5000 or "panicked" in entry.get("message", ""):
                    self.lines.append(entry)
                self.reloads += entry.get("message", "").startswith("reloaded: ")
                self.news.notify_all()

    async def logged(self, wanted):
        async def search():
            async with self.news:
                while True:
                    if found := next(filter(None, map(wanted, self.lines)), None):
                        return found
                    await self.news.wait()

        return await asyncio.wait_for(search(), TIMEOUT)

    async def reload(self):
        self.generation += 1
        self.configuration.write_text(CONFIGURATION.format(generation=self.generation))
        wanted = self.reloads + 1
        self.sidecar.send_signal(signal.SIGHUP)

        async def said():
            async with self.news:
                await self.news.wait_for(lambda: self.reloads >= wanted)

        await asyncio.wait_for(said(), TIMEOUT)

    def panics(self):
        return [entry for entry in self.lines if "panicked" in entry.get("message", "")]

    async def end(self):
        """Sends SIGTERM and returns the exit status."""
        self.sidecar.send_signal(signal.SIGTERM)
        status = await asyncio.wait_for(self.sidecar.wait(), TIMEOUT)
        await self.reader
        return status


def write_certificates(folder):
    """Creates an authority, and a certificate for every called name."""
    now = datetime.datetime.now(datetime.timezone.utc)

    def certificate(subject, names, public_key, issuer, signing_key, ca):
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer or name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if names:
            alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
            builder = builder.add_extension(alternatives, critical=False)
        return builder.sign(signing_key, hashes.SHA256())

    pem = serialization.Encoding.PEM
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = certificate("Soak CA", [], ca_key.public_key(), None, ca_key, True)
    leaf = certificate("service", ["*.a.run.app", "plain.example.com"], key.public_key(), ca.subject, ca_key, False)
    (folder / "ca.pem").write_bytes(ca.public_bytes(pem))
    (folder / "chain.pem").write_bytes(leaf.public_bytes(pem))
    private = serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(key.private_bytes(pem, private, serialization.NoEncryption()))
