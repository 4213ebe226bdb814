"""deploy/compose: checked with the specification, and started in its order."""

import json
import shutil

import pytest
import yaml
from compose_spec import PyCompose

from manifests import DEPLOY, VALUES, check, substituted
from podman import mounts, userland
from stage import ROOT, WORK

FOLDER = DEPLOY / "compose"
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]


def test_compose_accepts_the_file():
    text = (FOLDER / "compose.yaml").read_text()
    read = PyCompose.from_yaml(text)
    read.validate()
    assert set(read.service_names()) == set(SERVICES)
    with pytest.raises(ValueError, match="dependson"):
        PyCompose.from_yaml(text.replace("depends_on:", "dependson:"))


def test_compose_builds_and_mounts_exist_and_no_port_is_public():
    for service in SERVICES.values():
        build = service.get("build", {})
        build = {"context": build} if isinstance(build, str) else build
        if build:
            assert (FOLDER / build["context"] / build.get("dockerfile", "Dockerfile")).resolve().is_file()
        for volume in service.get("volumes", []):
            assert (FOLDER / volume.split(":")[0]).is_file()
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert service["read_only"] and service["cap_drop"] == ["ALL"]
    assert (FOLDER / SERVICES["metadata"]["build"]["context"]).resolve() == ROOT


# The fields that `gcloud run compose` translates: https://docs.cloud.google.com/run/docs/deploy-run-compose.
TRANSLATED = {
    "build", "command", "configs", "container_name", "cpus", "depends_on", "entrypoint", "environment", "expose", "image", "ports",
    "secrets", "volumes", "x-google-cloudrun",
}  # fmt: skip


def test_gcloud_run_compose_translates_every_field():
    text = substituted((FOLDER / "cloud-run.yaml").read_text())
    PyCompose.from_yaml(text).validate()
    file = yaml.safe_load(text)
    services = file["services"]
    assert set(file) == {"name", "services"} and {field for service in services.values() for field in service} <= TRANSLATED
    (app,) = (name for name, service in services.items() if service.get("x-google-cloudrun") == {"ingress-container": True})
    assert [name for name, service in services.items() if "ports" in service] == [app]
    # A container that others wait for needs a port, which Cloud Run probes.
    for name in services[app]["depends_on"]:
        assert services[name]["expose"]


def test_the_sidecar_of_gcloud_run_compose_has_the_route_that_the_app_calls():
    services = yaml.safe_load(substituted((FOLDER / "cloud-run.yaml").read_text()))["services"]
    done = check([], {"K_SERVICE": "shop"} | services["sidentity"]["environment"], {})
    assert done.returncode == 0, done.stderr
    effective = yaml.safe_load(done.stdout)
    (port,) = services["sidentity"]["expose"]
    assert f"# listen: 0.0.0.0:{port} (computed on this machine)" in done.stdout and effective["proxy"]["listen"] is False
    (route,) = effective["routes"]
    assert services["app"]["environment"] == {"BILLING_URL": f"http://localhost:{route['listen']}"}
    assert route["upstream"].rstrip("/") == VALUES["BILLING_URL"]
    # Without a command of its own it runs the image's.
    assert 'CMD ["run"]' in (DEPLOY / "Dockerfile").read_text()


def order():
    done = []
    while len(done) < len(SERVICES):
        ready = [n for n, s in SERVICES.items() if n not in done and set(s.get("depends_on", {})) <= set(done)]
        assert ready, "the services wait for each other"
        done += ready
    return done


@pytest.fixture
def stack(podman, image, tmp_path):
    """Starts the services as containers. The machine's Python replaces the app's images, which are in a registry."""
    tmp_path.chmod(0o755)
    containers = {}
    for name in order():
        service = SERVICES[name]
        network = service.get("network_mode", "none").replace("service:", "container:")
        options = ["--network", network]
        for key, value in service.get("environment", {}).items():
            options += ["--env", f"{key}={value}"]
        if service.get("image") == "sidentity":
            container = podman.start(name, image, *service["command"], options=options)
        else:
            program = shutil.copy(FOLDER / "billing.py" if name == "billing" else DEPLOY / "example" / "app.py", tmp_path)
            options += [*mounts(), "--user", "65532:65532", "--volume", f"{program}:/program.py:ro"]
            options += ["--env", f"PATH={WORK / 'venv' / 'bin'}:/usr/bin:/bin"]
            container = podman.start(name, userland(podman), "/usr/bin/env", "python3", "/program.py", options=options)
        containers[name] = container
        if any(s.get("depends_on", {}).get(name, {}).get("condition") == "service_healthy" for s in SERVICES.values()):
            kind, *probe = service["healthcheck"]["test"]
            assert kind == "CMD"
            container.until(lambda: container.exec(*probe).returncode == 0)
    return containers


def test_the_app_calls_the_private_service_as_the_emulators_account(stack):
    app = stack["app"]
    app.until(lambda: "listening" in app.log())
    assert json.loads(app.get("http://127.0.0.1:8080/invoices")) == {
        "path": "/invoices",
        "caller": "shop-runner@example-project.iam.gserviceaccount.com",
    }
    # The service refuses direct calls, and calls with an access token.
    status = ("-o", "/dev/null", "-w", "%{http_code}")
    assert app.get("http://127.0.0.1:8090/", *status) == "401"
    assert app.get("http://127.0.0.1:8090/", "-H", "Authorization: Bearer ya29.x", *status) == "401"
    # The page is requested from outside under this name.
    assert "sidentity" in app.get("http://localhost:9090/", "--fail")
