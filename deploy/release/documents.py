"""Creates the files of archives and packages besides the binary: completions, man pages, licences.

    python3 deploy/release/documents.py TARGET      prints the licences of the crates, for deploy/Dockerfile
"""

import sys
import tempfile
from pathlib import Path

from project import ROOT, Project, run

LICENCES = ("LICEN[SC]E*", "COPYING*", "NOTICE*", "COPYRIGHT*")
COMPLETIONS = {"bash": "sidentity.bash", "zsh": "_sidentity", "fish": "sidentity.fish"}


def collect(project, target, runner):
    """Returns {path in the archive: content}. `runner` is the command that runs the binary on this machine."""
    texts = {name: (ROOT / name).read_bytes() for name in ("CHANGELOG.md", "LICENSE", "README.md")}
    for shell, name in COMPLETIONS.items():
        texts[f"completions/{name}"] = run(*runner, "completions", shell).encode() + b"\n"
    with tempfile.TemporaryDirectory() as folder:
        run("cargo", "run", "--quiet", "--locked", "--example", "man-pages", "--", folder)
        texts |= {f"man/{page.name}": page.read_bytes() for page in Path(folder).iterdir()}
    texts["THIRD-PARTY-NOTICES"] = notices(project, target).encode()
    return texts


def notices(project, target):
    """Returns the licences of the crates in the binary: each text once, with its crates."""
    covered = {}
    for package in project.crates(target):
        folder = Path(package["manifest_path"]).parent
        # A library in another language has its licence in a directory of its own.
        files = sorted(file for name in LICENCES for pattern in (name, f"*/{name}") for file in folder.glob(pattern))
        texts = [file.read_text(errors="replace").strip() for file in files if file.is_file()]
        for text in texts or [f"(The crate has no file with its licence, which is {package['license']}.)"]:
            covered.setdefault(text, []).append(f"{package['name']} {package['version']} ({package['license']})")
    head = (
        "The binary contains the crates below, the standard library of Rust (MIT or Apache-2.0), and on Linux the C library of\n"
        "GNU (LGPL-2.1-or-later), whose source is Debian's package glibc. To replace it, build the binary again.\n"
    )
    parts = ["\n".join([*names, "", text, ""]) for text, names in sorted(covered.items(), key=lambda entry: entry[1])]
    return ("\n" + "=" * 80 + "\n\n").join([head, *parts])


if __name__ == "__main__":
    sys.stdout.buffer.write(notices(Project(), sys.argv[1]).encode())
