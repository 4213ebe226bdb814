"""The facts of the release: version, commit, time, and the crates in the binary of a target."""

import functools
import json
import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What a shipped binary has in addition to that of `cargo build --release`.
FEATURES = "jemalloc"


class Failed(Exception):
    pass


def run(*command, **options):
    """Returns the standard output of a command that must succeed."""
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True, cwd=options.pop("cwd", ROOT), **options)
    if done.returncode:
        raise Failed(f"{' '.join(map(str, command))} ended with status {done.returncode}")
    return done.stdout.strip()


def rust_version():
    """Returns the version of Rust that compiles the release. It is the one in the Dockerfile."""
    return re.search(r"/rust:([0-9.]+)-", (ROOT / "deploy" / "Dockerfile").read_text())[1]


class Project:
    @functools.cached_property
    def revision(self):
        return run("git", "rev-parse", "HEAD")

    @functools.cached_property
    def epoch(self):
        return int(os.environ.get("SOURCE_DATE_EPOCH") or run("git", "log", "-1", "--format=%ct"))

    @functools.cached_property
    def version(self):
        return self.own(self.metadata("x86_64-unknown-linux-gnu"))["version"]

    @functools.cache
    def metadata(self, target):
        command = ["metadata", "--locked", "--format-version=1", "--features", FEATURES, "--filter-platform", target]
        return json.loads(run("cargo", *command))

    @staticmethod
    def own(metadata):
        (package,) = [package for package in metadata["packages"] if package["id"] == metadata["resolve"]["root"]]
        return package

    def crates(self, target):
        """Returns the packages that are linked into the binary, without build scripts, macros' own dependencies and tests."""
        metadata = self.metadata(target)
        packages = {package["id"]: package for package in metadata["packages"]}
        nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
        seen, todo = set(), [metadata["resolve"]["root"]]
        while todo:
            name = todo.pop()
            if name in seen:
                continue
            seen.add(name)
            for dependency in nodes[name]["deps"]:
                if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                    todo.append(dependency["pkg"])
        seen.discard(metadata["resolve"]["root"])
        return sorted((packages[name] for name in seen), key=lambda package: (package["name"], package["version"]))
