"""`sidentity exec`: clients with their own variables for proxies and certificates."""

import json
import shutil
import sys

import pytest

from conftest import run
from stage import Emulator
from test_exec import (
    API, CLIENTS, COMMANDS, GRPC, OTHERS, PRIVATE, env, git_server, git_upstream, objects, printed, wrapped,
)  # fmt: skip

__all__ = ["env", "git_server", "printed", "wrapped"]

NODE = CLIENTS / "node_modules/.bin/node"
# No process listens there.
ELSEWHERE = "http://127.0.0.1:9"

GOOGLE_API_CLIENT = """
import json
from google.auth.credentials import AnonymousCredentials
from googleapiclient.discovery import build
print(json.dumps(build("storage", "v1", credentials=AnonymousCredentials()).buckets().list(project="p").execute()))
"""


def test_google_api_python_client_with_anonymous_credentials_is_authenticated(printed):
    seen = json.loads(printed(sys.executable, "-c", GOOGLE_API_CLIENT))
    assert (seen["host"], seen["path"]) == ("storage.googleapis.com", "/storage/v1/b")
    assert seen["token"].startswith("Bearer ya29.")


def test_grpc_js_calls_a_private_service(printed):
    printed(NODE, CLIENTS / "grpc.mjs", "grpc.a.run.app:443", "tls")


def test_npms_ws_ignores_every_proxy_by_itself(printed, upstream):
    before = upstream.counts["/ws"]
    assert printed(NODE, CLIENTS / "websocket.mjs", "alone", "wss://svc.a.run.app/ws") == "looks up svc.a.run.app\n"
    assert upstream.counts["/ws"] == before


@pytest.mark.parametrize("node", [NODE, "node"])
def test_npms_ws_with_https_proxy_agent_is_authenticated(printed, node):
    assert printed(node, CLIENTS / "websocket.mjs", "agent", "wss://svc.a.run.app/ws") == "hello\n"


# Only Google's own registry has it.
with_gcloud = pytest.mark.skipif(shutil.which("gcloud") is None, reason="gcloud is not installed")


@pytest.fixture
def gcloud(env, tmp_path):
    """gcloud without existing credentials and settings."""
    env["CLOUDSDK_AUTH_DISABLE_CREDENTIALS"] = "true"
    env["CLOUDSDK_CONFIG"] = str(tmp_path / "gcloud")
    env["CLOUDSDK_CORE_DISABLE_USAGE_REPORTING"] = "true"
    env["CLOUDSDK_CORE_PROJECT"] = "p"
    return env


@with_gcloud
@pytest.mark.parametrize("own_proxy", [False, True])
def test_gcloud_without_credentials_is_authenticated(printed, gcloud, own_proxy):
    if own_proxy:
        gcloud |= {"CLOUDSDK_PROXY_TYPE": "http", "CLOUDSDK_PROXY_ADDRESS": "127.0.0.1", "CLOUDSDK_PROXY_PORT": "9"}
    seen = json.loads(printed("gcloud", "projects", "describe", "p", "--format=json"))
    assert (seen["host"], seen["path"]) == ("cloudresourcemanager.googleapis.com", "/v1/projects/p")
    assert seen["token"].startswith("Bearer ya29.")


@with_gcloud
def test_gcloud_storage_passes_through(printed, gcloud, upstream):
    before = upstream.counts["/storage/v1/b"]
    assert json.loads(printed("gcloud", "storage", "buckets", "list", "--format=json")) == []
    assert upstream.counts["/storage/v1/b"] > before


def test_grpcs_own_proxy_setting_does_not_bypass_the_sidecar(printed, env):
    env |= {"grpc_proxy": ELSEWHERE, "no_grpc_proxy": "*"}
    assert printed(sys.executable, "-c", GRPC).startswith(f"hello {Emulator.EMAIL}")
    printed(NODE, CLIENTS / "grpc.mjs", "grpc.a.run.app:443", "tls")


def test_npms_own_proxy_setting_does_not_bypass_the_sidecar(printed, env, upstream):
    env |= {"npm_config_https_proxy": ELSEWHERE, "npm_config_proxy": ELSEWHERE, "npm_config_noproxy": "a.run.app"}
    npm = ["npm", "view", "--fetch-retries=0", "--registry", "https://svc.a.run.app/", "--json", "package-of-npm"]
    before = upstream.counts["/package-of-npm"]
    printed(*npm)
    assert upstream.counts["/package-of-npm"] > before


def test_pips_own_proxy_setting_does_not_bypass_the_sidecar(wrapped, env, upstream):
    import subprocess

    env |= {"PIP_PROXY": ELSEWHERE, "PIP_RETRIES": "0"}
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--index-url", "https://svc.a.run.app/simple"]
    before = upstream.counts["/simple/package-of-pip/"]
    # The service has no packages.
    subprocess.run(wrapped(*pip, "package-of-pip"), env=env, capture_output=True, timeout=100)
    assert upstream.counts["/simple/package-of-pip/"] > before


@pytest.mark.parametrize("key", ["http.proxy", f"http.https://{git_upstream.HOST}/.proxy"])
def test_gits_own_proxy_setting_does_not_bypass_the_sidecar(printed, env, git_server, tmp_path, key):
    env |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": key, "GIT_CONFIG_VALUE_0": ELSEWHERE}
    out = tmp_path / "clone"
    printed("git", "clone", "-q", f"https://{git_upstream.HOST}/demo.git", out)
    assert run("git", "-C", out, "rev-parse", "HEAD").strip() == git_server.commit


@pytest.mark.parametrize(
    "client, variable",
    [
        ("curl", "CURL_CA_BUNDLE"),
        ("requests", "REQUESTS_CA_BUNDLE"),
        ("httplib2", "HTTPLIB2_CA_CERTS"),
        ("lwp", "PERL_LWP_SSL_CA_FILE"),
        ("node-fetch", "NODE_EXTRA_CA_CERTS"),
        # A certificate that one client trusts is trusted by all.
        ("java-HttpClient", "AWS_CA_BUNDLE"),
        ("urllib", "NODE_EXTRA_CA_CERTS"),
    ],
)
def test_a_companys_own_authority_stays_trusted(printed, env, client, variable):
    env[variable] = env.pop("SSL_CERT_FILE")
    private, api, other = objects(printed(*COMMANDS[client], PRIVATE, API, OTHERS[0]))
    assert private["audience"] == "https://svc.a.run.app"
    assert api["token"].startswith("Bearer ya29.")
    assert (other["host"], other["token"]) == ("www.example.com", "")
