"""An HTTP/2 peer that sends any bytes (RFC 9113, 4)."""

import struct

import hpack

from wire import Connection

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITISED = 0x20

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED = range(6)
FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM = range(6, 12)

TIMEOUT = 10


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


class Closed(Exception):
    """The peer has closed the connection."""


class Peer(Connection):
    """One end of a connection. With `greet`, it has exchanged prefaces."""

    def __init__(self, address, greet=True, settings=b""):
        super().__init__(address, TIMEOUT)
        self.authority = address
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self.buffer = b""
        self.seen = []
        if greet:
            self.send(PREFACE + frame(SETTINGS, 0, 0, settings))
            # The peer's settings, and its acknowledgement of ours.
            self.until(lambda kind, flags, *_: kind == SETTINGS and flags & ACK)

    def block(self, method="GET", path="/h2", more=(), without=(), authority=None):
        """Returns a header block with pseudo-header fields first."""
        pseudo = [
            (":method", method),
            (":scheme", "http"),
            (":path", path),
            (":authority", authority or self.authority),
        ]
        return self.encode([pair for pair in pseudo if pair[0] not in without] + list(more))

    def encode(self, fields):
        return self.encoder.encode(fields, huffman=False)

    def request(self, stream=1, end=True, **block):
        flags = END_HEADERS | (END_STREAM if end else 0)
        self.send(frame(HEADERS, flags, stream, self.block(**block)))

    def read(self):
        """Returns the next frame: kind, flags, stream, payload."""

        def exactly(length):
            while len(self.buffer) < length:
                try:
                    more = self.socket.recv(65536)
                except ConnectionResetError:
                    more = b""
                if not more:
                    raise Closed(f"after {self.seen}")
                self.buffer += more
            taken, self.buffer = self.buffer[:length], self.buffer[length:]
            return taken

        head = exactly(9)
        payload = exactly(int.from_bytes(head[:3], "big"))
        kind, flags = head[3], head[4]
        stream = int.from_bytes(head[5:], "big") & 0x7FFF_FFFF
        self.seen.append((kind, flags, stream, payload[:32]))
        # Acknowledges bytes like a correct peer, so that the window never blocks.
        if kind == SETTINGS and not flags & ACK:
            self.send(frame(SETTINGS, ACK, 0))
        return kind, flags, stream, payload

    def until(self, wanted):
        while True:
            got = self.read()
            if wanted(*got):
                return got

    def goaway(self):
        """Returns the code of the connection error, or None if the connection closes without a GOAWAY."""
        try:
            payload = self.until(lambda kind, *_: kind == GOAWAY)[3]
        except Closed:
            return None
        return int.from_bytes(payload[4:8], "big")

    def reset(self, stream=1):
        """Returns the code of this stream's error, or ('goaway', code) if the connection ends instead."""
        try:
            kind, _, _, payload = self.until(
                lambda kind, _, of, __: kind == GOAWAY or (kind == RST_STREAM and of == stream)
            )
        except Closed:
            return ("goaway", None)
        if kind == GOAWAY:
            return ("goaway", int.from_bytes(payload[4:8], "big"))
        return int.from_bytes(payload[:4], "big")

    def status(self, stream=1):
        """Returns the status of the response on this stream. It decodes all header blocks, as compression requires."""
        while True:
            kind, flags, of, payload = self.read()
            assert kind != GOAWAY, f"GOAWAY {payload!r}"
            assert not (kind == RST_STREAM and of == stream), f"RST_STREAM {payload!r}"
            if kind == HEADERS:
                fields = dict(self.decoder.decode(payload))
                if of == stream and ":status" in fields:
                    return int(fields[":status"])

    def ping(self, payload=b"12345678"):
        """Waits for a PING to return, so that the peer has handled all earlier frames."""
        self.send(frame(PING, 0, 0, payload))
        self.until(lambda kind, flags, _, got: kind == PING and flags & ACK and got == payload)
