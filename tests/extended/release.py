"""Runs deploy/release/build for tests, and a copy of this machine in which packages can be installed."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from stage import ROOT

BUILD = ROOT / "deploy" / "release" / "build"
AMD64, ARM64 = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"

sys.path.insert(0, str(BUILD.parent))


def build(out, *args, root=ROOT, timeout=600, hostname=None):
    """Runs deploy/release/build, with `hostname` as on a machine of that name."""
    command = [root / "deploy" / "release" / "build", "--out", out, *args]
    if hostname:
        command = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', hostname, *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=root)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def only(folder, pattern):
    """Returns the only file of that pattern."""
    (found,) = folder.glob(pattern)
    return found


class Machine:
    """This machine's files under a temporary layer, with its own network. Commands in it change nothing on the
    machine."""

    SETUP = """set -e
mount -t tmpfs -o mode=755 tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount -t proc proc "$1/root/proc"
mount -t tmpfs tmpfs "$1/root/run"
mount -t tmpfs -o mode=1777 tmpfs "$1/root/tmp"
mount --bind /dev "$1/root/dev"
mkdir "$1/root/tmp/files"
mount --bind "$2" "$1/root/tmp/files"
chroot "$1/root" sh -c "$3"
"""

    def run(self, script, files):
        """Runs a script that finds the directory `files` at /tmp/files, and returns its output."""
        folder = pathlib.Path(tempfile.mkdtemp(prefix="sid-", dir="/tmp"))
        try:
            command = [
                "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", self.SETUP, "sh", folder, files,
                f"set -eu; cd /; {script}",
            ]
            env = {"PATH": os.environ["PATH"] + ":/usr/sbin:/sbin", "LC_ALL": "C", "MANWIDTH": "100", "MANPAGER": "cat", "HOME": "/root"}
            done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=env, stdin=subprocess.DEVNULL)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout
