"""deploy/kubernetes: rendered by kustomize, and checked with the schemas of the API and by the sidecar."""

import ipaddress
import re
import subprocess

import kubernetes_validate
import pytest
import requests
import yaml

import manifests
from manifests import DEPLOY, pod_spec, sidecars
from stage import TIMEOUT

FOLDER = DEPLOY / "kubernetes"
# The first release with native sidecars without a feature gate, and the newest release of the schemas.
VERSIONS = ["1.29", kubernetes_validate.latest_version()]
# The types of the Prometheus operators: group, list of endpoints, and its used keys.
MONITORS = {
    "PodMonitoring": ("monitoring.googleapis.com/v1", "endpoints"),
    "PodMonitor": ("monitoring.coreos.com/v1", "podMetricsEndpoints"),
}
METRICS = {"sidentity.github.io/metrics": "true"}


def rendered(folder):
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="module")
def example():
    return rendered(FOLDER / "example")


@pytest.fixture(scope="module")
def standalone():
    caller = yaml.safe_load((FOLDER / "standalone" / "caller-policy.yaml").read_text())
    return [*rendered(FOLDER / "standalone"), caller]


@pytest.fixture(scope="module", params=["example", "standalone"])
def layout(request):
    return request.getfixturevalue(request.param)


def of(documents, kind, name=None):
    (found,) = [d for d in documents if d["kind"] == kind and name in (None, d["metadata"]["name"])]
    return found


def test_kubernetes_accepts_every_file(layout):
    for document in layout:
        if document["kind"] in MONITORS:
            continue
        for version in VERSIONS:
            kubernetes_validate.validate(document, version, strict=True)


def test_the_component_only_adds_the_sidecar_to_a_deployment(tmp_path):
    plain = {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "other"},
        "spec": {
            "selector": {"matchLabels": {"app": "other"}},
            "template": {
                "metadata": {"labels": {"app": "other"}},
                "spec": {
                    "initContainers": [{"name": "migrate", "image": "example.com/migrate:1"}],
                    "containers": [{"name": "web", "image": "example.com/web:1"}, {"name": "log", "image": "example.com/log:1"}],
                    "volumes": [{"name": "data", "emptyDir": {}}],
                },
            },
        },
    }
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(plain))
    (tmp_path / "sidentity.yaml").write_text("routes: [\"8081=https://billing-424242.europe-west1.run.app\"]\n")
    for name in ("sidecar", "monitoring-operator"):
        (tmp_path / name).symlink_to(FOLDER / name)
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump({
        "resources": ["other.yaml"], "components": ["sidecar", "monitoring-operator"],
        "configMapGenerator": [{"name": "sidentity", "files": ["sidentity.yaml"]}],
    }))
    documents = rendered(tmp_path)
    made = of(documents, "Deployment", "other")
    for version in VERSIONS:
        kubernetes_validate.validate(made, version, strict=True)
    spec, before = pod_spec(made), pod_spec(plain)
    assert spec["containers"] == before["containers"]
    (sidecar,) = sidecars(spec)
    # First, so that an app's init container may call through it.
    assert spec["initContainers"] == [sidecar, *before["initContainers"]] and sidecar["restartPolicy"] == "Always"
    (volume,) = [volume for volume in spec["volumes"] if volume not in before["volumes"]]
    # The name contains the content's hash, so that a new configuration starts new pods.
    assert volume["configMap"]["name"] == of(documents, "ConfigMap")["metadata"]["name"] != "sidentity"
    assert made["spec"]["template"]["metadata"]["labels"] == {"app": "other"} | METRICS
    assert made["spec"]["selector"] == plain["spec"]["selector"]


def test_the_pods_have_no_privileges_and_the_probes_are_the_sidecars(layout):
    spec = pod_spec(of(layout, "Deployment"))
    (sidecar,) = sidecars(spec)
    ports = {port["name"]: port["containerPort"] for port in sidecar["ports"]}
    assert ports["sidentity"] == 9090
    for kind, path in {"startupProbe": "/startup", "livenessProbe": "/liveness", "readinessProbe": "/readiness"}.items():
        assert sidecar[kind]["httpGet"] == {"path": path, "port": "sidentity"}
    for container in spec.get("initContainers", []) + spec["containers"]:
        context = spec["securityContext"] | container["securityContext"]
        assert context["runAsNonRoot"] and context["runAsUser"] == 65532
        assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
        assert context["capabilities"] == {"drop": ["ALL"]} and context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["resources"]["requests"] and container["resources"]["limits"]["memory"]
    assert spec["automountServiceAccountToken"] is False


def arguments(documents, tmp_path):
    """Returns the arguments and variables of the sidecar after Kubernetes' substitutions."""
    (sidecar,) = sidecars(pod_spec(of(documents, "Deployment")))
    data = of(documents, "ConfigMap")["data"]
    (mount,) = sidecar["volumeMounts"]
    for name, text in data.items():
        (tmp_path / name).write_text(text)
    args = [arg.replace(mount["mountPath"], str(tmp_path)) for arg in sidecar["args"]]
    assert not any("$(" in arg for arg in args)
    env = {e["name"]: "caller:secret" for e in sidecar.get("env", []) if "secretKeyRef" in e["valueFrom"]}
    return args, env


def test_the_sidecar_accepts_its_arguments_and_its_file(layout, tmp_path):
    args, env = arguments(layout, tmp_path)
    done = manifests.check(args, env)
    assert done.returncode == 0 and not done.stderr, done.stderr
    effective = yaml.safe_load(done.stdout)
    assert effective["admin"]["listen"] == "0.0.0.0:9090"


def test_the_app_calls_the_address_that_the_sidecar_listens_on(example, tmp_path):
    args, env = arguments(example, tmp_path)
    effective = yaml.safe_load(manifests.check(args, env).stdout)
    (app,) = pod_spec(of(example, "Deployment"))["containers"]
    (route,) = effective["routes"]
    assert f"http://{route['listen'].replace('127.0.0.1', 'localhost')}" == manifests.environment(app)["BILLING_URL"]
    account = of(example, "ServiceAccount")
    member = f"svc.id.goog[{account['metadata']['namespace']}/{account['metadata']['name']}]"
    assert member in (FOLDER / "example" / "deployment.yaml").read_text()


def test_metrics_are_scraped_where_the_sidecar_has_them(example):
    monitors = [of(example, "PodMonitoring"), yaml.safe_load((FOLDER / "monitoring-operator" / "monitoring.yaml").read_text())]
    for monitor in monitors:
        version, endpoints = MONITORS[monitor["kind"]]
        assert monitor["apiVersion"] == version and set(monitor["spec"]) == {"selector", endpoints}
        assert monitor["spec"]["selector"] == {"matchLabels": METRICS}
        assert monitor["spec"][endpoints] == [{"port": "sidentity", "path": "/metrics", "interval": "30s"}]
    labels = of(example, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert METRICS.items() <= labels.items()


def test_only_prometheus_reaches_the_admin_port(layout):
    policy = next(d for d in layout if d["kind"] == "NetworkPolicy" and d["spec"]["policyTypes"] == ["Ingress"])["spec"]
    labels = of(layout, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()

    def opens(rule):
        for port in rule["ports"]:
            # A number: an implementation of policies may not know the named port of a native sidecar.
            first = port["port"]
            if port["protocol"] == "TCP" and first <= 9090 <= port.get("endPort", first):
                return True

    (rule,) = [rule for rule in policy["ingress"] if opens(rule)]
    assert rule["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gmp-system"}}}]


def test_callers_of_the_separate_pod_reach_only_the_sidecar(standalone):
    ingress, egress = of(standalone, "NetworkPolicy", "sidentity")["spec"], of(standalone, "NetworkPolicy", "sidentity-client")["spec"]
    client = egress["podSelector"]["matchLabels"]
    (source,) = [peer for rule in ingress["ingress"] for peer in rule["from"] if "podSelector" in peer]
    assert source["podSelector"]["matchLabels"] == client
    assert egress["policyTypes"] == ["Egress"]
    _, sidentity = egress["egress"]
    service = of(standalone, "Service")
    (target,) = sidentity["to"]
    assert target["podSelector"]["matchLabels"] == service["spec"]["selector"]
    assert target["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": service["metadata"]["namespace"]}
    assert [port["port"] for port in sidentity["ports"]] == [port["port"] for port in service["spec"]["ports"]] == [3128]


KUBE_DNS = ({"kubernetes.io/metadata.name": "kube-system"}, {"k8s-app": "kube-dns"})
NODE_LOCAL_DNS, METADATA, METADATA_OF_GKE = "169.254.20.10", "169.254.169.254", "169.254.169.252"
RESOLVERS = [KUBE_DNS, NODE_LOCAL_DNS, METADATA]


def permits(policy, target, protocol, port):
    """Returns whether a policy permits egress to an address, or to pods by the labels of their namespace and their own."""

    def matches(peer):
        if isinstance(target, tuple):
            return (peer.get("namespaceSelector", {}).get("matchLabels"), peer.get("podSelector", {}).get("matchLabels")) == target
        block = peer.get("ipBlock")
        inside = [ipaddress.ip_network(net) for net in [block["cidr"], *block.get("except", [])]] if block else []
        return [ipaddress.ip_address(target) in net for net in inside] == [True] + [False] * (len(inside) - 1)

    return any(
        any(map(matches, rule["to"])) and {"protocol": protocol, "port": port} in rule["ports"] for rule in policy["spec"]["egress"]
    )


@pytest.mark.parametrize("name", ["sidentity-egress", "sidentity-client"])
def test_pods_under_an_egress_policy_resolve_names(standalone, name):
    policy = of(standalone, "NetworkPolicy", name)
    for resolver in RESOLVERS:
        assert permits(policy, resolver, "UDP", 53) and permits(policy, resolver, "TCP", 53), resolver


def test_only_sidentity_reaches_the_metadata_server(standalone):
    sidentity, client = (of(standalone, "NetworkPolicy", name) for name in ("sidentity-egress", "sidentity-client"))
    for address, port in ((METADATA, 80), (METADATA_OF_GKE, 988)):
        assert permits(sidentity, address, "TCP", port) and not permits(client, address, "TCP", port)
    for address in (METADATA, METADATA_OF_GKE, "8.8.8.8", "199.36.153.8", "10.0.0.1", "2001:4860:4860::8888"):
        for port in (80, 443, 988, 3128):
            assert not permits(client, address, "TCP", port), (address, port)


def test_sidentity_reaches_upstreams_over_tls_only(standalone):
    policy = of(standalone, "NetworkPolicy", "sidentity-egress")
    labels = of(standalone, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items() and policy["spec"]["policyTypes"] == ["Egress"]
    # Google's public and private addresses, and a host of the network.
    for address in ("142.250.0.1", "199.36.153.8", "10.0.0.1", "2001:4860:4860::8888"):
        assert permits(policy, address, "TCP", 443) and not permits(policy, address, "TCP", 80), address
    assert not permits(policy, METADATA, "TCP", 443) and not permits(policy, METADATA, "UDP", 443)


def test_the_sidecar_works_where_the_namespace_denies_egress(tmp_path):
    for name in ("example", "sidecar", "network-policy", "monitoring-google", "egress-policy"):
        (tmp_path / name).symlink_to(FOLDER / name)
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump({"resources": ["../example"], "components": ["../egress-policy"]}))
    documents = rendered(overlay)
    policy = of(documents, "NetworkPolicy", "sidentity-egress")
    for version in VERSIONS:
        kubernetes_validate.validate(policy, version, strict=True)
    labels = of(documents, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    assert permits(policy, METADATA, "TCP", 80) and all(permits(policy, resolver, "UDP", 53) for resolver in RESOLVERS)


def test_the_separate_pod_requires_the_password_and_reaches_only_named_hosts(standalone, start, tmp_path):
    args, env = arguments(standalone, tmp_path)
    file = tmp_path / "sidentity.yaml"
    # On a free loopback port, with the name in the upstream's certificate. Everything else is as deployed.
    text, count = re.subn(r"listen: 0\.0\.0\.0:3128", "listen: 127.0.0.1:0", file.read_text())
    text, more = re.subn(r"host: billing-\S+", "host: svc.a.run.app", text)
    assert (count, more) == (1, 1)
    file.write_text(text)
    args = [arg for arg in args if arg != "run" and not arg.startswith("--admin")]
    with start(*args, "--proxy-auth", env["SIDENTITY_PROXY_AUTH"]) as sidecar:

        def status(url, user="caller:secret@"):
            with requests.Session() as session:
                session.trust_env = False
                return session.get(url, proxies={"http": f"http://{user}{sidecar.proxy}"}, timeout=TIMEOUT).status_code

        assert status("http://svc.a.run.app/") == 200
        assert status("http://svc.a.run.app/", user="") == 407
        for url in (
            "http://other.a.run.app/", "http://pubsub.googleapis.com/", "http://example.com/",
            "http://europe-west1-example-project.cloudfunctions.net/f", "http://metadata.google.internal/", "http://169.254.169.254/",
        ):
            assert status(url) == 403, url
