"""Builds the binary of a target, without paths of the building machine and with the list of its crates (`cargo auditable`)."""

import os
from pathlib import Path

import tools
from project import FEATURES, ROOT, run

HERE = Path(__file__).resolve().parent


def build(project, target):
    remapped = [f"--remap-path-prefix={path}={name}" for path, name in prefixes(project, target)]
    env = os.environ | {
        "AWS_LC_SYS_NO_JITTER_ENTROPY": "1",
        "CARGO_ENCODED_RUSTFLAGS": run(ROOT / "deploy" / "rustflags", target, *remapped),
        "CARGO_INCREMENTAL": "0",
        "CFLAGS": " ".join(f"-ffile-prefix-map={path}={name}" for path, name in prefixes(project, target)),
        "SIDENTITY_REVISION": project.revision,
        "SOURCE_DATE_EPOCH": str(project.epoch),
    }
    # The paths of the auditing wrapper and of the linker must not reach the flags, so cargo finds them by their names.
    env["PATH"] = f"{tools.cargo_tool('cargo-auditable').parent}:{HERE / 'linker'}:{env['PATH']}"
    env["CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER"] = "aarch64-static-pie-gcc"
    command = ["build", "--release", "--locked", "--bin", "sidentity", "--features", FEATURES, "--target", target]
    run("cargo", "auditable", *command, env=env)
    folder = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    return folder / target / "release" / "sidentity"


def prefixes(project, target):
    """Returns paths of this machine, and their replacements in the binary. If two match, the compilers use the last."""
    home = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")
    registries = {Path(package["manifest_path"]).parents[1] for package in project.crates(target)}
    return [(home, "/cargo"), *((path, "/cargo/crates") for path in sorted(registries)), (ROOT, "/sidentity")]


def runner(target, binary):
    """Returns the command that runs a binary of this target on this machine."""
    machine = target.partition("-")[0]
    return [binary] if machine == tools.this_machine() else [tools.emulator(machine), binary]
