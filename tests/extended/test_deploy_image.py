"""deploy/Dockerfile: the content of the image, and that the sidecar runs with nothing else."""

import gzip
import io
import json
import subprocess
import tarfile

from podman import DEPLOY, NONROOT, mounts, userland
from stage import ROOT, WORK
from upstream import write_certificates


def test_the_dockerfile_passes_a_linter():
    done = subprocess.run(
        [WORK / "venv" / "bin" / "hadolint", "--failure-threshold", "style", DEPLOY / "Dockerfile"],
        capture_output=True, text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_build_context_has_only_the_needed_files():
    wanted = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")}
    first = (DEPLOY / "Dockerfile").read_text().rpartition("\nFROM ")[0]
    copied = {name for line in first.splitlines() if line.startswith("COPY ") for name in line.split()[1:-1]}
    assert copied == wanted
    assert all((ROOT / name).exists() for name in wanted)


def test_the_image_is_one_static_binary_with_licences_labels_and_a_health_check(podman, image):
    about = json.loads(podman("inspect", "--type", "image", image))[0]
    config = about["Config"]
    assert config["User"] == NONROOT
    assert config["Entrypoint"] == ["/usr/local/bin/sidentity"] and config["Cmd"] == ["run"]
    assert about["Healthcheck"]["Test"] == ["CMD", "/usr/local/bin/sidentity", "health"]
    assert list(config["ExposedPorts"]) == ["9090/tcp"]
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"

    name = podman("create", image)
    archive = podman.folder / "export.tar"
    podman("export", "--output", archive, name)
    with tarfile.open(archive) as files:
        members = {member.name: member for member in files if not member.isdir()}
        documents = [f"usr/share/doc/sidentity/{name}" for name in ("LICENSE", "THIRD-PARTY-NOTICES")]
        assert sorted(members) == ["usr/local/bin/sidentity", *documents]
        licence, notices = (files.extractfile(name).read() for name in documents)
        assert licence == (ROOT / "LICENSE").read_bytes() and b"\nhyper 1." in notices
        binary = files.extractfile("usr/local/bin/sidentity").read()
    assert members["usr/local/bin/sidentity"].mode & 0o7777 == 0o755
    # Without a program interpreter (PT_INTERP), it loads no libraries.
    assert b"/lib64/ld-linux" not in binary
    # The compressed size. This build is unoptimised; a release build has half of it.
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=6) as squeezed:
        squeezed.write(binary)
    assert len(packed.getvalue()) < 15_000_000


def test_the_demo_passes_in_a_read_only_unprivileged_image(podman, image):
    done = podman(
        "run", "--rm", "--network", "none", "--read-only", "--cap-drop", "all", "--health-interval", "disable",
        "--security-opt", "no-new-privileges", image, "demo", "--once", check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


NAMES = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))
print("listening", flush=True)
while True:
    query, peer = server.recvfrom(512)
    end = query.index(0, 12) + 5
    known, address = query[13:].startswith(b"by-dns"), query[end - 3] == 1
    answer = b"\\xc0\\x0c\\x00\\x01\\x00\\x01\\x00\\x00\\x00\\x3c\\x00\\x04\\x7f\\x00\\x00\\x01" if known and address else b""
    head = query[:2] + (b"\\x81\\x80" if known else b"\\x81\\x83") + b"\\x00\\x01\\x00" + bytes([bool(answer)]) + bytes(4)
    server.sendto(head + query[12:end] + answer, peer)
"""


def test_names_are_looked_up_in_dns_and_in_the_hosts_file(podman, image, tmp_path):
    """A static binary contains its resolver, which must find the same names as the C library's."""
    write_certificates(tmp_path)
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:2\n")
    (tmp_path / "hosts").write_text("127.0.0.1 localhost\n127.0.0.1 by-hosts.a.run.app\n")
    tmp_path.chmod(0o755)
    files = [("ca.pem", "/tls/ca.pem"), ("resolv.conf", "/etc/resolv.conf"), ("hosts", "/etc/hosts")]
    shared = ["--network", "container:names"]

    names = podman.start(
        "names", userland(podman), "python3", "-c", NAMES,
        options=["--network", "none", "--cap-add", "net_bind_service", *mounts()],
    )
    names.until(lambda: "listening" in names.log())
    emulator = podman.start("emulator", image, "metadata-server", "--listen", "127.0.0.1:8980", options=shared)
    emulator.until(lambda: "8980" in emulator.log())
    upstream = podman.start(
        "upstream", userland(podman), WORK / "venv" / "bin" / "python", ROOT / "tests" / "extended" / "private.py",
        "127.0.0.1:8980", options=[*shared, *mounts(), "--volume", f"{tmp_path}:/tls:ro"],
    )
    port = upstream.until(lambda: upstream.log().strip())
    hosts = ["by-dns.a.run.app", "by-hosts.a.run.app", "by-nobody.a.run.app"]
    sidecar = podman.start(
        "sidecar", image, "run", "--upstream-ca", "/tls/ca.pem",
        *[part for host in hosts for part in ("--connect-to", f"{host}:443:{host}:{port}")],
        options=[
            *shared, "--env", "GCE_METADATA_HOST=127.0.0.1:8980",
            *[part for name, place in files for part in ("--volume", f"{tmp_path / name}:{place}:ro")],
        ],
    )
    sidecar.until(lambda: sidecar.exec("/usr/local/bin/sidentity", "health").returncode == 0)

    def call(host):
        return sidecar.inside("curl", "-sS", "-i", "--max-time", "20", "-x", "http://127.0.0.1:3128", f"http://{host}/").stdout

    for host in hosts[:2]:
        assert f'"audience": "https://{host}"' in call(host)
    assert "error=dns_error" in call(hosts[2]).lower()
