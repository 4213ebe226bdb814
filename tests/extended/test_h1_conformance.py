"""HTTP/1.1 protocol violations, byte by byte. Each case names its section of RFC 9112, or of RFC 9110 if marked.

Ambiguous requests are refused, and a request that is hidden in one is never forwarded.
"""

import json
import re
import socket

import pytest

from wire import Connection

TIMEOUT = 20


class Wire(Connection):
    """An HTTP/1.1 client that reads bytes as they arrive."""

    def __init__(self, address):
        super().__init__(address, TIMEOUT)
        self.file = self.socket.makefile("rb")

    def __exit__(self, *_):
        self.file.close()
        super().__exit__()

    def head(self):
        """Returns the next head: its status line, and its fields by lower-case name. Returns None at the end."""
        try:
            line = self.file.readline()
        except ConnectionResetError:
            return None
        if not line:
            return None
        fields = {}
        while (field := self.file.readline()) not in (b"\r\n", b""):
            name, _, value = field.partition(b":")
            fields[name.lower().decode()] = value.strip().decode("latin1")
        return line.strip().decode("latin1"), fields

    def answer(self, method="GET"):
        """Returns the next final response: status, version, fields and body. Returns None at the end."""
        while (head := self.head()) and head[0].split()[1].startswith("1"):
            pass
        if not head:
            return None
        (version, status), fields = head[0].split()[:2], head[1]
        if method == "HEAD" or status in ("204", "304"):
            body = b""
        elif fields.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self.file.readline(), 16):
                body += self.file.read(size)
                assert self.file.read(2) == b"\r\n"
            while self.file.readline() not in (b"\r\n", b""):
                pass
        elif "content-length" in fields:
            body = self.file.read(int(fields["content-length"]))
        else:
            body = self.file.read()
        return int(status), version, fields, body

    def ended(self):
        """Returns whether the connection closes without another byte."""
        try:
            return self.file.read() == b""
        except ConnectionResetError:
            return True


@pytest.fixture(autouse=True)
def _others_are_still_served(sidecar):
    yield
    with Wire(sidecar.routes[0]) as wire:
        wire.send(request())
        assert wire.answer()[0] == 200


def request(line="GET /h1 HTTP/1.1", *fields, host="localhost", body=b""):
    lines = [line, *([f"Host: {host}"] if host is not None else []), *fields]
    return "\r\n".join([*lines, "", ""]).encode("latin1") + body


# A parser that ends the request too early would find a second request here.
HIDDEN = request("GET /hidden HTTP/1.1", "Connection: close")
CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"

# Invalid requests: they are refused, the connection ends, and the service receives nothing.
REFUSED = {
    # The request line.
    "2.3 a version that does not exist yet": request("GET / HTTP/1.2"),
    "2.3 HTTP/2.0 in HTTP/1": request("GET / HTTP/2.0"),
    "2.3 a version in lower case": request("GET / http/1.1"),
    "3 no version": request("GET /"),
    "3 four parts": request("GET / x HTTP/1.1"),
    "3 only a method": request("GET"),
    "3 a target of 70,000 bytes": request("GET /" + "x" * 70_000 + " HTTP/1.1"),
    "3.1 no method": request(" / HTTP/1.1"),
    "3.1 a method with a colon": request("G:T / HTTP/1.1"),
    "3.2 a NUL in the target": request("GET /\0 HTTP/1.1"),
    "3.2 a carriage return in the target": request("GET /\rx HTTP/1.1"),
    "3.2.1 a target without its slash": request("GET x/y HTTP/1.1"),
    "3.2.3 an authority as the target of GET": request("GET localhost:80 HTTP/1.1"),
    "3.2.3 CONNECT to a route": request("CONNECT localhost:443 HTTP/1.1"),
    "3.2.4 an asterisk with GET": request("GET * HTTP/1.1"),
    # Host.
    "3.2 no Host": request(host=None),
    "3.2 two Hosts": request("GET / HTTP/1.1", "Host: localhost"),
    "3.2 two different Hosts": request("GET / HTTP/1.1", "Host: evil.test"),
    "3.2 an invalid Host": request(host="a b"),
    "3.2 a list in Host": request(host="localhost, evil.test"),
    "3.2.2 a Host that differs from the target's": request("GET http://localhost/ HTTP/1.1", host="127.0.0.1"),
    # Fields.
    "2.2 a lone carriage return in a value": request("GET / HTTP/1.1", "X-A: 1\rX-B: 2"),
    "2.2 a space before the first field": b"GET / HTTP/1.1\r\n X-A: 1\r\nHost: localhost\r\n\r\n",
    "5.1 a space before the colon": request("GET / HTTP/1.1", "X-A : 1"),
    "5.1 a tab before the colon": request("GET / HTTP/1.1", "X-A\t: 1"),
    "5.1 no colon": request("GET / HTTP/1.1", "X-A"),
    "5.1 no name": request("GET / HTTP/1.1", ": 1"),
    "5.2 a folded line": request("GET / HTTP/1.1", "X-A: 1", " 2"),
    "5.2 a line folded with a tab": request("GET / HTTP/1.1", "X-A: 1", "\t2"),
    "9110 5.5 a NUL in a value": request("GET / HTTP/1.1", "X-A: 1\0002"),
    "9110 5.4 300 fields": request("GET / HTTP/1.1", *["X-A: 1"] * 300),
    "9110 5.4 a field of a mebibyte": request("GET / HTTP/1.1", "X-A: " + "x" * (1 << 20)),
}

# Two conflicting lengths of a body, or an invalid one.
FRAMING = {
    "6.1 chunked that is not last": "Transfer-Encoding: chunked, gzip",
    "6.1 a coding that is not removed": "Transfer-Encoding: gzip, chunked",
    "6.1 an unknown coding": "Transfer-Encoding: xchunked",
    "6.1 identity": "Transfer-Encoding: identity",
    "6.1 no coding": "Transfer-Encoding:",
    "6.1 a coding after a vertical tab": "Transfer-Encoding: \x0bchunked",
    "6.1 a coding after a space in the name": "Transfer-Encoding : chunked",
    "6.1 a coding on a folded line": "Transfer-Encoding:\r\n chunked",
    "6.1 two lines of codings": "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "6.3 two lengths": "Content-Length: 5\r\nContent-Length: 6",
    "6.3 two lengths in a list": "Content-Length: 5, 6",
    "6.2 a length with a plus": "Content-Length: +5",
    "6.2 a length with a minus": "Content-Length: -5",
    "6.2 a length in hexadecimal": "Content-Length: 0x5",
    "6.2 no length": "Content-Length:",
    "6.2 a length over 64 bits": "Content-Length: 18446744073709551621",
}
for name, fields in FRAMING.items():
    REFUSED[name] = request("POST / HTTP/1.1", fields, body=CHUNKS)
    REFUSED[f"{name}, with GET"] = request("GET / HTTP/1.1", fields, body=CHUNKS)
REFUSED["6.1 chunks in HTTP/1.0"] = request("POST / HTTP/1.0", "Transfer-Encoding: chunked", body=CHUNKS)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is(name, address, upstream):
    before = upstream.counts.copy()
    with Wire(address) as wire:
        wire.send(REFUSED[name] + HIDDEN)
        answer = wire.answer()
        assert answer is None or answer[0] in (400, 414, 431, 501, 505), answer
        assert wire.ended()
    assert upstream.counts == before


# Invalid chunked bodies (7.1): the service never receives a complete body.
NO_CHUNKS = {
    "7.1 a size that is not a number": b"g\r\nhello\r\n0\r\n\r\n",
    "7.1 a size with 0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "7.1 a size with a minus": b"-5\r\nhello\r\n0\r\n\r\n",
    "7.1 a size after a space": b" 5\r\nhello\r\n0\r\n\r\n",
    "7.1 no size": b"\r\nhello\r\n0\r\n\r\n",
    "7.1 a size over 64 bits": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "7.1 a chunk longer than its size": b"4\r\nhello\r\n0\r\n\r\n",
    "7.1 a chunk without its end": b"5\r\nhello0\r\n\r\n",
    "2.2 a size that ends with a line feed alone": b"5\nhello\r\n0\r\n\r\n",
    "2.2 a size that ends with a carriage return alone": b"5\rhello\r\n0\r\n\r\n",
    "7.1.1 a line feed in an extension": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "7.1.1 100,000 bytes of extension": b"5;" + b"x" * 100_000 + b"\r\nhello\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", NO_CHUNKS)
def test_no_body_is(name, address, upstream):
    hidden, whole = upstream.counts["/hidden"], upstream.completed["/no-chunks"]
    with Wire(address) as wire:
        wire.send(request("POST /no-chunks HTTP/1.1", "Transfer-Encoding: chunked", body=NO_CHUNKS[name] + HIDDEN))
        answer = wire.answer()
        assert answer is None or answer[0] >= 400, answer
        assert wire.ended()
    assert (upstream.counts["/hidden"], upstream.completed["/no-chunks"]) == (hidden, whole)


# Unusual but valid requests: the target and the body that the service receives.
FINE = {
    "2.2 an empty line first": (b"\r\n" + request("GET /fine HTTP/1.1"), "/fine", 0),
    "2.2 lines that end with a line feed alone": (request("GET /fine HTTP/1.1").replace(b"\r", b""), "/fine", 0),
    "3.2.2 the absolute form": (request("GET http://localhost/fine HTTP/1.1"), "/fine", 0),
    "5.1 white space around a value": (request("GET /fine HTTP/1.1", "x-A: \t 1 \t"), "/fine", 0),
    "6.2 the same length twice": (
        request("POST /fine HTTP/1.1", "Content-Length: 5", "Content-Length: 5", body=b"hello"), "/fine", 5,
    ),
    "6.3 neither a length nor chunks": (request("POST /fine HTTP/1.1"), "/fine", 0),
    "7.1 chunks": (request("POST /fine HTTP/1.1", "Transfer-Encoding: chunked", body=CHUNKS), "/fine", 5),
    "7 a coding in any case": (request("POST /fine HTTP/1.1", "transfer-encoding: Chunked", body=CHUNKS), "/fine", 5),
    "7.1 sizes in capitals and with zeros": (
        request("POST /fine HTTP/1.1", "Transfer-Encoding: chunked", body=b"00A\r\n0123456789\r\n000\r\n\r\n"), "/fine", 10,
    ),
    "7.1.1 extensions": (
        request("POST /fine HTTP/1.1", "Transfer-Encoding: chunked", body=b"5;a=b;c\r\nhello\r\n0;d\r\n\r\n"), "/fine", 5,
    ),
    "7.1.2 trailers": (
        request("POST /fine HTTP/1.1", "Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\nHost: evil.test\r\nX-Sum: 1\r\n\r\n"),
        "/fine", 5,
    ),
    "11.2 a request inside a body": (
        request("POST /fine HTTP/1.1", f"Content-Length: {len(HIDDEN)}", body=HIDDEN), "/fine", len(HIDDEN),
    ),
}


@pytest.mark.parametrize("name", FINE)
def test_an_answer_comes_for(name, address, upstream):
    """The next request on the connection is read after the end of this one."""
    sent, path, length = FINE[name]
    hidden = upstream.counts["/hidden"]
    with Wire(address) as wire:
        wire.send(sent + request("GET /next HTTP/1.1"))
        for path, length in [(path, length), ("/next", 0)]:
            status, _, _, body = wire.answer()
            call = json.loads(body)
            assert (status, call["path"], call["length"], call["host"]) == (200, path, length, "svc.a.run.app")
    assert upstream.counts["/hidden"] == hidden


def test_3_2_4_options_of_the_whole_server_is_answered(address):
    with Wire(address) as wire:
        wire.send(request("OPTIONS * HTTP/1.1") + request("GET /next HTTP/1.1"))
        assert wire.answer() is not None
        assert wire.answer()[0] == 200


@pytest.mark.parametrize("order", [("Transfer-Encoding: chunked", "Content-Length: 4"), ("Content-Length: 4", "Transfer-Encoding: chunked")])
def test_6_3_chunked_coding_overrides_a_length_and_the_connection_ends(order, address, upstream):
    hidden = upstream.counts["/hidden"]
    with Wire(address) as wire:
        wire.send(request("POST /both HTTP/1.1", *order, body=CHUNKS + HIDDEN))
        if answer := wire.answer():
            assert answer[0] == 400 or json.loads(answer[3])["length"] == 5, answer
        assert wire.ended()
    assert upstream.counts["/hidden"] == hidden


def test_6_3_a_truncated_body_is_never_complete(address, upstream):
    with Wire(address) as wire:
        wire.send(request("POST /early-end HTTP/1.1", "Content-Length: 10", body=b"hello"))
        wire.socket.shutdown(socket.SHUT_WR)
        answer = wire.answer()
        assert answer is None or answer[0] >= 400
    assert upstream.completed["/early-end"] == 0


@pytest.mark.parametrize("fields, stays", [([], False), (["Connection: keep-alive"], True), (["Connection: close"], False)])
def test_9_3_an_http_1_0_connection_is_kept_only_on_request(fields, stays, address):
    with Wire(address) as wire:
        for _ in range(2 if stays else 1):
            wire.send(request("GET /old HTTP/1.0", *fields))
            assert wire.answer()[0] == 200
        if not stays:
            assert wire.ended()


def test_6_1_an_http_1_0_client_gets_no_chunks(address):
    """The end of the connection marks the end of a body of unknown length."""
    with Wire(address) as wire:
        wire.send(request("GET /down?bytes=100000 HTTP/1.0", "Connection: keep-alive"))
        status, _, fields, body = wire.answer()
        assert (status, len(body)) == (200, 100_000)
        assert "transfer-encoding" not in fields


def test_9_6_close_is_answered_with_close_and_later_bytes_are_ignored(address, upstream):
    hidden = upstream.counts["/hidden"]
    with Wire(address) as wire:
        wire.send(request("GET /h1 HTTP/1.1", "Connection: close") + HIDDEN)
        status, _, fields, _ = wire.answer()
        assert (status, fields["connection"]) == (200, "close")
        assert wire.ended()
    assert upstream.counts["/hidden"] == hidden


def test_9_3_2_pipelined_requests_are_answered_in_their_order(address):
    with Wire(address) as wire:
        wire.send(b"".join(request(f"POST /pipe/{n} HTTP/1.1", f"Content-Length: {n}", body=b"x" * n) for n in range(30)))
        for number in range(30):
            call = json.loads(wire.answer()[3])
            assert (call["path"], call["length"]) == (f"/pipe/{number}", number)


def test_6_3_a_response_to_head_has_no_body(address):
    with Wire(address) as wire:
        wire.send(request("HEAD /h1 HTTP/1.1") + request("GET /next HTTP/1.1"))
        assert wire.answer("HEAD")[0] == 200
        assert json.loads(wire.answer()[3])["path"] == "/next"


@pytest.mark.parametrize("status", [204, 304])
def test_6_3_responses_without_a_body_leave_the_connection_usable(status, address):
    with Wire(address) as wire:
        wire.send(request(f"GET /status/{status} HTTP/1.1") + request("GET /next HTTP/1.1"))
        answer = wire.answer()
        assert answer[0] == status
        assert "transfer-encoding" not in answer[2]
        assert json.loads(wire.answer()[3])["path"] == "/next"


def test_9110_10_1_1_100_continue_comes_before_the_body(address):
    with Wire(address) as wire:
        wire.send(request("POST /expect HTTP/1.1", "Content-Length: 5", "Expect: 100-continue"))
        line, fields = wire.head()
        assert re.fullmatch(r"HTTP/1\.1 100 \S.*", line)
        # An interim response has no body, so it must not have a length (RFC 9110, 8.6).
        assert not {"content-length", "transfer-encoding"} & fields.keys()
        wire.send(b"hello")
        assert json.loads(wire.answer()[3])["length"] == 5


def test_9110_15_2_an_http_1_0_client_gets_no_interim_response(address):
    with Wire(address) as wire:
        wire.send(request("POST /expect HTTP/1.0", "Content-Length: 5", "Expect: 100-continue", body=b"hello"))
        line, _ = wire.head()
        assert line.split()[1] == "200"


def test_9110_10_1_1_a_refused_request_gets_no_100_continue(address):
    """The final status is sent instead of 100."""
    with Wire(address) as wire:
        wire.send(request("POST / HTTP/1.1", "Host: evil.test", "Content-Length: 5", "Expect: 100-continue"))
        assert wire.head()[0].split()[1] == "400"
