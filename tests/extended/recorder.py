"""Records requests to the emulator's token endpoints, of sidentity and of Google's libraries.

One port accepts TLS (by `--connect-to`), requests in absolute form, and CONNECT with TLS inside (by the proxy
variables). Each request is recorded, and forwarded to the emulator in cleartext.
"""

import base64
import http.client
import http.server
import json
import socket
import ssl
import threading
import urllib.parse

HANDSHAKE = 0x16

# The values that depend on the time and on random numbers.
VARIABLE = ("iat", "exp")


class Request:
    """A recorded request, without the values that differ between runs."""

    def __init__(self, method, host, path, headers, body, status):
        self.method, self.host, self.path, self.status = method, host, path, status
        self.headers = {name.lower(): value for name, value in headers.items()}
        self.media = self.headers.get("content-type", "").partition(";")[0]
        text = body.decode()
        if self.media == "application/x-www-form-urlencoded":
            pairs = urllib.parse.parse_qsl(text, keep_blank_values=True, strict_parsing=True)
            self.body = {name: readable(value) for name, value in pairs}
            assert len(self.body) == len(pairs), f"a field is repeated: {text}"
        else:
            self.body = json.loads(text) if text else None

    def summary(self):
        """Returns the parts that two clients must have in common."""
        scheme, _, credentials = self.headers.get("authorization", "").partition(" ")
        return {
            "method": self.method,
            "url": f"{self.host}{self.path}",
            "media": self.media,
            "authorization": (scheme, readable(credentials)) if scheme else None,
            "body": self.body,
        }


def claims(token):
    """Returns the header and claims of a JWT, with its lifetime instead of its times."""
    header, payload, _ = token.split(".")
    decode = lambda part: json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    payload = decode(payload)
    if all(name in payload for name in VARIABLE):
        payload["lifetime"] = payload["exp"] - payload["iat"]
    return {"header": decode(header), "claims": {k: v for k, v in payload.items() if k not in VARIABLE}}


def readable(value):
    """Returns a JWT as its claims, an AWS request as its signed parts, and an opaque access token as its kind."""
    if value.startswith("ya29."):
        return "access token"
    if value.count(".") == 2 and value.startswith("ey"):
        return claims(value)
    if value.startswith("%7B"):
        request = json.loads(urllib.parse.unquote(value))
        headers = {header["key"].lower(): header["value"] for header in request["headers"]}
        credential, _, rest = headers.pop("authorization").partition(", ")
        signed, _, _ = rest.partition(", ")
        del headers["x-amz-date"]
        return {**request, "headers": headers, "credential": credential, "signed": signed}
    return value


class Recorder:
    """Records requests, and forwards them to the emulator."""

    def __init__(self, emulator, certificates):
        self.requests = []
        self._emulator = emulator.address
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(certificates.chain, certificates.key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._listener.close()

    def taken(self):
        """Returns the requests since the last call."""
        taken, self.requests = self.requests, []
        return taken

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            first = connection.recv(1, socket.MSG_PEEK)
            if first and first[0] == HANDSHAKE:
                connection = self._tls.wrap_socket(connection, server_side=True)
            Handler.serve(connection, self)
        except OSError:
            pass
        finally:
            connection.close()

    def answer(self, method, url, headers, body):
        """Returns the emulator's response to a request, which is recorded."""
        split = urllib.parse.urlsplit(url)
        host = split.netloc or headers["host"]
        target = urllib.parse.urlunsplit(("", "", split.path or "/", split.query, ""))
        onward = {name: value for name, value in headers.items() if name.lower() not in ("host", "content-length")}
        connection = http.client.HTTPConnection(self._emulator, timeout=30)
        connection.request(method, target, body, {"Host": host, **onward})
        response = connection.getresponse()
        content = response.read()
        connection.close()
        self.requests.append(Request(method, host.removesuffix(":443"), target, dict(headers), body, response.status))
        return response, content


class Handler(http.server.BaseHTTPRequestHandler):
    """Handles the requests of one connection."""

    protocol_version = "HTTP/1.1"

    @classmethod
    def serve(cls, connection, recorder):
        handler = cls.__new__(cls)
        handler.recorder = recorder
        handler.__init__(connection, ("", 0), None)

    def do_CONNECT(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.flush()
        self.close_connection = True
        self.recorder._serve(self.connection)

    def _forward(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        response, content = self.recorder.answer(self.command, self.path, self.headers, body)
        self.send_response(response.status)
        self.send_header("content-type", response.getheader("content-type", ""))
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = _forward

    def log_message(self, *_):
        pass
