"""Checks arguments, and the tools that a release needs, before anything is built."""

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import tools
from project import Failed, rust_version

LINUX = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"]
MACOS = ["x86_64-apple-darwin", "aarch64-apple-darwin"]
# The start code of a static program that is position-independent.
AARCH64_START = Path("/usr/aarch64-linux-gnu/lib/rcrt1.o")


def check_arguments(targets, given, out):
    """Refuses arguments that contradict each other. `given` are pairs of a target and its binary."""
    if targets and given:
        raise Failed("--target and --binary exclude each other: name the targets to build, or the binaries that exist")
    named = [*targets, *(target for target, _ in given)]
    for target in named:
        if target not in LINUX + MACOS:
            raise Failed(f"{target!r} is not a target of the release: choose one of {', '.join(LINUX + MACOS)}")
        if named.count(target) > 1:
            raise Failed(f"{target!r} is named twice: name each target once")
    for target, path in given:
        if not os.access(path, os.X_OK):
            raise Failed(f"'{path}' is not executable: name a program for {target}")
    here = "macOS" if sys.platform == "darwin" else "Linux"
    for target in targets or ([] if given else LINUX):
        there = "macOS" if target in MACOS else "Linux"
        if there != here:
            raise Failed(f"{target!r} cannot be built on {here}: run deploy/release/build on {there}, or choose another --target")
    try:
        check_directory(out)
    except OSError as error:
        raise Failed(f"'{out}' cannot be read ({error.strerror}): choose another directory with --out") from None


def check_directory(out):
    """Refuses a directory whose files a build would replace although they are not from a release."""
    if out.exists() and not out.is_dir():
        raise Failed(f"'{out}' is not a directory: choose another one with --out")
    foreign = not_of_a_release(out) if out.exists() else []
    if foreign:
        raise Failed(f"'{out}' has files that are not from a release, such as '{foreign[0]}': choose another directory with --out")


def not_of_a_release(out):
    """Returns the names in a directory that its SHA256SUMS does not list. A build replaces the others."""
    sums = out / "SHA256SUMS"
    lines = sums.read_text(errors="replace").splitlines() if sums.is_file() else []
    listed = {line.partition("  ")[2] for line in lines} | ({sums.name} if sums.is_file() else set())
    return sorted(file.name for file in out.iterdir() if file.name not in listed or not file.is_file())


def check_machine(targets, compiles):
    """Names all tools that are missing. `compiles`: whether the programs are to be compiled."""
    missing = []

    def need(found, what, remedy):
        if not found:
            missing.append(f"    {what}: {remedy}")

    def program(name, package):
        need(shutil.which(name), name, f"apt-get install {package}")

    need(sys.version_info >= (3, 11), f"Python 3.11 or later (this is {platform.python_version()})", "apt-get install python3")
    program("git", "git")
    need(shutil.which("cargo"), "cargo", "install it from https://rustup.rs")
    linux = [target for target in targets if target in LINUX]
    if compiles:
        compiler(targets, need, program)
    if linux:
        need(
            all(map(importlib.util.find_spec, ("venv", "ensurepip"))), "Python's modules venv and ensurepip", "apt-get install python3-venv"
        )
        program("dpkg-deb", "dpkg")
        need(platform.machine() == "x86_64", "an x86_64 machine", "requirements.txt names the packager for x86_64 only")
        if not all(map(tools.has_busybox, linux)):
            program("apt-get", "apt")
    # The program of the first target prints the completions.
    machine = targets[0].partition("-")[0]
    if machine != tools.this_machine():
        need(tools.emulator(machine), f"an emulator of {machine}", "apt-get install qemu-user-static")
    if missing:
        raise Failed("tools are missing, so nothing was built:\n" + "\n".join(missing))


def compiler(targets, need, program):
    program("cc", "gcc")
    program("make", "make")
    wanted, version = rust_version(), printed("rustc", "--version")
    found = version.startswith(f"rustc {wanted} ")
    need(found, f"rustc {wanted} (here is {version or 'none'})", f"rustup toolchain install {wanted}; export RUSTUP_TOOLCHAIN={wanted}")
    for target in targets:
        library = printed("rustc", "--print", "target-libdir", "--target", target)
        need(library and Path(library).is_dir(), f"Rust's standard library for {target}", f"rustup target add {target}")
    if LINUX[1] in targets and tools.this_machine() != "aarch64":
        program("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu")
        need(AARCH64_START.exists(), "the C library for aarch64", "apt-get install libc6-dev-arm64-cross")


def printed(*command):
    """Returns the output of a command. It is empty if the command is missing or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
