"""The whole release, compiled twice from scratch for both processors: tests/extended/run release. Half an hour on two
cores."""

import json
import re
import shutil
import subprocess
import tarfile
import tomllib
import zlib

import pytest

from release import AMD64, ARM64, build, only
from stage import ROOT, WORK

pytestmark = [pytest.mark.release, pytest.mark.timeout(7200)]
VERSION = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
TARGETS = pytest.mark.parametrize("target", [AMD64, ARM64])


@pytest.fixture(scope="module")
def full():
    return build(WORK / "release", timeout=3600)


@pytest.fixture(scope="module")
def binaries(full, tmp_path_factory):
    folder = tmp_path_factory.mktemp("binaries")
    for target in (AMD64, ARM64):
        with tarfile.open(full / f"sidentity-{VERSION}-{target}.tar.gz") as tree:
            tree.extractall(folder, filter="data")
    return {target: folder / f"sidentity-{VERSION}-{target}" / "sidentity" for target in (AMD64, ARM64)}


def runner(target, binary):
    return [binary] if target == AMD64 else ["qemu-aarch64-static", binary]


def test_every_artefact_exists(full):
    names = {file.name.replace(VERSION, "V") for file in full.iterdir()}
    assert names == {
        "SHA256SUMS", "install.sh", "sidentity-V-image.tar", "sidentity-V-image-debug.tar", "sidentity_V_amd64.deb", "sidentity_V_arm64.deb",
        "sidentity-V-1.x86_64.rpm", "sidentity-V-1.aarch64.rpm",
        *(f"sidentity-V-{target}{kind}" for target in (AMD64, ARM64) for kind in (".tar.gz", ".cdx.json")),
    }


@TARGETS
def test_the_program_runs_on_its_processor(binaries, target):
    for args in (["--version"], ["demo", "--once"]):
        done = subprocess.run([*runner(target, binaries[target]), *args], capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stdout + done.stderr


@TARGETS
def test_the_program_is_static_and_loads_at_any_address(binaries, target):
    header = subprocess.run(["readelf", "--wide", "--file-header", "--program-headers", binaries[target]], capture_output=True, text=True, check=True).stdout
    assert "DYN (Position-Independent Executable file)" in header and "GNU_RELRO" in header
    assert "INTERP" not in header and not re.search(r"GNU_STACK .* RWE", header)


@TARGETS
def test_the_program_has_no_path_of_the_builder(binaries, target):
    content = binaries[target].read_bytes()
    assert len(content) < 15_000_000
    for path in (ROOT, subprocess.run(["sh", "-c", "echo ${CARGO_HOME:-$HOME/.cargo}"], capture_output=True, text=True).stdout.strip()):
        assert str(path).encode() not in content, path
    # Replaces the directory that cargo names after its registry.
    assert b"/cargo/crates/" in content and b"registry/src" not in content


@TARGETS
def test_the_program_embeds_its_crates_for_cargo_audit(full, binaries, target, tmp_path):
    objcopy = "objcopy" if target == AMD64 else "aarch64-linux-gnu-objcopy"
    section = tmp_path / "section"
    subprocess.run([objcopy, "--dump-section", f".dep-v0={section}", binaries[target], "/dev/null"], check=True)
    listed = {(p["name"], p["version"]) for p in json.loads(zlib.decompress(section.read_bytes()))["packages"] if p.get("kind") != "build"}
    bill = json.loads((full / f"sidentity-{VERSION}-{target}.cdx.json").read_text())
    assert listed - {("sidentity", VERSION)} <= {(c["name"], c["version"]) for c in bill["components"]}
    names = {name for name, _ in listed}
    assert {"hyper", "rustls", "tokio"} <= names and ("tikv-jemallocator" in names) == (target == AMD64)


def test_the_image_has_both_processors(full, store):
    archive = f"oci-archive:{full / f'sidentity-{VERSION}-image.tar'}"
    for arch in ("amd64", "arm64"):
        name = store("pull", "--quiet", "--arch", arch, archive, timeout=100)
        assert json.loads(store("inspect", "--type", "image", name))[0]["Architecture"] == arch


def test_a_build_in_another_directory_gives_the_same_bytes(full):
    other = WORK / "release-elsewhere"
    shutil.rmtree(other, ignore_errors=True)
    subprocess.run(["git", "clone", "--quiet", ROOT, other], check=True)
    # Includes uncommitted files.
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        (other / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, other / name)
    # The tools are equal. Only the release is built again.
    (other / "target").mkdir()
    (other / "target" / "tools").symlink_to(ROOT / "target" / "tools")
    build(other / "dist", root=other, timeout=3600, hostname="other")
    assert (other / "dist" / "SHA256SUMS").read_text() == (full / "SHA256SUMS").read_text()
    shutil.rmtree(other)
