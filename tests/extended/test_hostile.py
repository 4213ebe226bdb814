"""The hostile scenarios that are too long for `cargo test` or need root, and a short soak."""

import subprocess

import pytest

from stage import BINARY, ROOT


@pytest.mark.timeout(900)
def test_long_hostile_scenarios():
    run("cargo", "test", "--locked", "--test", "hostile-long", "--", "--nocapture", "--test-threads=1")


@pytest.mark.timeout(300)
def test_a_short_soak_has_no_failure_without_a_cause():
    run(ROOT / "tests" / "soak" / "run", "--binary", BINARY, "15")


def run(*command):
    """Runs a command, and shows its output if it fails."""
    assert subprocess.run([str(part) for part in command], cwd=ROOT).returncode == 0
