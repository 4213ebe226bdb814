"""Artifact Registry for pip, npm and a container engine. It accepts a call only with the token as a Basic password."""

import base64
import gzip
import hashlib
import io
import json
import re
import tarfile
import zipfile

from tls_server import Handler, TlsServer

USER = "oauth2accesstoken"


def wheel(name):
    """Returns a wheel with one module."""
    info = f"{name}-1.0.dist-info"
    files = {
        f"{name}.py": "GREETING = 'from the registry'\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return out.getvalue()


def tar(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text))
    return out.getvalue()


def digest(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Registry(TlsServer):
    """The hosts `us-central1-{python,npm,docker}.pkg.dev` behind TLS."""

    def __init__(self, certificates):
        self.refused = 0
        self.files = self.python() | self.npm() | self.docker()
        registry = self

        class Answering(Handler):
            def do_GET(self):
                registry.answer(self)

            do_HEAD = do_GET

        super().__init__(certificates, Answering)

    @staticmethod
    def python():
        """Serves PEP 503: an index page, and the files that it links to."""
        host, repository = "us-central1-python.pkg.dev", "/example-project/python"
        name = "shop_client-1.0-py3-none-any.whl"
        index = f'<!DOCTYPE html><a href="../../shop-client/{name}">{name}</a>'
        return {
            (host, f"{repository}/simple/shop-client/"): ("text/html", index.encode()),
            (host, f"{repository}/shop-client/{name}"): ("application/octet-stream", wheel("shop_client")),
        }

    @staticmethod
    def npm():
        host, repository = "us-central1-npm.pkg.dev", "/example-project/npm"
        package = {"name": "shop-client", "version": "1.0.0", "main": "index.js"}
        files = {"package/package.json": json.dumps(package).encode(), "package/index.js": b"module.exports = 'hello';\n"}
        tarball = gzip.compress(tar(files))
        path = f"{repository}/shop-client/-/shop-client-1.0.0.tgz"
        integrity = "sha512-" + base64.b64encode(hashlib.sha512(tarball).digest()).decode()
        package |= {"dist": {"tarball": f"https://{host}{path}", "integrity": integrity}}
        document = {"name": "shop-client", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": package}}
        return {
            (host, f"{repository}/shop-client"): ("application/json", json.dumps(document).encode()),
            (host, path): ("application/octet-stream", tarball),
        }

    @staticmethod
    def docker():
        """Serves the OCI distribution specification: one image of one layer."""
        host, repository = "us-central1-docker.pkg.dev", "/v2/example-project/shop/app"
        layer = tar({"hello": b"from the registry\n"})
        packed = gzip.compress(layer)
        config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [digest(layer)]}}
        config = json.dumps(config).encode()

        def described(kind, data):
            return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest(data), "size": len(data)}

        kind = "application/vnd.oci.image.manifest.v1+json"
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": kind,
                "config": described("config.v1+json", config),
                "layers": [described("layer.v1.tar+gzip", packed)],
            }
        ).encode()
        blobs = {(host, f"{repository}/blobs/{digest(data)}"): ("application/octet-stream", data) for data in (config, packed)}
        manifests = {(host, f"{repository}/manifests/{name}"): (kind, manifest) for name in ("1", digest(manifest))}
        return {(host, "/v2/"): ("application/json", b"{}")} | blobs | manifests

    def answer(self, request):
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        user, _, password = base64.b64decode(value if scheme == "Basic" else "").decode().partition(":")
        if user != USER or not re.fullmatch(r"ya29\.\S+", password):
            self.refused += 1
            return self.send(request, 401, "application/json", b'{"errors":[{"code":"UNAUTHORIZED"}]}')
        found = self.files.get((request.headers["host"], request.path.partition("?")[0].replace("%2f", "/")))
        kind, body = found or ("application/json", b'{"errors":[{"code":"NOT_FOUND"}]}')
        self.send(request, 200 if found else 404, kind, body)

    @staticmethod
    def send(request, status, kind, body):
        request.send_response(status)
        request.send_header("content-type", kind)
        request.send_header("content-length", str(len(body)))
        request.send_header("docker-distribution-api-version", "registry/2.0")
        if kind.endswith("manifest.v1+json"):
            request.send_header("docker-content-digest", digest(body))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)
