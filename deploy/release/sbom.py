"""Software bills of materials in CycloneDX, one for each target."""

import json
import os

import tools
from project import FEATURES, ROOT, run

NAME = "sbom"


def write(project, target, out):
    """Returns the result of cargo-cyclonedx for the target, without the paths of this machine."""
    tool = tools.cargo_tool("cargo-cyclonedx")
    made = ROOT / f"{NAME}.json"
    try:
        kind = ["--format", "json", "--spec-version", "1.5"]
        run(tool, "cyclonedx", "--quiet", *kind, "--features", FEATURES, "--target", target, "--override-filename", NAME,
            env=os.environ | {"SOURCE_DATE_EPOCH": str(project.epoch)})
        text = made.read_text()
    finally:
        made.unlink(missing_ok=True)
    text = text.replace(f"path+file://{ROOT}#", "").replace("?download_url=file://.", "")
    bill = json.loads(text)
    bill["metadata"].setdefault("properties", []).append({"name": "sidentity:revision", "value": project.revision})
    (out / f"sidentity-{project.version}-{target}.cdx.json").write_text(json.dumps(bill, indent=1) + "\n")
