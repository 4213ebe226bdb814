"""deploy/cloudrun: checked with the API's published types, and by the sidecar's `check` of its arguments."""

import copy

import pytest
import requests
import yaml

import manifests
from manifests import CLOUD_RUN, DEPLOY, documents, google_schemas, pod_spec, sidecars, start_order, violations
from stage import TIMEOUT

KINDS = {"Service": "serving.knative.dev/v1", "Job": "run.googleapis.com/v1", "WorkerPool": "run.googleapis.com/v1"}

files = pytest.mark.parametrize("path", CLOUD_RUN, ids=lambda path: str(path.relative_to(DEPLOY / "cloudrun")))


@pytest.fixture(scope="module")
def schemas():
    return google_schemas("run", "v1")


@files
def test_cloud_run_accepts_the_file(path, schemas):
    (document,) = documents(path)
    assert KINDS[document["kind"]] == document["apiVersion"]
    assert not list(violations(document, schemas[document["kind"]], schemas))


def test_a_key_unknown_to_cloud_run_is_found(schemas):
    (document,) = documents(CLOUD_RUN[-1])
    wrong = copy.deepcopy(document)
    container = pod_spec(wrong)["containers"][0]
    container |= {"dependsOn": ["sidentity"], "startupProbe": {"httpGet": {"host": "x", "port": "9090"}}}
    found = "\n".join(violations(wrong, schemas["Service"], schemas))
    for place in ("dependsOn: unknown", "host: not supported", "port: '9090' is no integer"):
        assert place in found


@files
def test_the_sidecar_starts_first_with_its_own_probes(path):
    (document,) = documents(path)
    spec = pod_spec(document)
    (sidecar,) = sidecars(spec)
    assert start_order(document)[0] == sidecar["name"]
    # A dependency without a startup probe waits only for the process, not for its listeners.
    depended = {name for names in manifests.dependencies(document).values() for name in names}
    for container in spec["containers"]:
        if container["name"] in depended:
            assert container["startupProbe"]
    probes = [sidecar["startupProbe"]] + ([sidecar["livenessProbe"]] if document["kind"] != "Job" else [])
    for probe, wanted in zip(probes, ["/startup", "/liveness"]):
        assert (probe["httpGet"]["path"], probe["httpGet"]["port"]) == (wanted, 9090)
        # Cloud Run requires a timeout (default 1 s) of at most the period, and a start within 240 s.
        assert probe["periodSeconds"] >= probe.get("timeoutSeconds", 1)
        assert probe["periodSeconds"] * probe.get("failureThreshold", 3) <= 240
    # Only the app receives external requests.
    assert [c["name"] for c in spec["containers"] if "ports" in c] == (["app"] if document["kind"] == "Service" else [])


@files
def test_the_sidecar_accepts_its_arguments(path, tmp_path):
    (document,) = documents(path)
    (sidecar,) = sidecars(pod_spec(document))
    folders = {mount["mountPath"]: tmp_path for mount in sidecar.get("volumeMounts", [])}
    done = manifests.check(sidecar["args"], {manifests.PLACES[document["kind"]]: "shop"} | manifests.environment(sidecar), folders)
    assert done.returncode == 0, done.stderr
    effective = yaml.safe_load(done.stdout)
    assert "# listen: 0.0.0.0:9090 (computed on this machine)" in done.stdout
    for container in pod_spec(document)["containers"]:
        for name, value in manifests.environment(container).items():
            if name.lower() in ("http_proxy", "https_proxy"):
                assert effective["proxy"]["listen"] == "127.0.0.1:3128" and value == "http://localhost:3128"
            elif value.startswith("http://localhost:"):
                assert value.removeprefix("http://localhost:") in [str(route["listen"]) for route in effective["routes"]]


# The keys of confgenerator/config.go in GoogleCloudPlatform/run-gmp-sidecar, which refuses others.
ENDPOINT = {"port", "scheme", "path", "params", "proxyUrl", "interval", "timeout", "metricRelabeling"}


def test_the_collector_accepts_its_configuration_and_scrapes_the_sidecar():
    (config,) = documents(DEPLOY / "cloudrun" / "monitoring" / "run-monitoring.yaml")
    assert (config["apiVersion"], config["kind"]) == ("monitoring.googleapis.com/v1beta", "RunMonitoring")
    assert set(config) == {"apiVersion", "kind", "metadata", "spec"} and set(config["spec"]) <= {"endpoints", "targetLabels", "limits"}
    assert all(set(endpoint) <= ENDPOINT for endpoint in config["spec"]["endpoints"])
    assert {"port": "9090", "path": "/metrics", "interval": "30s"} in config["spec"]["endpoints"]
    assert set(config["spec"]["targetLabels"]["metadata"]) <= {"instance", "revision", "service", "configuration"}
    (service,) = documents(DEPLOY / "cloudrun" / "monitoring" / "service.yaml")
    assert start_order(service)[-1] == "collector"


def test_the_collector_gets_metrics_by_the_address_that_it_calls(start):
    """The collector's confgenerator uses 0.0.0.0:PORT as the target, and so as Host."""
    (service,) = documents(DEPLOY / "cloudrun" / "monitoring" / "service.yaml")
    (sidecar,) = sidecars(pod_spec(service))
    args = [arg for arg in sidecar["args"] if not arg.startswith("--route=")]
    # The admin port accepts any address as Host, because DNS cannot rebind an address.
    with start(*args) as started, requests.Session() as session:
        session.trust_env = False
        answer = session.get(f"http://{started.admin}/metrics", headers={"Host": "0.0.0.0:9090"}, timeout=TIMEOUT)
        assert answer.status_code == 200
