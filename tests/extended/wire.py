"""A connection on which a test writes every byte."""

import socket


class Connection:
    """`with` closes it."""

    def __init__(self, address, timeout):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            # Bytes from before the close can still be read.
            pass
