"""Google's own library with the emulator, and through the sidecar's forward proxy."""

import os
import subprocess
import sys

import google.auth.compute_engine
import google.auth.transport.requests
import google.oauth2.id_token
import pytest
import requests

from stage import Emulator

# The library reads its environment when it is imported.
PROGRAM = """
import google.auth, google.auth.transport.requests, google.oauth2.id_token
request = google.auth.transport.requests.Request()
credentials, project = google.auth.default()
credentials.refresh(request)
assert not credentials.expired and credentials.valid
token = google.oauth2.id_token.fetch_id_token(request, "https://svc.a.run.app")
print(project, credentials.service_account_email, credentials.token[:5], token)
"""


def application_default(emulator, **more):
    env = {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "GCE_METADATA_HOST": emulator.address,
        "GCE_METADATA_IP": emulator.address,
    }
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=env | more, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def verify(emulator, token, audience):
    request = google.auth.transport.requests.Request()
    certs = emulator.url("/oauth2/v1/certs")
    return google.oauth2.id_token.verify_token(token, request, audience=audience, certs_url=certs)


def test_application_default_credentials_come_from_the_emulator(emulator):
    project, email, start, token = application_default(emulator)
    assert (project, email, start) == ("example-project", Emulator.EMAIL, "ya29.")
    claims = verify(emulator, token, "https://svc.a.run.app")
    assert (claims["email"], claims["email_verified"]) == (Emulator.EMAIL, True)


def test_application_default_credentials_come_through_the_sidecars_proxy(emulator, proxy):
    email = application_default(emulator, HTTP_PROXY=proxy, http_proxy=proxy)[1]
    assert email == Emulator.EMAIL


def test_a_token_for_another_audience_is_refused(emulator):
    token = application_default(emulator)[3]
    with pytest.raises(ValueError, match="audience"):
        verify(emulator, token, "https://other.a.run.app")


def test_googles_library_verifies_the_sidecars_token(emulator, route):
    seen = requests.get(f"{route}/token").json()
    token = dict(seen["headers"])["authorization"].removeprefix("Bearer ")
    claims = verify(emulator, token, "https://svc.a.run.app")
    assert claims["iss"] == "https://accounts.google.com"
