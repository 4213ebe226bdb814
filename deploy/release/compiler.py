"""The binary of a target, without paths of the machine that builds it and with the list of its crates (`cargo auditable`)."""

import os
import platform
import shutil
from pathlib import Path

import tools
from project import ROOT, Failed, run


def build(project, target):
    version = run("rustc", "--version").split()[1]
    if version != project.rust:
        raise Failed(f"rustc is {version}, but the release is built with {project.rust}: rustup toolchain install {project.rust}")
    flags = [f"--remap-path-prefix={path}={name}" for path, name in prefixes(project, target)]
    if "linux" in target:
        # Static, so that neither the image nor any distribution needs the C library of the builder.
        flags += ["-C", "target-feature=+crt-static"]
    env = os.environ | {
        "AWS_LC_SYS_NO_JITTER_ENTROPY": "1",
        "CARGO_ENCODED_RUSTFLAGS": "\x1f".join(flags),
        "CARGO_INCREMENTAL": "0",
        "CFLAGS": " ".join(f"-ffile-prefix-map={path}={name}" for path, name in prefixes(project, target)),
        "SIDENTITY_REVISION": project.revision,
        "SOURCE_DATE_EPOCH": str(project.epoch),
    }
    # The path of the auditing wrapper must not reach the flags, so cargo finds it by its name.
    env["PATH"] = f"{tools.cargo_tool('cargo-auditable').parent}:{env['PATH']}"
    if target.startswith("aarch64") and "linux" in target and platform.machine() != "aarch64":
        env["CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER"] = "aarch64-linux-gnu-gcc"
    run("cargo", "auditable", "build", "--release", "--locked", "--bin", "sidentity", "--target", target, env=env)
    folder = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    return folder / target / "release" / "sidentity"


def prefixes(project, target):
    """Paths of this machine, and what stands for each in the binary. Of two that fit, the compilers take the last."""
    home = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")
    registries = {Path(package["manifest_path"]).parents[1] for package in project.crates(target)}
    return [(home, "/cargo"), *((path, "/cargo/crates") for path in sorted(registries)), (ROOT, "/sidentity")]


def runner(target, binary):
    """The command that runs a binary of this target here."""
    machine = target.partition("-")[0].replace("arm64", "aarch64")
    if machine == platform.machine().replace("arm64", "aarch64"):
        return [binary]
    emulator = shutil.which(f"qemu-{machine}-static") or shutil.which(f"qemu-{machine}")
    if not emulator:
        raise Failed(f"{binary} does not run here: install qemu-user-static")
    return [emulator, binary]
