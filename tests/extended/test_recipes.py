"""docs/recipes: runs the files and commands of each page with the emulator and replacements of the destinations."""

import ast
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import sys
from xml.etree import ElementTree

import jwt
import pytest
import requests
import yaml
from compose_spec import PyCompose

import go_proxy
from conftest import run
from git_upstream import GitUpstream
from managed_prometheus import ManagedPrometheus
from mcp_upstream import McpUpstream
from models import Models
from podman import Podman
from recipes import BLOCK, FILE, FOLDER, Recipe, call, in_background
from registry import Registry
from stage import TIMEOUT, WORK, Emulator, Process
from upstream import GrpcUpstream

BILLING = "billing-424242.us-central1.run.app"


def test_the_index_has_every_recipe():
    index = (FOLDER / "README.md").read_text()
    pages = {page.name for page in FOLDER.glob("*.md")} - {"README.md"}
    assert set(re.findall(r"\]\(([\w-]+\.md)\)", index)) == pages
    tests = pathlib.Path(__file__).read_text()
    assert all(f'"{page.removesuffix(".md")}"' in tests for page in pages)


def test_a_recipe_is_a_page_of_one_screen():
    for page in FOLDER.glob("*.md"):
        assert len(page.read_text().splitlines()) <= 60, page.name


def test_a_recipe_has_a_file_to_copy():
    for page in FOLDER.glob("*.md"):
        assert page.name == "README.md" or FILE.search(page.read_text()), page.name


# The files of these pages are for programs that are not started on the page.
READ_ELSEWHERE = {"environment.md", "managed-prometheus.md", "mcp.md"}


def test_a_file_precedes_the_commands_that_read_it():
    for page in FOLDER.glob("*.md"):
        text = page.read_text()
        files = list(FILE.finditer(text))
        # Of the same length, so that positions are those of the page.
        blocks = list(BLOCK.finditer(FILE.sub(lambda found: " " * len(found[0]), text)))
        for file in files:
            assert not [block for block in blocks if file[1] in block[1] and block.start() < file.start()], (page.name, file[1])
        if files and blocks and page.name not in READ_ELSEWHERE:
            assert blocks[-1].start() > files[-1].start(), page.name


@pytest.fixture
def page(emulator, certificates, tmp_path):
    """Prepares a page, with its destinations at this port."""

    def ready(name, port, *options):
        there = [("connect-to", f"*:443:127.0.0.1:{port}"), ("upstream-ca", certificates.ca)]
        return Recipe(name, tmp_path, emulator, [*there, *options])

    return ready


@pytest.fixture
def models(certificates):
    with Models(certificates) as models:
        models.go_on.set()
        yield models


def seen(printed):
    """Returns the calls that the upstream recorded."""
    return [json.loads(line) for line in printed.replace("}{", "}\n{").splitlines()]


# Model providers


@pytest.mark.parametrize("name", ["openai", "gemini"])
def test_an_sdk_of_a_model_provider_streams_with_a_placeholder(page, models, name):
    assert page(name, models.port).run().split() == ["first", "second"]
    (made,) = models.calls
    assert not made["keys"] and made["host"].endswith("aiplatform.googleapis.com")


ASKS = """
import OpenAI from "openai";
const asked = { model: "google/gemini-2.5-flash", messages: [{ role: "user", content: "Say hello." }] };
console.log((await new OpenAI().chat.completions.create(asked)).choices[0].message.content);
"""


def test_an_app_that_knows_only_its_environment_reaches_vertex(page, models):
    recipe = page("environment", models.port)
    program = WORK / "clients" / "environment.mjs"
    program.write_text(ASKS)
    assert recipe.run(f"set -a; . ./.env; set +a\nnode {program}\n") == "hello\n"
    (custom,) = yaml.safe_load(recipe.files["librechat.yaml"])["endpoints"]["custom"]
    assert custom["baseURL"] == recipe.url("8080") and custom["apiKey"] == "sidentity"
    assert models.calls[0]["path"].endswith("/endpoints/openapi/chat/completions")


# MCP


@pytest.fixture(scope="session")
def tools(certificates, emulator):
    with McpUpstream(certificates, emulator) as upstream:
        yield upstream


def mcp(recipe, tool, arguments):
    client = f"python {WORK / 'clients' / 'mcp_call.py'} .mcp.json {tool} '{json.dumps(arguments)}'\n"
    return recipe.run(client, timeout=110).split()


@pytest.fixture(scope="session")
def quiet_tools(certificates, emulator, tools, tmp_path_factory):
    """A call of a silent tool by each transport, started before all other tests of this file."""
    there = [("connect-to", f"*:443:127.0.0.1:{tools.port}"), ("upstream-ca", certificates.ca)]
    recipe = Recipe("mcp", tmp_path_factory.mktemp("mcp"), emulator, there)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        yield pool.submit(mcp, recipe, "think", {"seconds": 65})


def test_long_silent_mcp_calls_begin(quiet_tools):
    assert not quiet_tools.cancelled()


def test_an_mcp_client_calls_a_private_server_by_both_transports(page, tools):
    assert mcp(page("mcp", tools.port), "add", {"a": 2, "b": 3}) == ["5", "5"]
    assert tools.refused == 0


@pytest.mark.late
def test_mcp_tools_that_are_silent_for_65_s_answer(quiet_tools):
    assert quiet_tools.result(110) == ["done", "done"]


# Frameworks and languages


@pytest.mark.parametrize("name", ["requests", "go"])
def test_a_program_calls_a_service_and_an_api_through_the_proxy(page, upstream, go, name):
    recipe = page(name, upstream.port)
    recipe.env |= go
    printed = recipe.run()
    # Python's format of dictionaries.
    billing, storage = seen(printed) if name == "go" else map(ast.literal_eval, printed.splitlines())
    assert (billing["host"], billing["audience"]) == (BILLING, f"https://{BILLING}")
    assert storage["host"] == "storage.googleapis.com" and storage["token"].startswith("Bearer ya29.")


@pytest.fixture(scope="session")
def go(tmp_path_factory):
    """Go's settings, with Debian's packages instead of the public module proxy."""
    proxy = go_proxy.write(tmp_path_factory.mktemp("goproxy"))
    cache = WORK / "gocache"
    return {"GOPROXY": f"file://{proxy}", "GOSUMDB": "off", "GOFLAGS": "-modcacherw", "GOPATH": str(cache / "path"), "GOCACHE": str(cache)}


@pytest.mark.parametrize("name", ["django", "rails"])
def test_a_web_framework_returns_the_private_services_response(page, upstream, name):
    recipe = page(name, upstream.port)
    (answer,) = seen(recipe.run(call(recipe.url("8000") + "/"), edit=in_background))
    assert (answer["path"], answer["email"]) == ("/invoices", Emulator.EMAIL)


# Maven's central repository is not reachable in tests. Debian has a repository with Spring in another version.
MAVEN = f"""
sed -i 's|<version>7[.0-9]*</version>|<version>4.3.30.RELEASE</version>|' pom.xml
set -o pipefail
{shutil.which("mvn")} --batch-mode --settings /etc/maven/settings-debian.xml "$@" | sed 's/\\x1b\\[0m//g'
"""


def test_springs_rest_template_calls_a_private_service(page, upstream):
    recipe = page("spring", upstream.port)
    recipe.program("mvn", MAVEN)
    (answer,) = seen(recipe.run())
    assert (answer["path"], answer["audience"]) == ("/invoices/7", f"https://{BILLING}")


# No registry here has the SDK, but PyPI has the runtime, and Debian has a compiler.
DOTNET = """
[ "$1" = run ]
runtime=$(python -c 'import dotnetcore2.runtime as r; print(r.get_runtime_path())')
framework=$(dirname "$runtime")/shared/Microsoft.NETCore.App/3.1.23
references=$(printf -- "-r:$framework/%s.dll " System.Private.CoreLib System.Runtime System.Net.Http System.Console System.Private.Uri)
# The SDK compiles all files beside the project.
mcs -nostdlib -noconfig $references -out:Program.exe *.cs >&2
echo '{"runtimeOptions": {"framework": {"name": "Microsoft.NETCore.App", "version": "3.1.0"},
    "configProperties": {"System.Globalization.Invariant": true}}}' > Program.runtimeconfig.json
exec "$runtime" Program.exe
"""


def test_dotnets_http_client_calls_a_private_service(page, upstream):
    recipe = page("dotnet", upstream.port)
    (project,) = (ElementTree.fromstring(body) for name, body in recipe.files.items() if name.endswith(".csproj"))
    assert project.attrib == {"Sdk": "Microsoft.NET.Sdk"}
    (group,) = project
    settings = {setting.tag: setting.text for setting in group}
    assert group.tag == "PropertyGroup" and settings == {"OutputType": "Exe", "TargetFramework": "net8.0"}
    recipe.program("dotnet", DOTNET)
    (answer,) = seen(recipe.run())
    assert (answer["path"], answer["audience"]) == ("/invoices/7", f"https://{BILLING}")


def test_grpc_clients_in_python_and_go_call_a_private_service(page, go, certificates, emulator):
    with GrpcUpstream(certificates, emulator, "health-424242.us-central1.run.app") as upstream:
        recipe = page("grpc", upstream.port)
        recipe.env |= go
        printed = recipe.run()
    assert printed.split() == ["b'\\x08\\x01'", "status:SERVING", "<nil>"]


# Package managers and Git


@pytest.fixture
def packages(certificates):
    with Registry(certificates) as registry:
        yield registry


def test_pip_npm_and_a_container_engine_use_artifact_registry(page, packages, tmp_path):
    recipe = page("artifact-registry", packages.port)
    site = tmp_path / "site"
    recipe.env |= {
        "PIP_TARGET": str(site), "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_CACHE_DIR": "1",
        "npm_config_audit": "false", "npm_config_fund": "false",
    }  # fmt: skip
    with Podman() as engine:
        recipe.env["CONTAINERS_CONF"] = engine.env["CONTAINERS_CONF"]
        options = " ".join(map(str, engine.options))
        recipe.program("podman", f'exec {shutil.which("podman")} {options} "$@"')
        recipe.run()
        (image,) = json.loads(engine("images", "--format", "json"))
    assert image["Names"] == [f"localhost:{recipe.ports['8082']}/example-project/shop/app:1"]
    assert "from the registry" in (site / "shop_client.py").read_text()
    assert (tmp_path / "node_modules" / "shop-client" / "index.js").is_file()
    lock = json.loads((tmp_path / "package-lock.json").read_text())["packages"]["node_modules/shop-client"]
    assert lock["resolved"].startswith("https://us-central1-npm.pkg.dev/")
    # pip and npm have no password and did not ask for one.
    assert packages.refused == 0


def test_git_clones_from_a_private_server(page, certificates, emulator, tmp_path_factory, tmp_path):
    with GitUpstream(certificates, emulator, tmp_path_factory.mktemp("git")) as server:
        recipe = page("git", server.port)
        recipe.run()
        for clone in ("demo", "demo-by-route"):
            assert run("git", "-C", tmp_path / clone, "rev-parse", "HEAD").strip() == server.commit


# The source of the token, and its use


def test_a_call_through_iap_carries_a_token_for_its_client_id(page, upstream):
    (answer,) = seen(page("iap", upstream.port).run())
    claims = jwt.decode(answer["token"].removeprefix("Bearer "), options={"verify_signature": False})
    assert (answer["host"], answer["path"]) == ("reports.example.com", "/daily")
    assert claims["aud"] == "424242-abc.apps.googleusercontent.com" and claims["email"] == Emulator.EMAIL


def test_services_are_reached_by_their_names(page, upstream):
    first, elsewhere, routed = seen(page("service-names", upstream.port).run())
    assert first["host"] == routed["host"] == BILLING
    assert elsewhere["audience"] == "https://billing-424242.europe-west1.run.app"


@pytest.fixture
def google(tmp_path_factory):
    """The emulator with credential files: its address, its files, and options that redirect there."""
    files = tmp_path_factory.mktemp("google")
    with Emulator("--write-credentials", files) as emulator:
        yield emulator, files, [("connect-to", f"*:443:{emulator.address}"), ("upstream-ca", files / "ca.pem")]


def test_a_users_drive_is_read_by_delegation(google, tmp_path):
    emulator, files, there = google
    recipe = Recipe("workspace", tmp_path, emulator, [*there, ("credentials", files / "service-account.json")])
    answer = recipe.run()
    assert "jane@example.com" in answer and "auth/drive.readonly" in answer


def test_a_job_of_github_actions_calls_a_private_service_without_a_key(google, tmp_path):
    emulator, files, there = google
    recipe = Recipe("github-actions", tmp_path, emulator, there)
    del recipe.env["GCE_METADATA_HOST"]
    # The variables that Google's action sets.
    recipe.env["GOOGLE_APPLICATION_CREDENTIALS"] = str(files / "external-account-url.json")
    workflow = yaml.safe_load(recipe.files[".github/workflows/smoke.yaml"])
    assert workflow["permissions"]["id-token"] == "write"
    auth, install, smoke = workflow["jobs"]["smoke"]["steps"]
    assert install["env"] == {"AWS_LC_SYS_NO_JITTER_ENTROPY": "1"}
    assert auth["uses"].startswith("google-github-actions/auth@") and install["run"].startswith("cargo install --locked")
    (claims,) = seen(recipe.run(smoke["run"] + "\n"))
    assert f"https://{BILLING}" in json.dumps(claims), claims


ADC = """
import google.auth, google.auth.transport.requests
credentials, _ = google.auth.default()
credentials.refresh(google.auth.transport.requests.Request())
print(credentials.service_account_email, credentials.token)
"""


def test_compose_provides_real_tokens(google, tmp_path):
    emulator, files, there = google
    recipe = Recipe("compose", tmp_path, emulator, there)
    text = recipe.files["compose.yaml"]
    # Compose expands the home directory before it reads a volume.
    PyCompose.from_yaml(text.replace("~", "/home/jane")).validate()
    services = yaml.safe_load(text)["services"]
    assert services["sidentity"]["network_mode"] == services["app"]["network_mode"] == "service:metadata"
    (mount,) = services["metadata"]["volumes"]
    assert mount.endswith(":/adc.json:ro")
    # The account that the emulator lets this login impersonate, with the emulator instead of Google.
    swaps = {"/adc.json": str(files / "authorized-user.json"), "dev-shop@": "target@"}
    command = [re.sub("|".join(swaps), lambda found: swaps[found[0]], word) for word in services["metadata"]["command"]]
    command += [f"--{option}={value}" for option, value in there]
    with Process(command, {}, "stdout") as metadata:
        metadata.wait_for(lambda line: re.search("GCE_METADATA_HOST=", line))
        host = services["app"]["environment"]["GCE_METADATA_HOST"]
        account = f"http://{host}/computeMetadata/v1/instance/service-accounts/default"
        flavor = {"Metadata-Flavor": "Google"}
        assert requests.get(f"{account}/email", headers=flavor, timeout=TIMEOUT).text.startswith("target@")
        # Google's own library, with nothing but the variables of the page.
        env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"} | services["app"]["environment"]
        assert run(sys.executable, "-c", ADC, env=env).startswith("target@")
        recipe.env["GCE_METADATA_HOST"] = services["sidentity"]["environment"]["GCE_METADATA_HOST"]
        started = f"sidentity {' '.join(services['sidentity']['command'])} &\nsidentity wait\n"
        url = services["app"]["environment"]["BILLING_URL"]
        claims = recipe.run(started + call(f"{url}/"), edit=lambda _: "")
    assert "target@" in claims and f"https://{BILLING}" in claims


def test_promtool_and_grafana_query_managed_prometheus(page, certificates, prometheus):
    recipe = page("managed-prometheus", prometheus.port)
    (source,) = yaml.safe_load(recipe.files["datasource.yaml"])["datasources"]
    assert source["url"] == recipe.url("8080")
    printed = recipe.run(call(f"{source['url']}/api/v1/query?query=up"))
    assert "=> 1 @" in printed and '"status":"success"' in printed


@pytest.fixture
def prometheus(certificates, tmp_path_factory):
    with ManagedPrometheus(certificates, tmp_path_factory.mktemp("prometheus")) as server:
        yield server
