"""A small HTTP/1.1 client that reports exactly how a call failed."""

import asyncio


class Broken(Exception):
    """The connection ended before the end of the response."""


class NoAnswer(Broken):
    """The connection ended before a response began. An HTTP peer should have responded."""


class Refused(Exception):
    """The sidecar answered with its own error."""

    def __init__(self, status, proxy_status):
        super().__init__(f"{status} {proxy_status}")
        self.error = proxy_status.partition("error=")[2].partition(";")[0]
        self.about_token = '"token:' in proxy_status


class UpstreamFailed(Exception):
    """The upstream answered that it failed, as it may do during its shutdown."""


def raise_failed(status, fields):
    """Raises the exception for a failure's origin."""
    proxy_status = fields.get("proxy-status", "")
    if proxy_status.startswith("sidentity; error="):
        raise Refused(status, proxy_status)
    if status >= 500 and fields.get("server", "").startswith("hypercorn"):
        raise UpstreamFailed(status)


class Connection:
    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, address, limit=64 * 1024):
        host, port = address.rsplit(":", 1)
        return cls(*await asyncio.open_connection(host, int(port), limit=limit))

    async def send(self, method, target, host, body=b""):
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        self.writer.write(f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{length}\r\n".encode())
        try:
            for at in range(0, len(body), 64 * 1024):
                self.writer.write(body[at : at + 64 * 1024])
                await self.writer.drain()
        except ConnectionError:
            # An early response can still be read.
            pass

    async def head(self):
        """Returns the status and the fields. Raises `Refused` for an error of the sidecar, and `UpstreamFailed` for one
        of the upstream."""
        try:
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin1")
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise NoAnswer(f"no head: {error!r}") from error
        line, *lines = head.split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status = int(line.split()[1])
        if fields.get("proxy-status", "").startswith("sidentity; error="):
            await self.body(fields, status)
        raise_failed(status, fields)
        return status, fields

    async def body(self, fields, status=200, pause=0.0):
        """Returns the whole body. With a pause, it reads 64 KiB at a time."""
        left = 0 if status == 204 else int(fields["content-length"])
        parts = []
        while left > 0:
            try:
                part = await self.reader.read(min(left, 64 * 1024))
            except ConnectionError as error:
                raise Broken(f"{left} bytes are missing: {error!r}") from error
            if not part:
                raise Broken(f"{left} bytes are missing")
            left -= len(part)
            parts.append(part)
            if pause:
                await asyncio.sleep(pause)
        return b"".join(parts)

    async def call(self, method, target, host, body=b"", pause=0.0):
        await self.send(method, target, host, body)
        status, fields = await self.head()
        return status, await self.body(fields, status, pause)

    async def secure(self, context, name):
        """Starts TLS inside a tunnel."""
        try:
            await self.writer.start_tls(context, server_hostname=name)
        except (ConnectionError, OSError) as error:
            raise NoAnswer(f"no TLS: {error!r}") from error

    def close(self):
        """Closes at once. A TLS transport would wait for the peer's close."""
        self.writer.transport.abort()
