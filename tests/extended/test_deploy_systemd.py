"""deploy/systemd: checked without a boot, with systemd's own tools and a real system call filter."""

import json
import re
import subprocess

import pytest
import yaml

from manifests import DEPLOY, check
from stage import BINARY, TIMEOUT

UNIT = DEPLOY / "systemd" / "sidentity.service"
CONFIGURATION = DEPLOY / "systemd" / "sidentity.yaml"


def analyze(*args):
    return subprocess.run(["systemd-analyze", *map(str, args)], capture_output=True, text=True, timeout=TIMEOUT)


@pytest.fixture
def unit(tmp_path):
    """Returns the unit with an existing program."""
    file = tmp_path / UNIT.name
    file.write_text(UNIT.read_text().replace("/usr/local/bin/sidentity", str(BINARY)))
    return file


def test_systemd_accepts_the_unit_without_warnings(unit):
    done = analyze("verify", unit)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_systemd_reports_an_unknown_directive(unit):
    unit.write_text(unit.read_text().replace("PrivateTmp=", "PrivateTemp="))
    assert "PrivateTemp" in analyze("verify", unit).stderr


def test_the_unit_has_a_low_exposure_score(unit):
    """The score has a maximum of 10 for an unrestricted service. Network access accounts for the rest."""
    done = analyze("security", "--offline=true", "--threshold=15", unit)
    assert done.returncode == 0, done.stdout
    assert analyze("security", "--offline=true", "--threshold=5", unit).returncode != 0


def test_the_configuration_of_the_unit_is_valid(tmp_path):
    done = check(["--config", CONFIGURATION], {})
    assert done.returncode == 0, done.stderr
    # It also starts without the unit, which creates the directory of sockets.
    assert "unix:" not in done.stdout
    file = tmp_path / CONFIGURATION.name
    file.write_text(CONFIGURATION.read_text().replace("\n#  ", "\n  "))
    done = check(["--config", file], {})
    assert done.returncode == 0, done.stderr
    effective = yaml.safe_load(done.stdout)
    runtime = re.search(r"^RuntimeDirectory=(\S+)$", UNIT.read_text(), re.M)[1]
    sockets = [route["listen"] for route in effective["routes"] if str(route["listen"]).startswith("unix:")]
    assert sockets and all(socket.startswith(f"unix:/run/{runtime}/") for socket in sockets)
    drain = int(effective["drain_timeout"].removesuffix("s"))
    assert int(re.search(r"^TimeoutStopSec=(\d+)s$", UNIT.read_text(), re.M)[1]) > drain
    assert int(re.search(r"^LimitNOFILE=(\d+)$", UNIT.read_text(), re.M)[1]) > 2 * effective["max_connections"]


def members(name):
    """Returns the system calls of one of systemd's sets."""
    lines = [line.strip() for line in analyze("syscall-filter", name).stdout.splitlines()[1:]]
    for line in lines:
        if line.startswith("@"):
            yield from members(line)
        elif line and not line.startswith("#"):
            yield line


def profile(allowed):
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
        "syscalls": [{"names": sorted(allowed), "action": "SCMP_ACT_ALLOW"}],
    }


def test_it_works_with_the_system_calls_that_the_unit_allows(podman, image, tmp_path):
    """The same filter in a container, and one that is too narrow, which must fail."""
    allowed = set()
    for value in re.findall(r"^SystemCallFilter=(\S+)$", UNIT.read_text(), re.M):
        allowed = allowed - set(members(value[1:])) if value.startswith("~") else allowed | set(members(value))
    assert "accept4" in allowed and "mount" not in allowed and "chroot" not in allowed

    def demo(allowed):
        file = tmp_path / "seccomp.json"
        file.write_text(json.dumps(profile(allowed)))
        return podman(
            "run", "--rm", "--network", "none", "--read-only", "--cap-drop", "all", "--health-interval", "disable",
            "--security-opt", "no-new-privileges", "--security-opt", f"seccomp={file}", image, "demo", "--once", check=False,
        )

    done = demo(allowed)
    assert done.returncode == 0, done.stdout + done.stderr
    assert demo(allowed - {"accept4", "accept"}).returncode != 0
