"""An app without code for sidentity: it returns the response of $BILLING_URL.

Without arguments it serves on $PORT. With `once` it makes one call, prints the response and exits, as a job does. With
`poll` it repeats the call, as a worker does. Python's library reads proxy and certificates from the environment.
"""

import http.server
import os
import sys
import time
import urllib.error
import urllib.request


def call(path):
    try:
        with urllib.request.urlopen(os.environ["BILLING_URL"] + path, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError as error:
        return 502, f"{error}\n".encode()


class Shop(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status, body = call(self.path)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


while sys.argv[1:] in (["once"], ["poll"]):
    status, body = call("/")
    print(status, body.decode(errors="replace"), flush=True)
    if sys.argv[1] == "once":
        sys.exit(status != 200)
    time.sleep(10)
port = int(os.environ.get("PORT", "8080"))
print(f"listening on {port}", flush=True)
http.server.ThreadingHTTPServer(("", port), Shop).serve_forever()
