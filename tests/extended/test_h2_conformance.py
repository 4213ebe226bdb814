"""HTTP/2 protocol violations with prior knowledge. Each case names its section of RFC 9113."""

import struct
import time

import pytest

from h2raw import *


@pytest.fixture(autouse=True)
def _others_are_still_served(sidecar):
    yield
    with Peer(sidecar.routes[0]) as peer:
        peer.request(path="/after")
        assert peer.status() == 200


def u32(number):
    return struct.pack(">I", number)


def setting(identifier, value):
    return struct.pack(">HI", identifier, value)


def test_3_4_an_invalid_preface_is_not_answered_in_http2(address):
    with Peer(address, greet=False) as peer:
        peer.send(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n" + frame(SETTINGS, 0, 0))
        assert peer.goaway() in (None, PROTOCOL_ERROR)


def test_3_4_a_first_frame_other_than_settings_does_no_harm(address):
    """This error may be ignored: the next request is answered, or the connection ends."""
    with Peer(address, greet=False) as peer:
        peer.send(PREFACE + frame(PING, 0, 0, b"12345678") + frame(SETTINGS, 0, 0))
        peer.request()
        kind, _, _, payload = peer.until(lambda kind, *_: kind in (HEADERS, GOAWAY))
        if kind == HEADERS:
            assert dict(peer.decoder.decode(payload))[":status"] == "200"


def test_3_4_a_preface_in_single_bytes_is_accepted(address):
    with Peer(address, greet=False) as peer:
        for byte in PREFACE + frame(SETTINGS, 0, 0):
            peer.send(bytes([byte]))
        peer.request()
        assert peer.status() == 200


# Connection errors: the code, and the frames that the peer sends after its settings.
# PROTOCOL_ERROR is always accepted, because an endpoint may use it for other errors (7).
CONNECTION = {
    "4.1 a HEADERS frame on stream 0": ({PROTOCOL_ERROR}, lambda p: frame(HEADERS, 5, 0, p.block())),
    "4.2 a DATA frame over SETTINGS_MAX_FRAME_SIZE": (
        {FRAME_SIZE_ERROR},
        lambda p: frame(HEADERS, 4, 1, p.block("POST")) + frame(DATA, 0, 1, bytes(16_385)),
    ),
    "4.2 a HEADERS frame over SETTINGS_MAX_FRAME_SIZE": (
        {FRAME_SIZE_ERROR},
        lambda p: frame(HEADERS, 5, 1, p.block() + bytes(16_385)),
    ),
    "4.3 a header block that is not HPACK": ({COMPRESSION_ERROR}, lambda p: frame(HEADERS, 5, 1, b"\xff\xff\xff\xff\xff\xff")),
    "4.3 an index beyond the tables": ({COMPRESSION_ERROR}, lambda p: frame(HEADERS, 5, 1, b"\xfe")),
    "4.3 a table larger than allowed": ({COMPRESSION_ERROR}, lambda p: frame(HEADERS, 5, 1, b"\x3f\xff\xff\x03" + p.block())),
    "4.3 a header block that ends early": ({COMPRESSION_ERROR}, lambda p: frame(HEADERS, 5, 1, p.block()[:-3])),
    "4.3 another frame inside a header block": (
        {PROTOCOL_ERROR},
        lambda p: frame(HEADERS, 1, 1, p.block()) + frame(PING, 0, 0, b"12345678"),
    ),
    "4.3 a CONTINUATION of another stream": (
        {PROTOCOL_ERROR},
        lambda p: frame(HEADERS, 1, 1, p.block()) + frame(CONTINUATION, 4, 3, b""),
    ),
    "5.1 DATA on an idle stream": ({PROTOCOL_ERROR}, lambda p: frame(DATA, 1, 1, b"x")),
    "5.1 RST_STREAM on an idle stream": ({PROTOCOL_ERROR}, lambda p: frame(RST_STREAM, 0, 1, u32(CANCEL))),
    "5.1 WINDOW_UPDATE on an idle stream": ({PROTOCOL_ERROR}, lambda p: frame(WINDOW_UPDATE, 0, 1, u32(1))),
    "5.1 CONTINUATION on an idle stream": ({PROTOCOL_ERROR}, lambda p: frame(CONTINUATION, 4, 1, p.block())),
    "5.1.1 a stream with an even number": ({PROTOCOL_ERROR}, lambda p: frame(HEADERS, 5, 2, p.block())),
    "5.1.1 a stream with a lower number than the last": (
        {PROTOCOL_ERROR, STREAM_CLOSED},
        lambda p: frame(HEADERS, 5, 5, p.block()) + frame(HEADERS, 5, 3, p.block()),
    ),
    "6.1 DATA on stream 0": ({PROTOCOL_ERROR}, lambda p: frame(DATA, 1, 0, b"x")),
    "6.1 padding as long as the DATA frame": (
        {PROTOCOL_ERROR},
        lambda p: frame(HEADERS, 4, 1, p.block("POST")) + frame(DATA, PADDED | 1, 1, b"\x05abcd"),
    ),
    "6.1 a padded DATA frame without a length": (
        {PROTOCOL_ERROR, FRAME_SIZE_ERROR},
        lambda p: frame(HEADERS, 4, 1, p.block("POST")) + frame(DATA, PADDED | 1, 1, b""),
    ),
    "6.2 padding longer than the HEADERS frame": (
        {PROTOCOL_ERROR},
        lambda p: frame(HEADERS, PADDED | 5, 1, b"\xff" + p.block()),
    ),
    "6.3 PRIORITY on stream 0": ({PROTOCOL_ERROR}, lambda p: frame(PRIORITY, 0, 0, bytes(5))),
    "6.4 RST_STREAM on stream 0": ({PROTOCOL_ERROR}, lambda p: frame(RST_STREAM, 0, 0, u32(CANCEL))),
    "6.4 RST_STREAM of three bytes": (
        {FRAME_SIZE_ERROR},
        lambda p: frame(HEADERS, 4, 1, p.block("POST")) + frame(RST_STREAM, 0, 1, bytes(3)),
    ),
    "6.5 SETTINGS on a stream": ({PROTOCOL_ERROR}, lambda p: frame(SETTINGS, 0, 1)),
    "6.5 SETTINGS of five bytes": ({FRAME_SIZE_ERROR}, lambda p: frame(SETTINGS, 0, 0, bytes(5))),
    "6.5 an acknowledgement with a payload": ({FRAME_SIZE_ERROR}, lambda p: frame(SETTINGS, ACK, 0, setting(3, 1))),
    "6.5.2 ENABLE_PUSH of 2": ({PROTOCOL_ERROR}, lambda p: frame(SETTINGS, 0, 0, setting(2, 2))),
    "6.5.2 INITIAL_WINDOW_SIZE over 2^31-1": ({FLOW_CONTROL_ERROR}, lambda p: frame(SETTINGS, 0, 0, setting(4, 1 << 31))),
    "6.5.2 MAX_FRAME_SIZE under 16384": ({PROTOCOL_ERROR}, lambda p: frame(SETTINGS, 0, 0, setting(5, 16_383))),
    "6.5.2 MAX_FRAME_SIZE over 2^24-1": ({PROTOCOL_ERROR}, lambda p: frame(SETTINGS, 0, 0, setting(5, 1 << 24))),
    "6.6 PUSH_PROMISE from a client": ({PROTOCOL_ERROR}, lambda p: frame(PUSH_PROMISE, 4, 1, u32(2) + p.block())),
    "6.7 PING on a stream": ({PROTOCOL_ERROR}, lambda p: frame(PING, 0, 1, bytes(8))),
    "6.7 PING of seven bytes": ({FRAME_SIZE_ERROR}, lambda p: frame(PING, 0, 0, bytes(7))),
    "6.8 GOAWAY on a stream": ({PROTOCOL_ERROR}, lambda p: frame(GOAWAY, 0, 1, bytes(8))),
    "6.9 WINDOW_UPDATE of zero for the connection": ({PROTOCOL_ERROR}, lambda p: frame(WINDOW_UPDATE, 0, 0, u32(0))),
    "6.9 WINDOW_UPDATE of three bytes": ({FRAME_SIZE_ERROR}, lambda p: frame(WINDOW_UPDATE, 0, 0, bytes(3))),
    "6.9.1 the connection's window over 2^31-1": (
        {FLOW_CONTROL_ERROR},
        lambda p: frame(WINDOW_UPDATE, 0, 0, u32(0x7FFF_FFFF)) * 2,
    ),
    "6.10 CONTINUATION without an open header block": (
        {PROTOCOL_ERROR},
        lambda p: frame(HEADERS, 5, 1, p.block()) + frame(CONTINUATION, 4, 1, b""),
    ),
    "6.10 CONTINUATION on stream 0": (
        {PROTOCOL_ERROR},
        lambda p: frame(HEADERS, 1, 1, p.block()) + frame(CONTINUATION, 4, 0, b""),
    ),
}


@pytest.mark.parametrize("name", CONNECTION)
def test_the_connection_ends_for(name, address):
    codes, frames = CONNECTION[name]
    with Peer(address) as peer:
        peer.send(frames(peer))
        assert peer.goaway() in codes | {PROTOCOL_ERROR}


# Stream errors. The connection may end too (5.4.2), with the same code.
STREAM = {
    "5.1 HEADERS without an end on a stream half closed": (
        {STREAM_CLOSED},
        lambda p: frame(HEADERS, 5, 1, p.block(path="/stuck/half")) + frame(HEADERS, 4, 1, p.block()),
    ),
    "5.1 DATA on a stream half closed": (
        {STREAM_CLOSED},
        lambda p: frame(HEADERS, 5, 1, p.block(path="/stuck/half")) + frame(DATA, 1, 1, b"x"),
    ),
    "6.3 PRIORITY of four bytes": ({FRAME_SIZE_ERROR}, lambda p: frame(HEADERS, 4, 1, p.block("POST")) + frame(PRIORITY, 0, 1, bytes(4))),
    "6.9 WINDOW_UPDATE of zero": ({PROTOCOL_ERROR}, lambda p: frame(HEADERS, 4, 1, p.block("POST")) + frame(WINDOW_UPDATE, 0, 1, u32(0))),
    "6.9.1 a stream's window over 2^31-1": (
        {FLOW_CONTROL_ERROR},
        lambda p: frame(HEADERS, 4, 1, p.block("POST")) + frame(WINDOW_UPDATE, 0, 1, u32(0x7FFF_FFFF)) * 2,
    ),
    "8.1 trailers that do not end the stream": (
        {PROTOCOL_ERROR},
        lambda p: frame(HEADERS, 4, 1, p.block("POST")) + frame(DATA, 0, 1, b"x") + frame(HEADERS, 4, 1, p.encode([("x", "1")])),
    ),
    "8.1.1 more DATA than content-length": (
        {PROTOCOL_ERROR},
        lambda p: frame(HEADERS, 4, 1, p.block("POST", more=[("content-length", "1")])) + frame(DATA, 1, 1, b"xy"),
    ),
    "8.1.1 less DATA than content-length": (
        {PROTOCOL_ERROR},
        lambda p: frame(HEADERS, 4, 1, p.block("POST", more=[("content-length", "3")])) + frame(DATA, 1, 1, b"xy"),
    ),
    "8.1.1 a content-length and no DATA": (
        {PROTOCOL_ERROR},
        lambda p: frame(HEADERS, 5, 1, p.block("POST", more=[("content-length", "3")])),
    ),
    "8.2.1 a name in upper case": ({PROTOCOL_ERROR}, lambda p: frame(HEADERS, 5, 1, p.block(more=[("X-Upper", "1")]))),
    "8.2.1 a line feed in a value": ({PROTOCOL_ERROR}, lambda p: frame(HEADERS, 5, 1, p.block(more=[("x", "a\nb: c")]))),
    "8.2.1 a NUL in a value": ({PROTOCOL_ERROR}, lambda p: frame(HEADERS, 5, 1, p.block(more=[("x", "a\0b")]))),
    "8.2.1 a space in a name": ({PROTOCOL_ERROR}, lambda p: frame(HEADERS, 5, 1, p.block(more=[("x y", "1")]))),
    "8.2.1 an empty name": ({PROTOCOL_ERROR}, lambda p: frame(HEADERS, 5, 1, p.block(more=[("", "1")]))),
    "8.2.2 connection": ({PROTOCOL_ERROR}, lambda p: frame(HEADERS, 5, 1, p.block(more=[("connection", "close")]))),
    "8.2.2 keep-alive": ({PROTOCOL_ERROR}, lambda p: frame(HEADERS, 5, 1, p.block(more=[("keep-alive", "1")]))),
    "8.2.2 proxy-connection": ({PROTOCOL_ERROR}, lambda p: frame(HEADERS, 5, 1, p.block(more=[("proxy-connection", "close")]))),
    "8.2.2 upgrade": ({PROTOCOL_ERROR}, lambda p: frame(HEADERS, 5, 1, p.block(more=[("upgrade", "websocket")]))),
    "8.2.2 transfer-encoding": ({PROTOCOL_ERROR}, lambda p: frame(HEADERS, 5, 1, p.block("POST", more=[("transfer-encoding", "chunked")]))),
    "8.2.2 te that is not trailers": ({PROTOCOL_ERROR}, lambda p: frame(HEADERS, 5, 1, p.block(more=[("te", "gzip")]))),
    "8.3 a pseudo-header field after a regular one": (
        {PROTOCOL_ERROR},
        lambda p: frame(HEADERS, 5, 1, p.block(without=[":path"], more=[("x", "1"), (":path", "/")])),
    ),
    "8.3 an unknown pseudo-header field": ({PROTOCOL_ERROR}, lambda p: frame(HEADERS, 5, 1, p.encode([(":unknown", "1")]) + p.block())),
    "8.3 a pseudo-header field of responses": ({PROTOCOL_ERROR}, lambda p: frame(HEADERS, 5, 1, p.encode([(":status", "200")]) + p.block())),
    "8.3.1 no :method": ({PROTOCOL_ERROR}, lambda p: frame(HEADERS, 5, 1, p.block(without=[":method"]))),
    "8.3.1 no :scheme": ({PROTOCOL_ERROR}, lambda p: frame(HEADERS, 5, 1, p.block(without=[":scheme"]))),
    "8.3.1 no :path": ({PROTOCOL_ERROR}, lambda p: frame(HEADERS, 5, 1, p.block(without=[":path"]))),
    "8.3.1 an empty :path": ({PROTOCOL_ERROR}, lambda p: frame(HEADERS, 5, 1, p.encode([(":path", "")]) + p.block(without=[":path"]))),
    "8.3.1 a :path that does not begin with a slash": ({PROTOCOL_ERROR}, lambda p: frame(HEADERS, 5, 1, p.block(path="evil"))),
    "8.3.1 :method twice": ({PROTOCOL_ERROR}, lambda p: frame(HEADERS, 5, 1, p.encode([(":method", "GET")]) + p.block())),
    "8.3.1 :scheme twice": ({PROTOCOL_ERROR}, lambda p: frame(HEADERS, 5, 1, p.encode([(":scheme", "http")]) + p.block())),
    "8.3.1 :path twice": ({PROTOCOL_ERROR}, lambda p: frame(HEADERS, 5, 1, p.encode([(":path", "/")]) + p.block())),
    "8.3.1 :authority twice": ({PROTOCOL_ERROR}, lambda p: frame(HEADERS, 5, 1, p.encode([(":authority", "a")]) + p.block())),
    "8.3.1 user-info in :authority": ({PROTOCOL_ERROR}, lambda p: frame(HEADERS, 5, 1, p.block(authority=f"user@{p.authority}"))),
}


def refused(peer, codes, stream=1):
    """A stream error, a connection error with the same code, or a response of 400 (8.1.1)."""
    while True:
        try:
            kind, _, of, payload = peer.read()
        except Closed:
            return True
        if kind == GOAWAY:
            return int.from_bytes(payload[4:8], "big") in codes | {PROTOCOL_ERROR}
        if kind == RST_STREAM and of == stream:
            return int.from_bytes(payload[:4], "big") in codes | {PROTOCOL_ERROR}
        if kind == HEADERS and of == stream:
            return dict(peer.decoder.decode(payload))[":status"] == "400"


@pytest.mark.parametrize("name", STREAM)
def test_the_stream_ends_for(name, address):
    codes, frames = STREAM[name]
    with Peer(address) as peer:
        peer.send(frames(peer))
        assert refused(peer, codes), peer.seen


# In the cases of sections 5 and 6 the request is valid, and only the later frames are not.
@pytest.mark.parametrize("name", [name for name in STREAM if not name.startswith(("5.", "6."))])
def test_the_service_never_gets_whole(name, address, upstream):
    """A malformed request is not forwarded to the service (8.1.1)."""
    codes, frames = STREAM[name]
    before = upstream.completed["/h2"]
    with Peer(address) as peer:
        peer.send(frames(peer))
        assert refused(peer, codes), peer.seen
    assert upstream.completed["/h2"] == before


# Unusual but valid requests.
FINE = {
    "4.1 a frame of an unknown kind": lambda p: frame(0xAB, 0xFF, 0, b"anything") + frame(HEADERS, 5, 1, p.block()),
    "4.1 unknown flags": lambda p: frame(HEADERS, 5 | 0x10, 1, p.block()),
    "4.1 the reserved bit of a stream's number": lambda p: frame(HEADERS, 5, 1 | 1 << 31, p.block()),
    "4.3 a block in four frames": lambda p: in_parts(p.block(), 4),
    "5.1.1 numbers with gaps": lambda p: frame(HEADERS, 5, 1, p.block()) + frame(HEADERS, 5, 1001, p.block()),
    "5.3 PRIORITY on an idle stream": lambda p: frame(PRIORITY, 0, 9, bytes(5)) + frame(HEADERS, 5, 1, p.block()),
    "6.1 padded DATA": lambda p: frame(HEADERS, 4, 1, p.block("POST")) + frame(DATA, PADDED | 1, 1, b"\x04body" + bytes(4)),
    "6.1 DATA of padding alone": lambda p: frame(HEADERS, 4, 1, p.block("POST")) + frame(DATA, PADDED | 1, 1, b"\x04" + bytes(4)),
    "6.2 padded and prioritised HEADERS": lambda p: frame(HEADERS, PADDED | PRIORITISED | 5, 1, b"\x02" + bytes(5) + p.block() + bytes(2)),
    "6.5 unknown settings": lambda p: frame(SETTINGS, 0, 0, setting(0xABCD, 1)) + frame(HEADERS, 5, 1, p.block()),
    "8.1 trailers": lambda p: frame(HEADERS, 4, 1, p.block("POST")) + frame(DATA, 0, 1, b"x") + frame(HEADERS, 5, 1, p.encode([("x-sum", "1")])),
    "8.1.1 a correct content-length": lambda p: frame(HEADERS, 4, 1, p.block("POST", more=[("content-length", "2")])) + frame(DATA, 1, 1, b"xy"),
    "8.2.2 te: trailers": lambda p: frame(HEADERS, 5, 1, p.block(more=[("te", "trailers")])),
    "8.2.3 cookies in pieces": lambda p: frame(HEADERS, 5, 1, p.block(more=[("cookie", "a=1"), ("cookie", "b=2")])),
    "8.3.1 host beside the same :authority": lambda p: frame(HEADERS, 5, 1, p.block(more=[("host", p.authority)])),
}


def in_parts(block, count):
    size = -(-len(block) // count)
    parts = [block[i : i + size] for i in range(0, len(block), size)]
    frames = [frame(HEADERS, END_STREAM, 1, parts[0])]
    frames += [frame(CONTINUATION, 0, 1, part) for part in parts[1:-1]]
    return b"".join([*frames, frame(CONTINUATION, END_HEADERS, 1, parts[-1])])


@pytest.mark.parametrize("name", FINE)
def test_an_answer_comes_for(name, address):
    with Peer(address) as peer:
        peer.send(FINE[name](peer))
        assert peer.status() == 200


def test_6_7_a_ping_comes_back_with_its_payload(address):
    with Peer(address) as peer:
        for number in range(100):
            peer.ping(struct.pack(">Q", number))


def test_6_5_settings_are_acknowledged(address):
    with Peer(address) as peer:
        peer.send(frame(SETTINGS, 0, 0, setting(3, 7)))
        peer.until(lambda kind, flags, *_: kind == SETTINGS and flags & ACK)


def test_6_9_2_a_window_is_respected_and_may_become_negative(address):
    with Peer(address, settings=setting(4, 10)) as peer:
        peer.request(path="/down?bytes=50")
        assert len(peer.until(lambda kind, *_: kind == DATA)[3]) == 10
        peer.send(frame(SETTINGS, 0, 0, setting(4, 5)))
        peer.until(lambda kind, flags, *_: kind == SETTINGS and flags & ACK)
        # Five missing bytes, then five more for new data.
        peer.send(frame(WINDOW_UPDATE, 0, 1, u32(10)))
        assert len(peer.until(lambda kind, *_: kind == DATA)[3]) == 5
        peer.send(frame(WINDOW_UPDATE, 0, 1, u32(35)))
        assert len(peer.until(lambda kind, *_: kind == DATA)[3]) == 35


def test_6_9_2_a_window_that_new_settings_overflow_ends_the_connection(address):
    with Peer(address) as peer:
        peer.request(path="/stuck/window")
        peer.send(frame(WINDOW_UPDATE, 0, 1, u32(0x7FFF_FFFF - 65_535)))
        peer.send(frame(SETTINGS, 0, 0, setting(4, 0x7FFF_FFFF)))
        assert peer.goaway() == FLOW_CONTROL_ERROR


def test_6_9_more_data_than_the_window_is_a_flow_control_error(address):
    """The upstream reads nothing, so the window does not grow. A client that continues is stopped."""
    with Peer(address) as peer:
        peer.request(method="POST", path="/stuck/flow", end=False)
        for _ in range(4096):
            peer.send(frame(DATA, 0, 1, bytes(16_384)))
        code = peer.reset()
        assert code in (FLOW_CONTROL_ERROR, ("goaway", FLOW_CONTROL_ERROR)), code


def test_5_1_2_streams_over_the_limit_are_refused(start):
    """The limit is at most a little above --max-connections. Further streams are refused."""
    with start("--route", "127.0.0.1:0=https://svc.a.run.app", "--max-connections", "50") as sidecar:
        with Peer(sidecar.routes[0], greet=False) as peer:
            peer.send(PREFACE + frame(SETTINGS, 0, 0))
            payload = peer.until(lambda kind, flags, *_: kind == SETTINGS and not flags & ACK)[3]
            settings = dict(struct.unpack(">HI", payload[i : i + 6]) for i in range(0, len(payload), 6))
            assert 50 <= settings[3] <= 200
            peer.until(lambda kind, flags, *_: kind == SETTINGS and flags & ACK)
            for number in range(settings[3] + 1):
                peer.request(stream=2 * number + 1, path="/stuck/many")
            last = 2 * settings[3] + 1
            kind, _, _, payload = peer.until(
                lambda kind, _, stream, __: kind == GOAWAY or (kind in (RST_STREAM, HEADERS) and stream == last)
            )
            assert kind != HEADERS, "it was answered"
            code = int.from_bytes(payload[:4] if kind == RST_STREAM else payload[4:8], "big")
            assert code in (REFUSED_STREAM, PROTOCOL_ERROR, ENHANCE_YOUR_CALM), code
        sidecar.assert_alive()


def test_8_3_1_host_and_authority_that_disagree_are_refused(address, upstream):
    before = upstream.counts["/two-hosts"]
    with Peer(address) as peer:
        peer.request(path="/two-hosts", more=[("host", "evil.test")])
        assert peer.status() == 400
        peer.request(stream=3, path="/two-hosts", more=[("host", peer.authority), ("host", peer.authority)])
        assert peer.status(stream=3) == 400
        peer.request(stream=5, path="/two-hosts", authority="evil.test")
        assert peer.status(stream=5) == 421
    assert upstream.counts["/two-hosts"] == before


def test_8_3_1_the_forward_proxy_uses_the_authority_as_destination(sidecar, upstream):
    before = upstream.counts["/forward"]
    with Peer(sidecar.proxy) as peer:
        peer.request(path="/forward", authority="svc.a.run.app")
        assert peer.status() == 200
        peer.request(stream=3, path="/forward", authority="svc.a.run.app", more=[("host", "evil.test")])
        assert peer.status(stream=3) == 400
    assert upstream.counts["/forward"] == before + 1


def test_8_3_a_pseudo_header_field_in_trailers_changes_nothing(address, upstream):
    before = upstream.counts["/evil"]
    with Peer(address) as peer:
        peer.send(frame(HEADERS, END_HEADERS, 1, peer.block("POST")) + frame(DATA, 0, 1, b"x"))
        peer.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, peer.encode([(":path", "/evil")])))
        kind, _, _, payload = peer.until(lambda kind, *_: kind in (HEADERS, GOAWAY, RST_STREAM))
        if kind == HEADERS:
            assert dict(peer.decoder.decode(payload))[":status"] in ("200", "400")
    assert upstream.counts["/evil"] == before


def test_8_5_connect_is_for_the_forward_proxy_alone(address):
    with Peer(address) as peer:
        peer.request(method="CONNECT", without=[":scheme", ":path"], end=False)
        assert peer.status() == 400
        # With a path it is malformed.
        peer.request(stream=3, method="CONNECT", end=False)
        assert refused(peer, {PROTOCOL_ERROR}, stream=3)


def test_10_5_a_flood_of_continuation_frames_is_stopped(sidecar, address):
    """An endless header block, in empty frames and in frames with data."""
    for piece in (b"", b"\x00\x01a\x7f\x81\x7e" + bytes([0x61]) * 253 * 60):
        with Peer(address) as peer:
            peer.send(frame(HEADERS, END_STREAM, 1, peer.block()))
            for _ in range(20_000 if not piece else 2_000):
                peer.send(frame(CONTINUATION, 0, 1, piece))
            assert peer.goaway() in (None, ENHANCE_YOUR_CALM, COMPRESSION_ERROR, PROTOCOL_ERROR)


def test_10_5_rapid_resets_are_stopped(sidecar, address):
    """CVE-2023-44487: streams are opened and cancelled without end. If they arrive faster than they are handled, the
    connection ends. Handled streams are released soon."""
    with Peer(address) as peer:
        for batch in range(0, 20_000, 2_000):
            streams = range(2 * batch + 1, 2 * (batch + 2_000), 2)
            peer.send(
                b"".join(
                    frame(HEADERS, END_HEADERS | END_STREAM, stream, peer.block(path="/stuck/rapid"))
                    + frame(RST_STREAM, 0, stream, u32(CANCEL))
                    for stream in streams
                )
            )
        peer.send(frame(PING, 0, 0, b"12345678"))
        try:
            kind, _, _, payload = peer.until(lambda kind, flags, *_: kind == GOAWAY or (kind == PING and flags & ACK))
            assert kind == PING or int.from_bytes(payload[4:8], "big") == ENHANCE_YOUR_CALM
        except Closed:
            pass
        deadline = time.monotonic() + TIMEOUT
        while (left := sidecar.metric("sidentity_requests_in_flight")) > 0:
            assert time.monotonic() < deadline, f"{left} calls are still in flight"


def test_10_5_provoked_resets_are_stopped(address):
    """CVE-2025-8671, "MadeYouReset": the peer breaks a rule on each stream so that the server resets it."""
    with Peer(address) as peer:
        for number in range(20_000):
            stream = 2 * number + 1
            peer.request(stream=stream, path="/stuck/made", end=False, method="POST")
            peer.send(frame(WINDOW_UPDATE, 0, stream, u32(0)))
        assert peer.goaway() in (None, ENHANCE_YOUR_CALM, PROTOCOL_ERROR)


@pytest.mark.parametrize("what", ["settings", "pings", "empty data", "priorities"])
def test_10_5_a_flood_of_small_frames_leaves_others_served(address, what):
    with Peer(address) as peer:
        if what == "empty data":
            peer.request(method="POST", path="/flood", end=False)
        flood = {
            "settings": frame(SETTINGS, 0, 0),
            "pings": frame(PING, 0, 0, bytes(8)),
            "empty data": frame(DATA, 0, 1),
            "priorities": frame(PRIORITY, 0, 3, bytes(5)),
        }[what]
        peer.socket.settimeout(2)
        try:
            # The client reads nothing, so the server's responses must not accumulate.
            for _ in range(50):
                peer.socket.sendall(flood * 2_000)
        except OSError:
            pass
        with Peer(address) as other:
            other.request(path="/meanwhile")
            assert other.status() == 200


def test_10_5_1_a_header_list_that_is_too_large_is_refused(address):
    with Peer(address) as peer:
        block = peer.block(more=[(f"x-{n}", "v" * 1000) for n in range(400)])
        parts = [block[i : i + 16_384] for i in range(0, len(block), 16_384)]
        peer.send(frame(HEADERS, END_STREAM, 1, parts[0]))
        for part in parts[1:-1]:
            peer.send(frame(CONTINUATION, 0, 1, part))
        peer.send(frame(CONTINUATION, END_HEADERS, 1, parts[-1]))
        kind, _, _, payload = peer.until(lambda kind, *_: kind in (HEADERS, GOAWAY, RST_STREAM))
        if kind == HEADERS:
            assert dict(peer.decoder.decode(payload))[":status"] == "431"


def test_10_5_1_a_small_block_that_expands_too_much_is_refused(address):
    """One long value in the table, followed by thousands of references to it."""
    with Peer(address) as peer:
        bomb = peer.block(more=[("x-bomb", "v" * 3000)]) + b"\xbe" * 10_000
        peer.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, bomb))
        kind, _, _, payload = peer.until(lambda kind, *_: kind in (HEADERS, GOAWAY, RST_STREAM))
        if kind == HEADERS:
            assert dict(peer.decoder.decode(payload))[":status"] == "431"
