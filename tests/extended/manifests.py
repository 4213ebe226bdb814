"""Reads the files of deploy/ after the substitutions of docs/cloud-run.md."""

import importlib.resources
import json
import re
import subprocess

import yaml

from stage import BINARY, TIMEOUT, ROOT

DEPLOY = ROOT / "deploy"
CLOUD_RUN = sorted(DEPLOY.glob("cloudrun/*.yaml")) + [DEPLOY / "cloudrun" / "monitoring" / "service.yaml"]

# The variable that tells a program that it runs on Cloud Run.
PLACES = {"Service": "K_SERVICE", "Job": "CLOUD_RUN_JOB", "WorkerPool": "CLOUD_RUN_WORKER_POOL"}

# The variables that docs/cloud-run.md exports.
VALUES = {
    "ACCOUNT": "shop-runner@example-project.iam.gserviceaccount.com",
    "APP_IMAGE": "europe-west1-docker.pkg.dev/example-project/shop/app:1",
    "BILLING_HOST": "billing-k5x2qeq7la-ew.a.run.app",
    "BILLING_URL": "https://billing-k5x2qeq7la-ew.a.run.app",
    "PROJECT": "example-project",
    "REGION": "europe-west1",
    "SIDENTITY_IMAGE": "europe-west1-docker.pkg.dev/example-project/shop/sidentity:1",
}


def substituted(text):
    """Substitutes like envsubst. A variable without a value is an error."""
    return re.sub(r"\$\{(\w+)\}", lambda found: VALUES[found[1]], text)


def documents(path):
    return [document for document in yaml.safe_load_all(substituted(path.read_text())) if document]


def pod_spec(document):
    """Returns the part with `containers` of a service, a job, or a Kubernetes object."""
    spec = document["spec"]
    while "containers" not in spec:
        spec = spec["template"]["spec"]
    return spec


def sidecars(spec):
    """Returns the containers that run our image."""
    containers = spec.get("initContainers", []) + spec["containers"]
    return [container for container in containers if container["image"].rpartition("/")[2].startswith("sidentity")]


def environment(container):
    return {entry["name"]: entry["value"] for entry in container.get("env", [])}


def dependencies(document):
    """Returns the dependencies between containers, from the annotation."""
    annotations = document["spec"]["template"]["metadata"]["annotations"]
    return json.loads(annotations["run.googleapis.com/container-dependencies"])


def start_order(document):
    """Returns the containers, each after its dependencies."""
    waits, order = dependencies(document), []
    remaining = [container["name"] for container in pod_spec(document)["containers"]]
    while remaining:
        ready = [name for name in remaining if set(waits.get(name, [])) <= set(order)]
        assert ready, f"{remaining} wait for each other: {waits}"
        order += ready
        remaining = [name for name in remaining if name not in ready]
    return order


def check(args, env, folders=None):
    """Runs `sidentity check --all` with a container's arguments. `folders` replace its mounted directories."""
    for place, folder in (folders or {}).items():
        args = [arg.replace(f"={place}", f"={folder}") for arg in args]
    args = [arg for arg in args if arg != "run"]
    return subprocess.run(
        [BINARY, "check", "--all", *args], capture_output=True, text=True, timeout=TIMEOUT, env=env, stdin=subprocess.DEVNULL
    )


def google_schemas(api, version):
    """Returns the types of a Google API from its published discovery document."""
    name = f"discovery_cache/documents/{api}.{version}.json"
    text = importlib.resources.files("googleapiclient").joinpath(name).read_text()
    return json.loads(text)["schemas"]


def violations(value, schema, schemas, place="."):
    """Returns the faults of a value by a discovery document: unknown keys, wrong types, keys that Cloud Run does not
    support."""
    if "$ref" in schema:
        about, schema = schema, schemas[schema["$ref"]]
        if "Not supported by Cloud Run" in about.get("description", ""):
            yield f"{place}: not supported"
    if "Not supported by Cloud Run" in schema.get("description", ""):
        yield f"{place}: not supported"
    kind = schema.get("type")
    if kind == "object" and isinstance(value, dict):
        for key, part in value.items():
            inner = schema.get("properties", {}).get(key) or schema.get("additionalProperties")
            if inner is None:
                yield f"{place}.{key}: unknown"
            else:
                yield from violations(part, inner, schemas, f"{place}.{key}")
    elif kind == "array" and isinstance(value, list):
        for index, part in enumerate(value):
            yield from violations(part, schema["items"], schemas, f"{place}[{index}]")
    else:
        types = {"string": str, "integer": int, "boolean": bool, "number": (int, float)}
        if kind not in types or not isinstance(value, types[kind]) or (kind == "integer" and value is True):
            yield f"{place}: {value!r} is no {kind}"
