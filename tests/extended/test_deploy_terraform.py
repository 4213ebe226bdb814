"""deploy/terraform: checked without its provider, which only Terraform's own registry has.

`terraform validate` is not possible here. Names and types are compared with the API of the provider's resource.
"""

import json
import re
import shutil
import subprocess

import hcl2

from manifests import DEPLOY, check, google_schemas
from stage import TIMEOUT

MODULE = DEPLOY / "terraform"
TEXT = "\n".join(path.read_text() for path in sorted(MODULE.glob("*.tf")))


def plain(value):
    """Returns the value without the parser's quotes and marks."""
    if isinstance(value, dict):
        return {plain(key): plain(part) for key, part in value.items() if not key.startswith("__")}
    if isinstance(value, list):
        return [plain(part) for part in value]
    return value.strip('"') if isinstance(value, str) else value


def blocks(kind):
    for path in sorted(MODULE.glob("*.tf")):
        yield from plain(hcl2.loads(path.read_text())).get(kind, [])


VARIABLES = {name: body for block in blocks("variable") for name, body in block.items()}
RESOURCES = {(kind, name): body for block in blocks("resource") for kind, named in block.items() for name, body in named.items()}
SERVICE = RESOURCES["google_cloud_run_v2_service", "this"]


# Debian has no Terraform, so its formatter runs only if it is installed.
if TERRAFORM := shutil.which("terraform"):

    def test_terraform_has_nothing_to_format(tmp_path):
        done = subprocess.run(
            [TERRAFORM, f"-chdir={MODULE}", "fmt", "-check", "-diff"],
            capture_output=True, text=True, timeout=TIMEOUT, env={"HOME": str(tmp_path), "CHECKPOINT_DISABLE": "1"},
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_variable_is_described_and_used_and_every_reference_exists():
    assert all(body["description"] and body["type"] for body in VARIABLES.values())
    outside = re.sub(r'variable "[^"]+" \{.*?^\}', "", TEXT, flags=re.S | re.M)
    assert set(re.findall(r"\bvar\.(\w+)", outside)) == set(VARIABLES)
    code = re.sub(r"#.*", "", TEXT)
    for kind, name in re.findall(r"\b(google_\w+)\.(\w+)", code):
        assert (kind, name) in RESOURCES


def camel(name):
    return re.sub(r"_(\w)", lambda found: found[1].upper(), name)


def unknown(block, schema, schemas, place):
    """Returns attributes and nested blocks whose camel-case name the API's type does not have."""
    schema = schemas[schema["$ref"]] if "$ref" in schema else schema
    if schema.get("type") == "array":
        schema = schema["items"]
        schema = schemas[schema["$ref"]] if "$ref" in schema else schema
    if "additionalProperties" in schema:
        return
    for key, value in block.items():
        if key == "dynamic":
            for dynamic in value:
                for name, body in dynamic.items():
                    for content in body["content"]:
                        yield from unknown({name: [content]}, schema, schemas, place)
            continue
        inner = schema.get("properties", {}).get(camel(key))
        if inner is None:
            yield f"{place}.{key}"
            continue
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, dict):
                yield from unknown(part, inner, schemas, f"{place}.{key}")


def test_the_service_template_matches_the_api():
    schemas = google_schemas("run", "v2")
    template = {"$ref": "GoogleCloudRunV2RevisionTemplate"}
    assert list(unknown(SERVICE["template"][0], template, schemas, "template")) == []
    wrong = json.loads(json.dumps(SERVICE["template"][0]).replace("http_get", "http"))
    assert list(unknown(wrong, template, schemas, "template")) == [
        "template.containers.startup_probe.http", "template.containers.liveness_probe.http",
    ]


def test_the_account_gets_only_the_named_roles():
    assert SERVICE["template"][0]["service_account"] == "${google_service_account.this.email}"
    iam = {key: body for key, body in RESOURCES.items() if "iam" in key[0]}
    assert set(iam) == {
        ("google_cloud_run_v2_service_iam_member", "calls"), ("google_cloud_run_v2_service_iam_member", "invokers"),
        ("google_project_iam_member", "roles"),
    }
    # Grants by member keep other bindings. None exists by default.
    for (_, name), body in iam.items():
        assert body["for_each"] == f"${{var.{name}}}" and VARIABLES[name]["default"] in ({}, [])
    for name in ("calls", "invokers"):
        assert iam["google_cloud_run_v2_service_iam_member", name]["role"] == "roles/run.invoker"
    for name in ("calls", "roles"):
        (body,) = [body for (_, other), body in iam.items() if other == name]
        assert body["member"] == "${google_service_account.this.member}"
    assert not re.search(r"\ballUsers\b|\ballAuthenticatedUsers\b|invoker_iam_disabled", TEXT)


def test_the_sidecar_starts_first_and_accepts_its_arguments():
    app, sidecar = SERVICE["template"][0]["containers"]
    assert (app["depends_on"], sidecar["name"]) == (["sidentity"], "sidentity")
    assert sidecar["startup_probe"][0]["http_get"] == [{"path": "/startup", "port": 9090}]
    assert sidecar["liveness_probe"][0]["http_get"] == [{"path": "/liveness", "port": 9090}]
    assert '[for port, url in var.routes : "--route=${port}=${url}"]' in TEXT
    port, url = re.search(r'\{ (\d+) = \\"(\S+)\\" \}', VARIABLES["routes"]["description"]).groups()
    extra = re.search(r"--[\w=-]+", VARIABLES["sidentity_args"]["description"])[0]
    done = check([f"--route={port}={url}", extra], {"K_SERVICE": "shop"})
    assert done.returncode == 0, done.stderr
