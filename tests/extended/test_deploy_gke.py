"""deploy/gke: checked with the schemas of the API, and with the requests of a kubelet and Prometheus."""

import copy

import kubernetes_validate
import pytest
import requests
import yaml

import manifests
from manifests import DEPLOY, documents, pod_spec, sidecars
from stage import TIMEOUT

# The first release with native sidecars without a feature gate, and the newest release of the schemas.
VERSIONS = ["1.29", kubernetes_validate.latest_version()]
FILES = sorted(DEPLOY.glob("gke/*.yaml"))
DOCUMENTS = [document for path in FILES for document in documents(path)]
WORKLOADS = [document for document in DOCUMENTS if document["kind"] in ("Deployment", "Job")]
POD_IP = "10.4.0.7"

workloads = pytest.mark.parametrize("document", WORKLOADS, ids=lambda document: document["kind"])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document["kind"])
def test_kubernetes_accepts_the_file(document, version):
    kubernetes_validate.validate(document, version, strict=True)


def test_a_key_unknown_to_kubernetes_is_found():
    wrong = copy.deepcopy(WORKLOADS[0])
    pod_spec(wrong)["initContainers"][0]["restartpolicy"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


@workloads
def test_it_is_an_unprivileged_native_sidecar_with_its_own_probes(document):
    spec = pod_spec(document)
    (sidecar,) = sidecars(spec)
    assert spec["initContainers"] == [sidecar] and sidecar["restartPolicy"] == "Always"
    (port,) = sidecar["ports"]
    for kind, path in {"startupProbe": "/startup", "livenessProbe": "/liveness", "readinessProbe": "/readiness"}.items():
        if kind in sidecar:
            assert sidecar[kind]["httpGet"] == {"path": path, "port": port["name"]}
    assert "startupProbe" in sidecar and (document["kind"] == "Job" or "livenessProbe" in sidecar)
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] == 65532
    for container in [sidecar, *spec["containers"]]:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
        assert context["capabilities"] == {"drop": ["ALL"]}


@workloads
def test_its_account_is_a_google_account_by_workload_identity(document):
    (account,) = [document for document in DOCUMENTS if document["kind"] == "ServiceAccount"]
    assert account["metadata"]["annotations"]["iam.gke.io/gcp-service-account"] == manifests.VALUES["ACCOUNT"]
    assert pod_spec(document)["serviceAccountName"] == account["metadata"]["name"]
    assert document["metadata"]["namespace"] == account["metadata"]["namespace"]
    # The binding in the comment is for this account.
    member = f"svc.id.goog[{account['metadata']['namespace']}/{account['metadata']['name']}]"
    assert member in (DEPLOY / "gke" / "deployment.yaml").read_text()


def arguments(document):
    """Returns the sidecar's arguments."""
    (sidecar,) = sidecars(pod_spec(document))
    return sidecar["args"]


@workloads
def test_the_sidecar_accepts_its_arguments(document):
    done = manifests.check(arguments(document), {})
    assert done.returncode == 0, done.stderr
    effective = yaml.safe_load(done.stdout)
    (sidecar,) = sidecars(pod_spec(document))
    assert effective["admin"]["listen"] == f"0.0.0.0:{sidecar['ports'][0]['containerPort']}"
    listening = [str(route["listen"]) for route in effective["routes"]]
    for container in pod_spec(document)["containers"]:
        for value in manifests.environment(container).values():
            assert value.removeprefix("http://localhost:") in listening


def test_the_kubelet_and_prometheus_call_it_by_the_pods_address(start):
    args = [arg for arg in arguments(WORKLOADS[0]) if not arg.startswith(("--admin", "--route"))]
    with start(*args) as sidecar, requests.Session() as session:
        session.trust_env = False
        for path in ("startup", "readiness", "liveness", "metrics"):
            answer = session.get(f"http://{sidecar.admin}/{path}", headers={"Host": f"{POD_IP}:9090"}, timeout=TIMEOUT)
            assert answer.status_code == 200, path


def test_only_prometheus_reaches_the_admin_port_from_outside_the_node():
    (policy,) = [document["spec"] for document in DOCUMENTS if document["kind"] == "NetworkPolicy"]
    assert policy["policyTypes"] == ["Ingress"]
    (selected,) = policy["podSelector"]["matchExpressions"]
    labels = [document["spec"]["template"]["metadata"]["labels"]["app"] for document in WORKLOADS]
    assert selected == {"key": "app", "operator": "In", "values": labels}
    for rule in policy["ingress"]:
        ports = [port["port"] for port in rule["ports"]]
        assert ports == ([9090] if "from" in rule else ["http"])
