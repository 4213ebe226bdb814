"""The commands of deploy/release refuse wrong arguments; deploy/release/build also names missing tools, before it builds
anything."""

import os
import re
import runpy
import shutil
import subprocess
import sys

import pytest

from release import AMD64, ARM64, BUILD
from stage import ROOT


def refused(*args, env=None):
    """Returns the message of a refused build."""
    done = subprocess.run([BUILD, *args], capture_output=True, text=True, timeout=60, env=env)
    assert done.returncode == 1 and not done.stdout, done.stdout
    assert done.stderr.startswith("deploy/release/build: ") and "Traceback" not in done.stderr, done.stderr
    return done.stderr


@pytest.mark.parametrize("args, message", [
    (["--target", "riscv64gc-unknown-linux-gnu"], "'riscv64gc-unknown-linux-gnu' is not a target of the release: choose one of"),
    (["--target", AMD64, "--target", AMD64], f"'{AMD64}' is named twice"),
    (["--target", AMD64, "--binary", f"{ARM64}={BUILD}"], "exclude each other"),
    (["--target", "aarch64-apple-darwin"], "cannot be built on Linux: run deploy/release/build on macOS"),
    (["--binary", f"wasm32-wasi={BUILD}"], "'wasm32-wasi' is not a target"),
    (["--binary", f"{AMD64}={BUILD.parent}/copyright"], "is not executable: name a program for"),
    (["--target", AMD64, "--out", f"{BUILD}"], "is not a directory"),
    (["--target", AMD64, "--out", f"{BUILD.parent}"], "has files that are not from a release"),
])
def test_a_wrong_argument_is_named_with_what_to_do(args, message):
    assert message in refused(*args)


@pytest.mark.parametrize("sums", ["", f"{'0' * 64}  install.sh\n"])
def test_a_directory_with_another_file_is_kept_though_it_has_checksums(tmp_path, sums):
    (tmp_path / "SHA256SUMS").write_text(sums)
    (tmp_path / "install.sh").write_text("of a release")
    program = tmp_path / "sidentity"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    before = {file.name: file.read_text() for file in tmp_path.iterdir()}
    message = refused("--out", tmp_path, "--binary", f"{AMD64}={program}")
    assert "has files that are not from a release, such as '" in message
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("out, message", [
    ("/proc/nowhere", "'/proc/nowhere' cannot be made anew (No such file or directory): choose another directory with --out"),
    (f"{BUILD}/dist", f"'{BUILD}/dist' cannot be made anew (Not a directory)"),
])
def test_a_directory_that_cannot_be_made_is_named(tmp_path, out, message):
    program = tmp_path / "sidentity"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert message in refused("--out", out, "--binary", f"{AMD64}={program}")


def test_a_directory_that_this_user_may_not_read_is_named(monkeypatch):
    import preflight

    def denied(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(preflight, "not_of_a_release", denied)
    with pytest.raises(preflight.Failed, match=r"cannot be read \(Permission denied\): choose another directory with --out"):
        preflight.check_arguments([], [], BUILD.parent)


@pytest.mark.parametrize("out, message", [("", "the name of the directory is empty"), ("loop", "'loop' cannot be followed")])
def test_a_directory_without_a_path_is_an_error_of_usage(tmp_path, out, message):
    (tmp_path / "loop").symlink_to("loop")
    done = subprocess.run([BUILD, "--out", out], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize("command, args, status, message", [
    ("notes", [], 2, "the following arguments are required: version"),
    ("notes", ["0.1.0", "0.2.0"], 2, "unrecognized arguments: 0.2.0"),
    ("notes", ["v0.1.0"], 1, "Cargo.toml does not have the version 'v0.1.0': write the version without 'v'"),
    ("formula", [], 2, "the following arguments are required: sums"),
    ("formula", ["/nowhere"], 1, "'/nowhere' cannot be read: No such file or directory"),
    ("formula", [f"{BUILD.parent}"], 1, "cannot be read: Is a directory"),
    ("formula", [f"{ROOT}/LICENSE"], 1, "is not a checksum and a file name: name the SHA256SUMS of a release"),
    ("formula", ["/dev/null"], 1, "'/dev/null' names no archive for aarch64-apple-darwin"),
])
def test_notes_and_formula_name_a_wrong_argument(command, args, status, message):
    done = subprocess.run([BUILD.parent / command, *args], capture_output=True, text=True, timeout=60)
    assert done.returncode == status and not done.stdout, done.stdout
    assert message in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_the_notes_of_a_release_link_to_the_files_of_its_tag(tmp_path):
    folder = tmp_path / "deploy" / "release"
    folder.mkdir(parents=True)
    shutil.copy2(BUILD.parent / "notes", folder)
    (tmp_path / "Cargo.toml").write_text('[package]\nversion = "0.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changelog\n\n## [Unreleased]\n\n- [later](later.md)\n\n## [0.2.0] - 2026-12-01\n\n"
        "- [file](docs/a.md), [part](./docs/a.md#part), [folder](deploy/gke/), [here](#unreleased), ![picture](docs/status.png),\n"
        "  [site](https://example.com/a), [mail](mailto:jane@example.com)\n\n## [0.1.0]\n\n- [earlier](earlier.md)\n"
    )
    done = subprocess.run([folder / "notes", "0.2.0"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    targets = re.findall(r"\]\(([^)]*)\)", done.stdout)
    place = "https://github.com/sidentity/sidentity/blob/v0.2.0"
    assert targets == [
        f"{place}/docs/a.md", f"{place}/docs/a.md#part", "https://github.com/sidentity/sidentity/tree/v0.2.0/deploy/gke/",
        f"{place}/CHANGELOG.md#unreleased", f"{place}/docs/status.png", "https://example.com/a", "mailto:jane@example.com",
        f"{place}/deploy/README.md#releases",
    ]  # fmt: skip


def test_the_changelog_in_notes_has_no_relative_link():
    text = (ROOT / "CHANGELOG.md").read_text()
    namespace = runpy.run_path(str(BUILD.parent / "notes"))
    for target in re.findall(r"\]\(([^)]*)\)", namespace["absolute"](text, "0.2.0")):
        assert target.startswith("https://"), target


def test_a_binary_that_does_not_exist_is_an_error_of_usage():
    done = subprocess.run([BUILD, "--binary", f"{AMD64}=/nowhere"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "is not TARGET=PATH with a file at PATH" in done.stderr


@pytest.fixture
def machine(tmp_path):
    """Returns the environment of a machine that has only Python and these programs."""

    def having(*programs):
        folder = tmp_path / "bin"
        folder.mkdir()
        (folder / "python3").symlink_to(os.path.realpath(sys.executable))
        for name in programs:
            (folder / name).symlink_to(shutil.which(name))
        return {"PATH": str(folder), "HOME": str(tmp_path)}

    return having


def test_all_missing_tools_are_named_at_once(machine, tmp_path):
    out = tmp_path / "dist"
    message = refused("--out", out, env=machine())
    assert "tools are missing, so nothing was built:" in message
    for tool, remedy in {
        "git": "apt-get install git", "cargo": "install it from https://rustup.rs", "cc": "apt-get install gcc",
        "make": "apt-get install make",
        "dpkg-deb": "apt-get install dpkg", "aarch64-linux-gnu-gcc": "apt-get install gcc-aarch64-linux-gnu",
        f"Rust's standard library for {ARM64}": f"rustup target add {ARM64}",
    }.items():
        assert f"    {tool}: {remedy}" in message, message
    assert not out.exists()


def test_another_compiler_than_that_of_the_image_is_named(machine, tmp_path):
    env = machine("git", "cc", "make", "dpkg-deb", "apt-get")
    for name in ("cargo", "rustc"):
        (tmp_path / "bin" / name).write_text("#!/bin/sh\necho rustc 1.0.0\n")
        (tmp_path / "bin" / name).chmod(0o755)
    message = refused("--target", AMD64, "--out", tmp_path / "dist", env=env)
    assert "(here is rustc 1.0.0): rustup toolchain install" in message, message


def test_a_packaged_binary_needs_no_compiler(machine, tmp_path):
    message = refused("--binary", f"{ARM64}={BUILD}", "--out", tmp_path / "dist", env=machine("git"))
    assert "an emulator of aarch64: apt-get install qemu-user-static" in message
    assert "    cc:" not in message and "standard library" not in message, message
