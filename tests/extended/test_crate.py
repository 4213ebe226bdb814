"""The crate that crates.io gets, and the result of `cargo install`."""

import os
import re
import subprocess
import tarfile

import pytest

from stage import ROOT

# The limit of crates.io is ten megabytes.
LARGEST = 10_000_000


def cargo(*args, cwd=ROOT, timeout=600):
    done = subprocess.run(["cargo", *map(str, args)], cwd=cwd, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_crate_has_only_the_programs_files():
    files = cargo("package", "--list", "--allow-dirty", "--locked").split()
    made = {"Cargo.lock", "Cargo.toml", "Cargo.toml.orig", ".cargo_vcs_info.json"}
    for file in set(files) - made:
        assert re.fullmatch(r"src/.+\.(rs|html|css|js|svg|txt)|benches/\w+\.rs|README\.md|LICENSE|CHANGELOG\.md", file), file
    assert {"src/main.rs", "src/lib.rs", "README.md", "LICENSE"} <= set(files)


@pytest.mark.timeout(900)
def test_the_packed_crate_is_small_and_compiles(tmp_path):
    # Uses the target directory of the repository to avoid a second compilation.
    cargo("package", "--no-verify", "--allow-dirty", "--locked")
    crate = max((ROOT / "target" / "package").glob("sidentity-*.crate"), key=os.path.getmtime)
    assert crate.stat().st_size < LARGEST / 10
    with tarfile.open(crate) as tree:
        tree.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    cargo("check", "--locked", "--quiet", "--bin", "sidentity", "--target-dir", ROOT / "target", cwd=folder)


@pytest.mark.timeout(900)
def test_cargo_install_builds_a_program_that_passes_the_demo(tmp_path):
    # Unoptimised, because its dependencies are already compiled.
    cargo("install", "--debug", "--path", ".", "--locked", "--quiet", "--root", tmp_path, "--target-dir", ROOT / "target")
    program = tmp_path / "bin" / "sidentity"
    done = subprocess.run([program, "demo", "--once"], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    # Only the sidecar is installed, none of the repository's tools.
    assert [file.name for file in (tmp_path / "bin").iterdir()] == ["sidentity"]
