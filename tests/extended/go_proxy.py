"""Makes a module proxy for Go from the packages of Debian, so that `go get` needs no network."""

import json
import re
import zipfile
from pathlib import Path

SOURCES = Path("/usr/share/gocode/src")
MODULES = [
    "github.com/golang/protobuf", "golang.org/x/net", "golang.org/x/sys", "golang.org/x/text", "google.golang.org/genproto",
    "google.golang.org/grpc",
]  # fmt: skip
# Debian installs one version of each, so the number has no meaning.
VERSION = "v1.0.0"


def write(folder):
    """Writes the files of the proxy, each module with all others as its requirements, and returns the folder."""
    for module in MODULES:
        place = folder / module / "@v"
        place.mkdir(parents=True)
        requirements = "".join(f"require {other} {VERSION}\n" for other in MODULES if other != module)
        manifest = f"module {module}\n\ngo 1.17\n\n{requirements}"
        (place / "list").write_text(f"{VERSION}\n")
        (place / f"{VERSION}.info").write_text(json.dumps({"Version": VERSION}))
        (place / f"{VERSION}.mod").write_text(manifest)
        with zipfile.ZipFile(place / f"{VERSION}.zip", "w") as archive:
            archive.writestr(f"{module}@{VERSION}/go.mod", manifest)
            for file in sources(SOURCES / module):
                archive.write(file, f"{module}@{VERSION}/{file.relative_to(SOURCES / module)}")
    return folder


def sources(folder):
    """Returns the source files of a module, without tests, and without modules inside it."""
    inner = {file.parent for file in folder.rglob("go.mod")} - {folder}
    for file in sorted(folder.rglob("*")):
        wanted = re.fullmatch(r".*\.[sh]|.*(?<!_test)\.go", file.name) and "testdata" not in file.parts
        if wanted and file.is_file() and not inner.intersection(file.parents):
            yield file
