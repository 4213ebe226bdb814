"""Runs the private service of `upstream.py` as a process: private.py METADATA_SERVER, with the certificates in /tls.

Prints its port. SIGUSR1 continues its event streams.
"""

import pathlib
import signal
import sys
import threading

from upstream import Certificates, Upstream


class MetadataServer:
    @staticmethod
    def url(path):
        return f"http://{sys.argv[1]}{path}"


tls = pathlib.Path("/tls")
ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())
with Upstream(Certificates(tls / "ca.pem", tls / "chain.pem", tls / "key.pem"), MetadataServer) as upstream:
    signal.signal(signal.SIGUSR1, lambda *_: upstream.go_on["/events"].set())
    print(upstream.port, flush=True)
    ended.wait()
