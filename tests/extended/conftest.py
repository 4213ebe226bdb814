"""Fixtures: the emulator, a private upstream and the sidecar, each a real process or server on a free loopback port."""

import subprocess

import grpc
import pytest

from podman import DEPLOY, Podman, last_stage, static_binary, write_licences
from stage import Emulator, Sidecar
from upstream import GrpcUpstream, Upstream, write_certificates

AUDIENCE = "https://svc.a.run.app"


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    return write_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def emulator():
    with Emulator() as emulator:
        yield emulator


@pytest.fixture(scope="session")
def upstream(certificates, emulator):
    with Upstream(certificates, emulator) as upstream:
        yield upstream


@pytest.fixture(scope="session")
def grpc_upstream(certificates, emulator):
    with GrpcUpstream(certificates, emulator) as upstream:
        yield upstream


@pytest.fixture(scope="session")
def start(emulator, upstream, grpc_upstream, certificates):
    """Starts a sidecar for the upstreams with further arguments."""

    def started(*args):
        return Sidecar(
            emulator,
            "--connect-to", f"grpc.a.run.app:443:127.0.0.1:{grpc_upstream.port}",
            "--connect-to", f"*:443:127.0.0.1:{upstream.port}",
            "--upstream-ca", certificates.ca,
            *args,
        )

    return started


@pytest.fixture(scope="session")
def sidecar(start):
    """One sidecar for all tests, with a route to the private service and one to the gRPC service."""
    with start(
        "--route", "127.0.0.1:0=https://svc.a.run.app",
        "--route", "127.0.0.2:0=https://grpc.a.run.app",
    ) as sidecar:
        yield sidecar


@pytest.fixture(scope="session")
def quiet_call(start):
    """A gRPC call on its own connections whose last response comes 130 s after the first. It runs during all other
    tests."""
    with start("--route", "127.0.0.1:0=https://grpc.a.run.app") as sidecar:
        with grpc.insecure_channel(sidecar.routes[0]) as channel:
            # The last response is read at the end of the suite, which must come before the deadline.
            answers = channel.unary_stream("/test.Service/Quiet")(b"130", timeout=3600)
            assert next(answers) == b"first"
            yield answers


def pytest_collection_modifyitems(items):
    """Moves tests that wait for an early call to the end."""
    items.sort(key=lambda item: item.get_closest_marker("late") is not None)


@pytest.fixture
def address(sidecar):
    """The address of the private service, for tests that connect directly."""
    return sidecar.routes[0]


@pytest.fixture
def route(sidecar):
    """`http://127.0.0.1:PORT` of the route to the private service."""
    return f"http://{sidecar.routes[0]}"


@pytest.fixture
def proxy(sidecar):
    """`http://127.0.0.1:PORT` of the forward proxy."""
    return f"http://{sidecar.proxy}"


@pytest.fixture(scope="session")
def store():
    with Podman() as podman:
        yield podman


@pytest.fixture(scope="session")
def image(store):
    """The image of deploy/Dockerfile, built once."""
    context = static_binary().parent
    write_licences(context / "doc")
    return store.build("localhost/sidentity", last_stage((DEPLOY / "Dockerfile").read_text()), context)


@pytest.fixture
def podman(store):
    """podman, without containers of other tests."""
    yield store
    store.clear()


@pytest.fixture(autouse=True)
def _the_sidecar_lives(request):
    """Checks after each test that the sidecar still runs and has not panicked."""
    yield
    if "sidecar" in request.fixturenames:
        request.getfixturevalue("sidecar").assert_alive()


def run(*command, env=None, **more):
    """Runs a client to its end and returns its standard output."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=100, env=env, **more
    )
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
