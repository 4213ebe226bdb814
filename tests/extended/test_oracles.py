"""Compares sidentity with Google's libraries: credential files of each type, with the same strict endpoints.

Each client is recorded. Method, host, path, form fields and claims must be equal except for `DIFFERENCES`, each with
its reason.
"""

import copy
import os
import subprocess
import sys

import pytest

from recorder import Recorder, readable
from stage import BINARY, WORK, Emulator

CLIENTS = WORK / "clients"
API = "https://storage.googleapis.com/"
SERVICE = "https://svc.a.run.app"
DRIVE = "https://www.googleapis.com/auth/drive"
CLOUD_PLATFORM = "https://www.googleapis.com/auth/cloud-platform"
IAM = "https://www.googleapis.com/auth/iam"

FEDERATED = [f"external-account-{source}" for source in ("aws", "executable", "file", "url")]
ACCESS = ["authorized-user", "external-account-authorized-user", "impersonated-service-account", *FEDERATED]
ID = ["authorized-user", "impersonated-service-account", "service-account"]
LIBRARIES = {"python": [sys.executable, CLIENTS / "oracle.py"], "node": ["node", CLIENTS / "oracle.mjs"]}


class Endpoints:
    """The emulator with its credential files, behind a recorder."""

    def __init__(self, emulator, recorder, folder, certificates):
        self.emulator, self.recorder, self.folder, self.certificates = emulator, recorder, folder, certificates

    def file(self, kind):
        return self.folder / f"{kind}.json"

    def _run(self, command, env):
        self.recorder.taken()
        done = subprocess.run(list(map(str, command)), env=env, capture_output=True, text=True, timeout=60, cwd=CLIENTS)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip(), self.recorder.taken()

    def library(self, name, kind, *arguments):
        """Returns the output of a library, and its requests."""
        proxy = f"http://127.0.0.1:{self.recorder.port}"
        env = {
            "PATH": os.environ["PATH"],
            "HOME": "/nonexistent",
            "GOOGLE_APPLICATION_CREDENTIALS": str(self.file(kind)),
            "GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES": "1",
            # Otherwise Node requests the project of a pool's number.
            "GOOGLE_CLOUD_PROJECT": "example-project",
            "REQUESTS_CA_BUNDLE": str(self.certificates.ca),
            "NODE_EXTRA_CA_CERTS": str(self.certificates.ca),
        }
        for variable in ("HTTP_PROXY", "HTTPS_PROXY"):
            env[variable] = env[variable.lower()] = proxy
        return self._run([*LIBRARIES[name], *arguments], env)

    def sidentity(self, kind, url, *options):
        """Returns the output of `sidentity token`, and its requests."""
        recorder = f"127.0.0.1:{self.recorder.port}"
        env = {"PATH": os.environ["PATH"], "GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES": "1"}
        flags = ["--upstream-ca", self.certificates.ca]
        for origin in ("*:443", "169.254.169.254:80", self.emulator.address):
            flags += ["--connect-to", f"{origin}:{recorder}"]
        return self._run([BINARY, "token", "--credentials", self.file(kind), *flags, *options, url], env)


@pytest.fixture(scope="module")
def endpoints(certificates, tmp_path_factory):
    folder = tmp_path_factory.mktemp("credentials")
    with Emulator("--write-credentials", folder) as emulator, Recorder(emulator, certificates) as recorder:
        emulator.wait_for(lambda line: "valid for 24 hours" in line and line)
        yield Endpoints(emulator, recorder, folder, certificates)


# The intended differences of the libraries. Each function removes one from their requests.


def optional_request(requests):
    """Both libraries request the regional access boundary, and Node the project of a number. No token needs them."""
    return [request for request in requests if "allowedLocations" not in request["url"]]


def session_once(requests):
    """The number of IMDSv2 sessions is not compared: both libraries fetch one for each request."""
    kept = []
    for request in requests:
        is_session = request["url"].endswith("/latest/api/token")
        if not (is_session and request in kept):
            kept.append(request)
    return kept


def self_signed_base(requests):
    """A key file that is the base of an impersonation signs a JWT for IAM, which saves a request to the token
    endpoint."""
    first, *rest = requests
    is_grant = "assertion" in (first["body"] or {}) and rest
    if not is_grant:
        return requests
    for request in rest:
        request["authorization"] = ("Bearer", "self-signed JWT")
    return rest


def scope_for_iam(requests):
    """Python requests the scope `iam` for tokens that only IAM gets. We request `cloud-platform` like Node, so that one
    cached token serves for both."""
    for request in requests:
        if (request["body"] or {}).get("scope") == IAM:
            request["body"]["scope"] = CLOUD_PLATFORM
    return requests


def no_delegates(requests):
    """Without a chain, Python sends null and Node omits the field. We send an empty list, as both do for files of
    impersonation."""
    for request in requests:
        if request["url"].endswith((":generateAccessToken", ":generateIdToken")) and not request["body"].get("delegates"):
            request["body"]["delegates"] = []
    return requests


def azp_of_the_account(requests):
    """Node requests the e-mail address as `azp` of the ID token. The metadata server and the token endpoint use the
    number."""
    for request in requests:
        if isinstance(request["body"], dict):
            request["body"].pop("useEmailAzp", None)
    return requests


def no_key_id(requests):
    """Node's assertions name neither their key nor their type."""
    for request in requests:
        header = assertion(request).get("header", {})
        if header and "kid" not in header:
            header |= {"typ": "JWT", "kid": "KEY"}
    return requests


def signed_target(requests):
    """The libraries add `x-goog-cloud-target-resource` after signing. We sign it too, so that the request cannot be
    used for another pool."""
    for request in requests:
        if token := signed_request(request):
            names = token["signed"].removeprefix("SignedHeaders=").split(";")
            token["signed"] = sorted({*names, "x-goog-cloud-target-resource"})
    return requests


DIFFERENCES = [
    optional_request,
    session_once,
    self_signed_base,
    scope_for_iam,
    no_delegates,
    azp_of_the_account,
    no_key_id,
    signed_target,
]


def assertion(request):
    """Returns the header and claims of the JWT in a form."""
    found = (request["body"] or {}).get("assertion") if isinstance(request["body"], dict) else None
    return found if isinstance(found, dict) else {}


def signed_request(request):
    """Returns the AWS request that is the subject token in a form, or None."""
    found = request["body"].get("subject_token") if isinstance(request["body"], dict) else None
    return found if isinstance(found, dict) and "signed" in found else None


def normal(requests):
    """Returns the requests of a library without its differences."""
    requests = [copy.deepcopy(request.summary()) for request in requests]
    for undo in DIFFERENCES:
        requests = undo(requests)
    return [settled(request) for request in requests]


def ours(requests):
    requests = [copy.deepcopy(request.summary()) for request in requests]
    for token in filter(None, map(signed_request, requests)):
        assert "x-goog-cloud-target-resource" in token["signed"]
    return [settled(request) for request in session_once(signed_target(requests))]


def settled(request):
    """Removes the key's id and the key pair of a run, which depend on the file."""
    scheme, credentials = request["authorization"] or (None, None)
    if isinstance(credentials, dict):
        request["authorization"] = (scheme, "self-signed JWT")
    header = assertion(request).get("header", {})
    if "kid" in header:
        header["kid"] = "KEY"
    if token := signed_request(request):
        # The date differs in each run.
        token["credential"] = token["credential"].split("/")[0]
    return request


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("kind", [*ACCESS, "service-account"])
def test_googles_libraries_get_access_tokens_from_the_strict_endpoints(endpoints, library, kind):
    token, requests = endpoints.library(library, kind, "access")
    assert token.startswith("ya29.")
    refused = [(request.summary(), request.status) for request in optional(requests) if request.status != 200]
    assert not refused


def optional(requests):
    return [request for request in requests if "allowedLocations" not in request.path]


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("kind", ACCESS)
def test_access_token_requests_match_googles_libraries(endpoints, library, kind):
    _, theirs = endpoints.library(library, kind, "access")
    token, requests = endpoints.sidentity(kind, API)
    assert token.startswith("ya29.")
    assert all(request.status == 200 for request in requests)
    assert ours(requests) == normal(theirs)


@pytest.mark.parametrize(
    ("library", "kind"),
    # Node sends an audience with a user's refresh token. The endpoint does not define it: the audience is the client's
    # id.
    [(library, kind) for library in LIBRARIES for kind in ID if (library, kind) != ("node", "authorized-user")],
)
def test_id_token_requests_match_googles_libraries(endpoints, library, kind):
    token, theirs = endpoints.library(library, kind, "id", SERVICE)
    their_claims = readable(token)["claims"]
    token, requests = endpoints.sidentity(kind, SERVICE)
    assert ours(requests) == normal(theirs)
    our_claims = readable(token)["claims"]
    # See azp_of_the_account.
    their_claims["azp"] = our_claims["azp"]
    assert our_claims == their_claims


def test_a_key_file_signs_the_same_jwt_as_googles_library(endpoints):
    theirs, requests = endpoints.library("python", "service-account", "self-signed")
    assert not requests
    token, requests = endpoints.sidentity("service-account", API)
    assert not requests
    assert readable(token) == readable(theirs)


def test_domain_wide_delegation_requests_match_googles_library(endpoints):
    _, theirs = endpoints.library("python", "service-account", "delegated", "ann@example.com", DRIVE)
    rule = f"www.googleapis.com=access,scope={DRIVE},subject=ann@example.com"
    token, requests = endpoints.sidentity("service-account", "https://www.googleapis.com/drive/v3/files", "--rule", rule)
    assert token.startswith("ya29.")
    assert ours(requests) == normal(theirs)


@pytest.mark.parametrize("kind", FEDERATED)
def test_federation_mints_id_tokens_with_the_federated_token(endpoints, kind):
    token, requests = endpoints.sidentity(kind, SERVICE)
    exchange, mint = [request.summary() for request in requests if "googleapis.com" in request.host]
    assert exchange["url"] == "sts.googleapis.com/v1/token"
    assert mint["url"].endswith("/serviceAccounts/target@example-project.iam.gserviceaccount.com:generateIdToken")
    assert mint["body"] == {"audience": SERVICE, "delegates": [], "includeEmail": True}
    assert mint["authorization"] == ("Bearer", "access token")
    assert readable(token)["claims"]["aud"] == SERVICE
