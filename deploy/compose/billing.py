"""Imitates a private Cloud Run service: answers 401 without an ID token for $AUDIENCE, otherwise the caller's account.

It does not verify the token's signature, because Cloud Run does so before a request reaches a service. A service that
verifies it itself finds the keys at http://127.0.0.1:8980/oauth2/v3/certs.
"""

import base64
import http.server
import json
import os
import time


def claims(header):
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or token.count(".") != 2:
        return {}
    payload = token.split(".")[1]
    try:
        return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except ValueError:
        return {}


class Billing(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        caller = claims(self.headers.get("Authorization", ""))
        known = caller.get("aud") == os.environ["AUDIENCE"] and caller.get("exp", 0) > time.time()
        answer = {"path": self.path, "caller": caller.get("email")} if known else {"error": "who are you?"}
        body = json.dumps(answer).encode() + b"\n"
        self.send_response(200 if known else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


port = int(os.environ.get("PORT", "8080"))
print(f"listening on {port}", flush=True)
http.server.ThreadingHTTPServer(("", port), Billing).serve_forever()
