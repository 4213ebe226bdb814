"""Debian and RPM packages, both from nfpm.yaml."""

import gzip
import json
import os
import re
import shutil
from datetime import datetime, timezone
from email.utils import format_datetime
from pathlib import Path

import tools
from project import ROOT, run

HERE = Path(__file__).resolve().parent
DOCUMENTS = ["CHANGELOG.md.gz", "README.md"]
CONFIG = (HERE / "nfpm.yaml").read_text()
MAINTAINER = re.search("^maintainer: (.*)$", CONFIG, re.MULTILINE)[1]
SUMMARY = re.search("^  summary: (.*)$", CONFIG, re.MULTILINE)[1]


def write(project, target, binary, texts, out):
    stage = ROOT / "target" / "release-stage" / target
    shutil.rmtree(stage, ignore_errors=True)
    lay_out(stage, project, binary, texts)
    env = os.environ | {
        "ARCH": tools.architecture(target), "VERSION": project.version, "SOURCE_DATE_EPOCH": str(project.epoch),
    }
    for packager, config in configs(stage, project).items():
        run(tools.nfpm(), "package", "--config", config, "--packager", packager, "--target", out, cwd=stage, env=env)


def configs(stage, project):
    """Writes what nFPM reads for each format. Only for RPM it marks the documentation, and writes a changelog: in a Debian package it
    leaves out marked files, and names the changelog as if the version had a Debian revision. Only Debian's description begins with
    the summary."""
    entry = {
        "semver": f"{project.version}-1", "date": timestamp(project).isoformat(), "packager": MAINTAINER,
        "changes": [{"note": "The changes are listed in CHANGELOG.md.gz of the documentation."}],
    }  # fmt: skip
    # JSON is YAML.
    (stage / "changelog.yaml").write_text(json.dumps([entry]))
    pages = {f"man/{page.name}": f"/usr/share/man/man1/{page.name}" for page in sorted((stage / "man").iterdir())}
    files = pages | {name: f"/usr/share/doc/sidentity/{name}" for name in DOCUMENTS}
    made = {}
    debian = CONFIG.replace("description: |\n", f"description: |\n  {SUMMARY}\n")
    for packager, config, mark, more in (("deb", debian, {}, ""), ("rpm", CONFIG, {"type": "doc"}, "changelog: changelog.yaml\n")):
        entries = [{"src": src, "dst": dst, "file_info": {"mode": 0o644}} | mark for src, dst in files.items()]
        text = config + "".join(f"  - {json.dumps(entry)}\n" for entry in entries)
        made[packager] = stage / f"nfpm-{packager}.yaml"
        made[packager].write_text(text + more)
    return made


def lay_out(stage, project, binary, texts):
    """Writes the files for nfpm.yaml, all with the time that nFPM sets."""
    files = {"sidentity": binary.read_bytes(), "copyright": (HERE / "copyright").read_bytes()}
    unit = (ROOT / "deploy" / "systemd" / "sidentity.service").read_text()
    files["sidentity.service"] = packaged(unit).encode()
    files["changelog.gz"] = gzip.compress(debian_changelog(project).encode(), 9, mtime=0)
    files["sidentity.yaml"] = (ROOT / "deploy" / "systemd" / "sidentity.yaml").read_bytes()
    files["sysusers.conf"] = (HERE / "sysusers.conf").read_bytes()
    for script in (HERE / "scripts").iterdir():
        files[f"scripts/{script.name}"] = script.read_bytes()
    for path, content in texts.items():
        if path.startswith("man/"):
            files[f"{path}.gz"] = gzip.compress(content, 9, mtime=0)
        elif path == "CHANGELOG.md":
            files["CHANGELOG.md.gz"] = gzip.compress(content, 9, mtime=0)
        else:
            files[path] = content
    for path, content in files.items():
        (stage / path).parent.mkdir(parents=True, exist_ok=True)
        (stage / path).write_bytes(content)


def debian_changelog(project):
    """Returns the changelog in the format of Debian's policy (4.4), with this version alone."""
    return (
        f"sidentity ({project.version}) unstable; urgency=medium\n\n"
        "  * The changes are listed in CHANGELOG.md.gz beside this file.\n\n"
        f" -- {MAINTAINER}  {format_datetime(timestamp(project))}\n"
    )


def timestamp(project):
    return datetime.fromtimestamp(project.epoch, timezone.utc)


def packaged(unit):
    """Returns the unit for packages: with the program in /usr/bin, and without the advice to copy files."""
    _, _, body = unit.partition("[Unit]\n")
    head = "# `systemctl enable --now sidentity` starts it. Edit /etc/sidentity/sidentity.yaml first.\n[Unit]\n"
    body = body.replace("/usr/local/bin/sidentity", "/usr/bin/sidentity")
    return head + body.replace("Documentation=", "Documentation=man:sidentity(1) ")
