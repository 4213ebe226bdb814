"""OCI images, written as archives of an OCI layout: the binary with its licences, or these and BusyBox for debugging.

    podman load --input dist/sidentity-VERSION-image.tar
    skopeo copy --all oci-archive:dist/sidentity-VERSION-image.tar docker://REGISTRY/sidentity:VERSION
"""

import datetime
import hashlib
import json

import archive
from tools import architecture

SOURCE = "https://github.com/sidentity/sidentity"
NAME = "ghcr.io/sidentity/sidentity"
BINARY = "usr/local/bin/sidentity"
DOCUMENTS = "usr/share/doc/sidentity"
# deploy/Dockerfile has the same; a test compares them.
CONFIG = {
    "User": "65532:65532",
    "ExposedPorts": {"9090/tcp": {}},
    "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
    "Entrypoint": ["/usr/local/bin/sidentity"],
    "Cmd": ["run"],
    # Not a part of OCI's format, but Docker reads it.
    "Healthcheck": {
        "Test": ["CMD", "/usr/local/bin/sidentity", "health"],
        "Interval": 30_000_000_000, "Timeout": 6_000_000_000, "StartPeriod": 2_000_000_000,
    },
}
# The programs of the debug variant. `busybox --list` lists all that BusyBox supports.
APPLETS = """ash base64 cat chmod cp cut date df du echo env find free grep gunzip gzip head hexdump hostname id ip kill less ln
ls md5sum mkdir more mv nc netstat nslookup od ping ps pwd rm route sed sh sha256sum sleep sort stat strings tail tar tee
telnet test time timeout top touch tr traceroute uname uniq uptime vi watch wc wget which whoami xargs""".split()


def labels(project):
    prefix = "org.opencontainers.image."
    return {
        prefix + "title": "sidentity",
        prefix + "description": "A sidecar that gives an app's outgoing HTTP calls their Google Cloud identity",
        prefix + "source": SOURCE,
        prefix + "documentation": f"{SOURCE}/blob/main/deploy/README.md",
        prefix + "licenses": "Apache-2.0",
        prefix + "revision": project.revision,
        prefix + "version": project.version,
    }


class Layout:
    """The blobs of an OCI layout by their digests."""

    def __init__(self):
        self.files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}

    def add(self, kind, content, **more):
        """Adds a blob, and returns its descriptor."""
        digest = hashlib.sha256(content).hexdigest()
        self.files[f"blobs/sha256/{digest}"] = content
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(content), **more}

    def add_json(self, kind, value, **more):
        return self.add(kind, encoded(value), **more)


def encoded(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def write(project, binaries, texts, out, shells=None):
    """Writes sidentity-VERSION-image.tar, or with `shells` ({target: files of BusyBox}) sidentity-VERSION-image-debug.tar.
    `texts` has the licences, as in an archive."""
    layout, manifests = Layout(), []
    licences = {f"{DOCUMENTS}/{name}": (texts[name], 0o644) for name in ("LICENSE", "THIRD-PARTY-NOTICES")}
    for target, binary in binaries.items():
        layers = [archive.tar({BINARY: (binary.read_bytes(), 0o755)} | licences, project.epoch)]
        if shells:
            layers.insert(0, shell_layer(shells[target], project.epoch))
        manifests.append(manifest(project, layout, architecture(target), layers))
    kind = "-debug" if shells else ""
    index = layout.add_json(
        "index.v1+json",
        {
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests,
            "annotations": labels(project),
        },
        # `podman load` gives the image this name.
        annotations={"org.opencontainers.image.ref.name": f"{NAME}:{project.version}{kind}"},
    )
    layout.files["index.json"] = encoded({"schemaVersion": 2, "manifests": [index]})
    files = {path: (content, 0o644) for path, content in layout.files.items()}
    (out / f"sidentity-{project.version}-image{kind}.tar").write_bytes(archive.tar(files, project.epoch))


def shell_layer(files, epoch):
    modes = {path: (content, 0o755 if path == "bin/busybox" else 0o644) for path, content in files.items()}
    return archive.tar(modes, epoch, links={f"bin/{applet}": "busybox" for applet in APPLETS})


def manifest(project, layout, arch, layers):
    created = datetime.datetime.fromtimestamp(project.epoch, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    blobs = [layout.add("layer.v1.tar+gzip", archive.compress(layer)) for layer in layers]
    config = {
        "created": created, "architecture": arch, "os": "linux",
        "config": CONFIG | {"Labels": labels(project)},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]},
        "history": [{"created": created, "created_by": "deploy/release/build"} for _ in layers],
    }
    return layout.add_json(
        "manifest.v1+json",
        {
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": layout.add_json("config.v1+json", config), "layers": blobs, "annotations": labels(project),
        },
        platform={"architecture": arch, "os": "linux"},
    )
