"""Managed Service for Prometheus for Grafana and promtool: Prometheus behind TLS and a check of the token."""

import re
import subprocess
import time

import requests

from recipes import free_port
from stage import TIMEOUT
from tls_server import Handler, TlsServer


class ManagedPrometheus(TlsServer):
    """Prometheus that monitors itself, behind TLS and a check of the token, below the path of the project."""

    PATH = "/v1/projects/example-project/location/global/prometheus"

    def __init__(self, certificates, folder):
        self.own = free_port()
        config = folder / "prometheus.yaml"
        config.write_text(
            "global: {scrape_interval: 1s}\n"
            f"scrape_configs: [{{job_name: self, static_configs: [{{targets: ['127.0.0.1:{self.own}']}}]}}]\n"
        )
        command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder}", f"--web.listen-address=127.0.0.1:{self.own}"]
        self.child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        managed = self

        class Answering(Handler):
            def do_GET(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                token = self.headers.get("authorization", "")
                if not re.fullmatch(r"Bearer ya29\.\S+", token) or not self.path.startswith(managed.PATH):
                    status, text = 401, b"{}"
                else:
                    url = f"http://127.0.0.1:{managed.own}{self.path.removeprefix(managed.PATH)}"
                    kind = {"content-type": self.headers.get("content-type", "")}
                    answer = requests.request(self.command, url, data=body, headers=kind, timeout=TIMEOUT)
                    status, text = answer.status_code, answer.content
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_POST = do_GET

        super().__init__(certificates, Answering)

    def __enter__(self):
        super().__enter__()
        deadline = time.monotonic() + TIMEOUT
        while '"value"' not in self.asked():
            assert time.monotonic() < deadline, "Prometheus has not seen itself"
            time.sleep(0.2)
        return self

    def asked(self):
        try:
            return requests.get(f"http://127.0.0.1:{self.own}/api/v1/query?query=up", timeout=TIMEOUT).text
        except requests.ConnectionError:
            return ""

    def __exit__(self, *exception):
        super().__exit__(*exception)
        self.child.terminate()
        self.child.wait(TIMEOUT)
