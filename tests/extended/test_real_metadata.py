"""`metadata-server --credentials`: real tokens of a credential file for Google's libraries, which know only the
metadata server."""

import json
import os
import subprocess
import sys

import google.auth.transport.requests
import google.oauth2.id_token
import pytest

from conftest import run
from stage import WORK, Emulator, Process

TARGET = "target@example-project.iam.gserviceaccount.com"
AUDIENCE = "https://svc.a.run.app"
CLIENTS = WORK / "clients"

PROGRAM = f"""
import json
import google.auth, google.auth.transport.requests, google.oauth2.id_token
request = google.auth.transport.requests.Request()
credentials, project = google.auth.default(scopes=["https://www.googleapis.com/auth/devstorage.read_only"])
credentials.refresh(request)
assert credentials.valid
token = google.oauth2.id_token.fetch_id_token(request, "{AUDIENCE}")
print(json.dumps([project, credentials.service_account_email, credentials.token, token]))
"""


class Google(Emulator):
    """The emulator with its token endpoints, and a credential file of each type."""

    def __init__(self, folder):
        self.folder = folder
        Process.__init__(self, ["metadata-server", "--listen", "127.0.0.1:0", "--write-credentials", folder], {}, "stdout")
        self.address = self.wait_for(lambda line: line.partition("GCE_METADATA_HOST=")[2])
        self.wait_for(lambda line: "24 hours" in line and line)


class RealTokens(Process):
    """`sidentity metadata-server --credentials FILE`."""

    def __init__(self, google, kind, *args):
        ways = ["--upstream-ca", google.folder / "ca.pem", "--connect-to", f"*:443:{google.address}"]
        args = ["metadata-server", "--listen", "127.0.0.1:0", "--credentials", google.folder / f"{kind}.json", *ways, *args]
        super().__init__(args, {}, "stdout")
        self.address = self.wait_for(lambda line: line.partition("GCE_METADATA_HOST=")[2])


@pytest.fixture(scope="module")
def google_endpoints(tmp_path_factory):
    with Google(tmp_path_factory.mktemp("credentials")) as google:
        yield google


def environment(server):
    return {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "GCE_METADATA_HOST": server.address,
        "GCE_METADATA_IP": server.address,
    }


def claims(google_endpoints, token):
    request = google.auth.transport.requests.Request()
    certs = google_endpoints.url("/oauth2/v1/certs")
    return google.oauth2.id_token.verify_token(token, request, audience=AUDIENCE, certs_url=certs)


KINDS = [
    ("service-account", [], Emulator.EMAIL),
    ("impersonated-service-account", [], TARGET),
    ("service-account", ["--impersonate-service-account", TARGET], TARGET),
    ("external-account-file", [], TARGET),
    ("external-account-url", [], TARGET),
    ("authorized-user", ["--impersonate-service-account", TARGET], TARGET),
    ("external-account-authorized-user", ["--impersonate-service-account", TARGET], TARGET),
]


@pytest.mark.parametrize("kind, args, account", KINDS)
def test_pythons_library_gets_real_tokens_of_the_credential(google_endpoints, kind, args, account):
    with RealTokens(google_endpoints, kind, *args) as server:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment(server), capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        _, email, access, token = json.loads(done.stdout)
        assert email == account
        assert access.startswith("ya29.") or access.count(".") == 2
        assert claims(google_endpoints, token)["email"] == account


@pytest.mark.parametrize("kind, args, account", KINDS)
def test_nodes_library_gets_real_tokens_of_the_credential(google_endpoints, kind, args, account, monkeypatch):
    with RealTokens(google_endpoints, kind, *args) as server:
        for name, value in environment(server).items():
            monkeypatch.setenv(name, value)
        printed = run("node", CLIENTS / "metadata.mjs", AUDIENCE, cwd=CLIENTS)
        email, access, token = json.loads(printed.splitlines()[-1])
        assert email == account
        assert access.startswith("ya29.") or access.count(".") == 2
        assert claims(google_endpoints, token)["email"] == account
