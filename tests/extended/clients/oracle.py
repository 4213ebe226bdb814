"""Prints an access token or an ID token that google-auth gets with the environment's credential file.

oracle.py access | self-signed | id AUDIENCE | delegated USER SCOPE
"""

import os
import sys

import google.auth
import google.auth.transport.requests
from google.auth import impersonated_credentials
from google.oauth2 import service_account

CLOUD_PLATFORM = "https://www.googleapis.com/auth/cloud-platform"


def id_token_credentials(audience):
    credentials, _ = google.auth.default()
    if isinstance(credentials, impersonated_credentials.Credentials):
        return impersonated_credentials.IDTokenCredentials(credentials, target_audience=audience, include_email=True)
    if isinstance(credentials, service_account.Credentials):
        file = os.environ["GOOGLE_APPLICATION_CREDENTIALS"]
        return service_account.IDTokenCredentials.from_service_account_file(file, target_audience=audience)
    return credentials


def main(what, *arguments):
    if what == "id":
        credentials = id_token_credentials(*arguments)
    else:
        credentials, _ = google.auth.default(scopes=[CLOUD_PLATFORM])
    if what == "self-signed":
        credentials = credentials.with_always_use_jwt_access(True)
        credentials._create_self_signed_jwt(None)
    if what == "delegated":
        user, scope = arguments
        credentials = credentials.with_scopes([scope]).with_subject(user)
    credentials.refresh(google.auth.transport.requests.Request())
    print(getattr(credentials, "id_token", None) if what == "id" and hasattr(credentials, "id_token") else credentials.token)


main(*sys.argv[1:])
