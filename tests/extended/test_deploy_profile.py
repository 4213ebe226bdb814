"""deploy/rustflags and deploy/profile: how a shipped binary is compiled."""

import json
import re
import shutil
import subprocess
import tomllib

import pytest

from podman import DEPLOY
from release import AMD64, ARM64
from stage import ROOT

# A module of deploy/release, which `release` makes importable.
from project import FEATURES

PROFILES = sorted((DEPLOY / "profile").glob("*.profdata"))
RENEW = "renew the profile with benches/pgo"


def flags(script, *args):
    done = subprocess.run([script, *args], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\x1f")


@pytest.mark.parametrize("profile", PROFILES, ids=lambda file: file.stem)
def test_the_profile_is_of_the_compiler_that_builds_the_image(profile):
    """Another compiler names and numbers functions in another way, and ignores the profile without an error. So does the same
    compiler for another version of the package."""
    about = json.loads(profile.with_suffix(".json").read_text())
    image = re.search(r"/rust:([0-9.]+)-", (DEPLOY / "Dockerfile").read_text())[1]
    assert about["rustc"] == image, f"the image is built by rustc {image}: {RENEW}"
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    assert about["sidentity"] == version, f"this is version {version}: {RENEW}"


@pytest.mark.parametrize("profile", PROFILES, ids=lambda file: file.stem)
def test_the_compiler_reads_the_profile(profile, tmp_path):
    about = json.loads(profile.with_suffix(".json").read_text())
    rustc = subprocess.run(["rustc", "--version", "--verbose"], capture_output=True, text=True, check=True).stdout
    if f"release: {about['rustc']}\n" not in rustc:
        pytest.skip(f"rustc is not {about['rustc']}")
    assert f"LLVM version: {about['llvm']}\n" in rustc, RENEW
    source = tmp_path / "empty.rs"
    source.write_text("pub fn empty() {}\n")
    done = subprocess.run(
        ["rustc", "--crate-type", "lib", "--emit", "obj", "-C", f"profile-use={profile}", "-o", tmp_path / "empty.o", source],
        capture_output=True, text=True,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_shipped_binaries_are_compiled_with_the_profile():
    assert DEPLOY / "profile" / f"{AMD64}.profdata" in PROFILES
    given = flags(DEPLOY / "rustflags", AMD64, "--remap-path-prefix=/some where=/x")
    assert f"profile-use={DEPLOY / 'profile' / AMD64}.profdata" in given
    assert "target-feature=+crt-static" in given and given[-1] == "--remap-path-prefix=/some where=/x"


def test_the_image_and_the_measured_binary_have_the_same_features_as_a_release():
    assert f"--bin sidentity --features {FEATURES} --target" in (DEPLOY / "Dockerfile").read_text()
    assert f'"--features", "{FEATURES}"' in (ROOT / "benches" / "peers" / "install.py").read_text()


def test_targets_without_a_profile_are_compiled_without_one(tmp_path):
    script = shutil.copy(DEPLOY / "rustflags", tmp_path)
    for target in (AMD64, ARM64):
        given = flags(script, target)
        assert "target-feature=+crt-static" in given and not any("profile-use" in flag for flag in given)
    # macOS has no static binaries.
    assert flags(script, "aarch64-apple-darwin") == [""]


def test_the_flags_need_a_target():
    done = subprocess.run([DEPLOY / "rustflags"], capture_output=True, text=True)
    assert done.returncode != 0 and "usage: deploy/rustflags" in done.stderr
