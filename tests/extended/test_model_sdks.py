"""SDKs of model providers that require a key: they get a placeholder, and Vertex AI gets the token."""

import json
import os
import subprocess
import sys

import openai
import pytest

from models import Models
from stage import BINARY, ROOT, WORK, Sidecar

CLIENTS = WORK / "clients"
SDK = ROOT / "tests" / "extended" / "clients" / "sdk.py"
NODE = CLIENTS / "node_modules" / ".bin" / "node"

OPENAPI = "/v1/projects/p/locations/us-central1/endpoints/openapi"
CENTRAL = "https://us-central1-aiplatform.googleapis.com"
# The start arguments of each client, its upstream, and the base URL's path.
CLIENT = {
    "openai-python": ([sys.executable, SDK, "openai"], CENTRAL + OPENAPI, ""),
    "openai-node": ([NODE, CLIENTS / "openai.mjs"], CENTRAL + OPENAPI, ""),
    "google-genai": ([sys.executable, SDK, "genai"], "https://aiplatform.googleapis.com", ""),
    "anthropic-vertex": ([sys.executable, SDK, "anthropic"], "https://us-east5-aiplatform.googleapis.com", "/v1"),
}


@pytest.fixture
def models(certificates):
    with Models(certificates) as models:
        yield models


def talk(models, command, env):
    """Runs a client that must show the first event of a stream before the second is sent."""
    command = [str(part) for part in command]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as child:
        shown = [child.stdout.readline().strip() for _ in range(2)]
        models.go_on.set()
        rest, complaints = child.communicate()
    assert child.returncode == 0, complaints
    assert shown + rest.split() == ["hello", "first", "second"]
    assert [call["keys"] for call in models.calls] == [[], []]
    return {call["host"] + call["path"] for call in models.calls}


def there(models, certificates):
    return ["--connect-to", f"*:443:127.0.0.1:{models.port}", "--upstream-ca", str(certificates.ca)]


@pytest.mark.parametrize("client", CLIENT)
def test_the_sdk_needs_only_a_placeholder_and_a_route(models, emulator, certificates, client, tmp_path):
    command, upstream, base = CLIENT[client]
    route = f"127.0.0.1:0={upstream}"
    with Sidecar(emulator, "--route", route, *there(models, certificates)) as sidecar:
        url = f"http://{sidecar.routes[0]}{base}"
        called = talk(models, [*command, url], {"PATH": os.environ["PATH"], "HOME": str(tmp_path)})
    assert all(call.startswith(upstream.removeprefix("https://")) for call in called), called


@pytest.mark.parametrize("client", CLIENT)
def test_under_exec_the_sdk_needs_only_a_placeholder(models, emulator, certificates, client, tmp_path):
    command, upstream, base = CLIENT[client]
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "XDG_RUNTIME_DIR": str(tmp_path),
        "GCE_METADATA_HOST": emulator.address,
    }
    wrapped = [BINARY, "exec", *there(models, certificates), "--", *command]
    # The SDKs of Vertex AI know the host themselves.
    called = talk(models, wrapped if "openai" not in client else [*wrapped, upstream], env)
    assert all(call.startswith(upstream.removeprefix("https://")) for call in called), called


def test_a_real_key_that_vertex_refuses_is_logged(models, emulator, certificates):
    route = f"127.0.0.1:0={CENTRAL}{OPENAPI}"
    with Sidecar(emulator, "--route", route, *there(models, certificates)) as sidecar:
        client = openai.OpenAI(base_url=f"http://{sidecar.routes[0]}", api_key="sk-real", max_retries=0)
        with pytest.raises(openai.AuthenticationError):
            client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
        line = sidecar.wait_for(lambda line: "existing=replace" in line and json.loads(line))
    assert line["destination"] == CENTRAL and "placeholder" in line["message"]
    assert "sk-real" not in "\n".join(sidecar.lines)
