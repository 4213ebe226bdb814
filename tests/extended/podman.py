"""Runs containers without a registry or a container service: podman and runc, from the command line."""

import contextlib
import functools
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time

from stage import BINARY, TIMEOUT, ROOT, WORK

DEPLOY = ROOT / "deploy"
NONROOT = "65532:65532"
# The machine's programs, for containers that need more than the sidecar's image: Python with the tests' packages.
USERLAND = ["/usr", "/lib", "/lib64", "/bin", sys.base_prefix, str(WORK / "venv"), str(ROOT / "tests" / "extended")]


class Podman:
    """A private store of images and containers. It is removed with its `with` block."""

    def __enter__(self):
        # Short, because the path of a socket has at most 108 bytes.
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="sid-", dir="/tmp"))
        config = self.folder / "containers.conf"
        config.write_text(
            '[containers]\ndefault_ulimits = ["nofile=20000:20000", "nproc=1000:1000"]\n'
            '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\n'
        )
        self.env = os.environ | {"CONTAINERS_CONF": str(config)}
        self.options = ["--root", self.folder / "root", "--runroot", self.folder / "run", "--storage-driver", "vfs"]
        return self

    def __exit__(self, *_):
        with contextlib.suppress(AssertionError):
            self.clear()
        with contextlib.suppress(AssertionError):
            self("rmi", "--all", "--force")
        shutil.rmtree(self.folder, ignore_errors=True)

    def __call__(self, *args, check=True, timeout=60):
        """Runs podman to its end. Returns its standard output, or the whole result with `check=False`."""
        command = ["podman", *map(str, self.options), *map(str, args)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, env=self.env, stdin=subprocess.DEVNULL
        )
        if not check:
            return done
        assert done.returncode == 0, f"podman {args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout.strip()

    def clear(self):
        """Removes all containers. Containers whose network others use are removed in the second round."""
        self("rm", "--all", "--force", "--time", "0", check=False)
        self("rm", "--all", "--force", "--time", "0")

    def build(self, tag, dockerfile, context):
        """Builds an image from a Dockerfile's text, in Docker's format, because OCI's format has no health check."""
        file = self.folder / "Dockerfile"
        file.write_text(dockerfile)
        self("build", "--quiet", "--format", "docker", "--tag", tag, "--file", file, context)
        return tag

    def start(self, name, image, *command, options=()):
        """Starts a container in the background, without capabilities, on a read-only root."""
        self(
            "run", "--detach", "--name", name, "--read-only", "--cap-drop", "all",
            "--security-opt", "no-new-privileges", "--health-interval", "disable", *options, image, *command,
        )
        return Container(self, name)


class Container:
    def __init__(self, podman, name):
        self.podman, self.name = podman, name

    def inspect(self):
        return json.loads(self.podman("inspect", self.name))[0]

    def log(self):
        done = self.podman("logs", self.name, check=False)
        return done.stdout + done.stderr

    def exec(self, *command):
        return self.podman("exec", self.name, *command, check=False)

    def inside(self, *command, check=True):
        """Runs a command of the machine in the container's network."""
        pid = self.inspect()["State"]["Pid"]
        assert pid, f"{self.name} does not run:\n{self.log()}"
        done = subprocess.run(
            ["nsenter", "--target", str(pid), "--net", *map(str, command)],
            capture_output=True, text=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL,
        )
        if check:
            assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}\n{self.name}:\n{self.log()}"
        return done

    def get(self, url, *more, check=True):
        """Returns curl's output for a URL, requested in the container's network."""
        return self.inside("curl", "-sS", "--noproxy", "*", "--max-time", "20", *more, url, check=check).stdout

    def kill(self, signal):
        self.podman("kill", "--signal", signal, self.name)

    def wait(self):
        """Returns the exit status."""
        return int(self.podman("wait", self.name, timeout=TIMEOUT))

    def until(self, seen, period=0.1, tries=300):
        """Polls until `seen` returns a true value, like a probe."""
        for _ in range(tries):
            if found := seen():
                return found
            assert self.inspect()["State"]["Running"], f"{self.name} has ended:\n{self.log()}"
            time.sleep(period)
        raise AssertionError(f"{self.name} is not ready:\n{self.log()}")


@functools.cache
def static_binary():
    """Builds the sidecar like the Dockerfile, in seconds: it only links the existing binary again."""
    target = WORK / "image" / "sidentity"
    target.parent.mkdir(parents=True, exist_ok=True)
    flags = ["-C", "target-feature=+crt-static", "-C", "strip=symbols"]
    cargo = ["cargo", "rustc", "--locked", "--quiet", "--bin", "sidentity"]
    subprocess.run([*cargo, "--", *flags], cwd=ROOT, check=True, timeout=600)
    shutil.copy(BINARY, target)
    # Restores the binary of the other tests.
    subprocess.run(["cargo", "build", "--locked", "--quiet"], cwd=ROOT, check=True, timeout=600)
    return target


def write_licences(folder):
    """Writes what the first stage of the Dockerfile writes beside the binary."""
    folder.mkdir(exist_ok=True)
    shutil.copy(ROOT / "LICENSE", folder)
    (command,) = re.findall(r"python3 -B (deploy/\S+) \"\$target\" > /doc/THIRD-PARTY-NOTICES", (DEPLOY / "Dockerfile").read_text())
    target = f"{platform.machine()}-unknown-linux-gnu"
    with (folder / "THIRD-PARTY-NOTICES").open("w") as notices:
        subprocess.run([sys.executable, "-B", command, target], cwd=ROOT, stdout=notices, check=True, timeout=100)


def last_stage(dockerfile):
    """Returns the last stage of the Dockerfile. The first stage needs an image from a registry."""
    head, _, stage = dockerfile.rpartition("\nFROM ")
    arguments = re.findall(r"^ARG .*$", head.partition("\nFROM ")[0], re.M)
    return "\n".join([*arguments, "FROM " + stage.replace("COPY --from=build /", "COPY ")])


def userland(podman):
    """Returns an image that has only mount points. With `mounts` it has the machine's programs."""
    context = podman.folder / "userland"
    context.mkdir(exist_ok=True)
    return podman.build("localhost/userland", "FROM scratch\nENV PATH=/usr/bin:/bin\n", context)


def mounts():
    return [option for path in USERLAND for option in ("--volume", f"{path}:{path}:ro")]
