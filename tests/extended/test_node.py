"""Node.js: its own clients, undici, ws and grpc-js."""

import json

import pytest

from conftest import AUDIENCE, run
from stage import WORK

CLIENTS = WORK / "clients"


@pytest.fixture
def node(route, proxy):
    def called(case):
        printed = run("node", CLIENTS / "node.mjs", case, route, proxy, cwd=CLIENTS)
        return [json.loads(line) for line in printed.splitlines()]

    return called


@pytest.mark.parametrize("case", ["http", "http_proxy_agent", "fetch", "undici_proxy", "http2", "trailers"])
def test_a_private_service_takes_the_call(node, case):
    answers = node(case)
    assert answers and all(seen["audience"] == AUDIENCE for seen in answers)


def test_fetch_streams_its_body(node):
    assert [seen["length"] for seen in node("fetch")] == [1_000_000]


def test_a_fetch_that_is_aborted_is_seen_by_the_service(node, upstream):
    node("fetch_cancelled")
    assert upstream.left["/stuck/fetch"].wait(20)


def test_a_websocket_opens_talks_and_closes(node):
    node("ws")


def test_grpc_js_talks_to_a_private_service(sidecar, grpc_upstream):
    run("node", CLIENTS / "grpc.mjs", sidecar.routes[1], cwd=CLIENTS)
