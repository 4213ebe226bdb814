"""A Git server behind TLS (smart HTTP). Its repository requires an ID token for its host."""

import http.server
import os
import pathlib
import ssl
import subprocess
import threading

import jwt

from upstream import Doorkeeper

HOST = "git.a.run.app"


class GitUpstream:
    """Serves `/demo.git` like `git http-backend`."""

    def __init__(self, certificates, emulator, folder):
        self.doorkeeper = Doorkeeper(emulator)
        self.folder = pathlib.Path(folder)
        self.commit = make_repository(self.folder)
        self.refused = 0
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.upstream = self
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificates.chain, certificates.key)
        # The thread of the connection performs the handshake.
        self.server.socket = context.wrap_socket(
            self.server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.port = self.server.server_address[1]

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(b"")

    def do_POST(self):
        self.answer(self.rfile.read(int(self.headers.get("content-length", 0))))

    def answer(self, body):
        upstream = self.server.upstream
        try:
            upstream.doorkeeper.claims(self.headers.get("authorization", ""), self.headers["host"])
        except jwt.PyJWTError:
            upstream.refused += 1
            return self.reply(401, [("WWW-Authenticate", "Basic realm=git")], b"")
        path, _, query = self.path.partition("?")
        # The part of RFC 3875 that Git uses.
        env = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(upstream.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("content-type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("content-encoding", ""),
            "GIT_PROTOCOL": self.headers.get("git-protocol", ""),
        }
        done = subprocess.run(["git", "http-backend"], input=body, env=env, capture_output=True, timeout=60)
        head, _, rest = done.stdout.partition(b"\r\n\r\n")
        fields = [line.split(": ", 1) for line in head.decode("latin1").split("\r\n")]
        status = next((value for name, value in fields if name == "Status"), "200")
        self.reply(int(status.split()[0]), [field for field in fields if field[0] != "Status"], rest)

    def reply(self, status, headers, body):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def make_repository(folder):
    """Creates one commit in `demo.git` and returns its id."""
    names = {f"GIT_{who}_{what}": "t@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1"} | names

    def git(*args):
        done = subprocess.run(["git", *args], cwd=folder, env=env, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "-q", "work")
    (folder / "work" / "file").write_text("held in Git\n" * 1000)
    git("-C", "work", "add", "file")
    git("-C", "work", "commit", "-q", "-m", "one")
    git("clone", "-q", "--bare", "work", "demo.git")
    return git("-C", "work", "rev-parse", "HEAD")
