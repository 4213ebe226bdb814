"""Runs the containers of deploy/cloudrun like Cloud Run: one network, started in order, without root.

The emulator replaces the metadata server, and a private service of the tests replaces the called service.
"""

import json
import threading

import pytest

from manifests import CLOUD_RUN, DEPLOY, PLACES, documents, environment, pod_spec, sidecars, start_order
from podman import NONROOT, mounts, userland
from stage import ROOT, WORK
from upstream import write_certificates

EMULATOR = "127.0.0.1:8980"


class Pod:
    """A Cloud Run instance: the containers of a file, started in its order."""

    shared = ["--network", "container:emulator"]

    def __init__(self, podman, image, path, folder):
        self.podman, self.image, self.folder = podman, image, folder
        (self.document,) = documents(path)
        self.spec = pod_spec(self.document)
        folder.chmod(0o755)
        self.tls = folder / "tls"
        self.tls.mkdir()
        write_certificates(self.tls)
        (self.tls / "key.pem").chmod(0o644)
        self.containers = {}

    def up(self):
        # Cloud Run's part. The first container owns the network, like an instance.
        command = ["metadata-server", "--listen", EMULATOR]
        emulator = self.podman.start("emulator", self.image, *command, options=["--network", "none"])
        emulator.until(lambda: EMULATOR in emulator.log())
        upstream = self.podman.start(
            "upstream", userland(self.podman), WORK / "venv" / "bin" / "python",
            ROOT / "tests" / "extended" / "private.py", EMULATOR,
            options=[*self.shared, *mounts(), "--user", NONROOT, "--volume", f"{self.tls}:/tls:ro"],
        )
        self.port = upstream.until(lambda: upstream.log().strip())
        by_name = {container["name"]: container for container in self.spec["containers"]}
        for name in start_order(self.document):
            self.start(by_name[name])
        return self

    def start(self, container):
        env = environment(container) | {PLACES[self.document["kind"]]: "shop"}
        options = [*self.shared, "--memory", container["resources"]["limits"]["memory"].replace("Mi", "m")]
        for mount in container.get("volumeMounts", []):
            volume = self.folder / mount["name"]
            volume.mkdir(exist_ok=True)
            # Like an emptyDir: every user in the instance may write to it.
            volume.chmod(0o1777)
            options += ["--volume", f"{volume}:{mount['mountPath']}"]
        if container in sidecars(self.spec):
            image, command = self.image, list(container["args"])
            env["GCE_METADATA_HOST"] = EMULATOR
            # DNS does not lead to the private service, and the tests' own authority signed its certificate.
            command += [f"--connect-to=*:443:127.0.0.1:{self.port}", "--upstream-ca=/tls/ca.pem"]
            options += ["--volume", f"{self.tls}:/tls:ro"]
        else:
            image = userland(self.podman)
            command = ["/usr/bin/env", "python3", "/app.py", *container.get("args", [])]
            env["PATH"] = f"{WORK / 'venv' / 'bin'}:/usr/bin:/bin"
            options += [*mounts(), "--user", NONROOT, "--volume", f"{DEPLOY / 'example' / 'app.py'}:/app.py:ro"]
        for name, value in env.items():
            options += ["--env", f"{name}={value}"]
        started = self.containers[container["name"]] = self.podman.start(
            container["name"], image, *command, options=options
        )
        if probe := container.get("startupProbe"):
            self.passes(started, probe)

    def passes(self, container, probe):
        """Runs the probe inside the instance, like Cloud Run."""
        get = probe["httpGet"]

        def asked():
            url = f"http://127.0.0.1:{get['port']}{get['path']}"
            code = container.get(url, "-o", "/dev/null", "-w", "%{http_code}", check=False)
            return code == "200"

        container.until(asked, period=probe["periodSeconds"] / 10, tries=10 * probe["failureThreshold"])


@pytest.fixture
def pod(podman, image, tmp_path):
    """Starts the pod of a file of deploy/cloudrun."""
    return lambda name: Pod(podman, image, DEPLOY / "cloudrun" / name, tmp_path).up()


@pytest.mark.parametrize("name", [path.name for path in CLOUD_RUN if path.name.startswith("service-")])
def test_an_app_calls_a_private_service_from_cloud_run(pod, name):
    instance = pod(name)
    app, sidecar = instance.containers["app"], instance.containers["sidentity"]
    app.until(lambda: "listening" in app.log())
    seen = json.loads(app.get("http://127.0.0.1:8080/invoices?n=1"))
    assert seen["audience"] == "https://billing-k5x2qeq7la-ew.a.run.app"
    assert (seen["path"], seen["query"]) == ("/invoices", "n=1")

    state = sidecar.inspect()
    assert state["Config"]["User"] == NONROOT and state["HostConfig"]["ReadonlyRootfs"] is True
    assert state["HostConfig"]["Memory"] == 128 * 1024 * 1024 and not state["EffectiveCaps"]
    # The two ways to check its health without a shell.
    assert sidecar.exec("/usr/local/bin/sidentity", "health", "--ready").returncode == 0
    assert instance.podman("healthcheck", "run", "sidentity", check=False).returncode == 0
    for path in ("/liveness", "/readiness"):
        sidecar.get(f"http://127.0.0.1:9090{path}", "--fail")
    # One JSON object in each line, with Cloud Logging's severities.
    lines = [json.loads(line) for line in sidecar.log().splitlines()]
    assert lines and all(line["severity"] in ("INFO", "WARNING") for line in lines), lines


def test_a_google_api_gets_an_access_token_by_the_second_route(pod):
    instance = pod("service-routes.yaml")
    seen = json.loads(instance.containers["sidentity"].get("http://127.0.0.1:8082/storage/v1/b"))
    assert (seen["host"], seen["token"][:12]) == ("storage.googleapis.com", "Bearer ya29.")


def test_sigterm_lets_the_app_finish_and_ends_with_zero(pod):
    instance = pod("service-routes.yaml")
    app, sidecar = instance.containers["app"], instance.containers["sidentity"]
    app.until(lambda: "listening" in app.log())
    answers = []

    def call():
        answers.append(app.get("http://127.0.0.1:8080/events"))

    caller = threading.Thread(target=call)
    caller.start()
    sidecar.until(lambda: in_flight(sidecar) == 1)
    sidecar.kill("TERM")
    # During a drain, probes fail and new calls are still served, because the app got SIGTERM too and may flush.
    sidecar.until(lambda: sidecar.get("http://127.0.0.1:9090/readiness", check=False) == "draining\n")
    assert json.loads(sidecar.get("http://127.0.0.1:8081/late"))["path"] == "/late"
    instance.podman("kill", "--signal", "USR1", "upstream")
    caller.join(30)
    assert answers == ["data: first\n\ndata: second\n\n"]
    assert sidecar.wait() == 0


def in_flight(sidecar):
    metrics = sidecar.get("http://127.0.0.1:9090/metrics").splitlines()
    return sum(float(line.split()[-1]) for line in metrics if line.startswith("sidentity_requests_in_flight{"))


def test_a_worker_calls_a_private_service_and_its_probes_are_answered(pod):
    instance = pod("worker-pool.yaml")
    app, sidecar = instance.containers["app"], instance.containers["sidentity"]
    assert "https://billing-k5x2qeq7la-ew.a.run.app" in app.until(app.log)
    sidecar.get("http://127.0.0.1:9090/liveness", "--fail")


def test_a_job_ends_and_the_sidecar_after_it(pod):
    instance = pod("job.yaml")
    app, sidecar = instance.containers["app"], instance.containers["sidentity"]
    assert app.wait() == 0, app.log()
    assert "https://billing-k5x2qeq7la-ew.a.run.app" in app.log()
    sidecar.kill("TERM")
    assert sidecar.wait() == 0
