"""Node.js: its own clients, undici, ws and grpc-js."""

import json

import pytest

from conftest import AUDIENCE, run
from stage import WORK

CLIENTS = WORK / "clients"


# The version that supports NODE_USE_ENV_PROXY.
NODE_24 = CLIENTS / "node_modules" / ".bin" / "node"


@pytest.fixture
def node(route, proxy):
    def called(case, program="node"):
        printed = run(program, CLIENTS / "node.mjs", case, route, proxy, cwd=CLIENTS)
        return [json.loads(line) for line in printed.splitlines()]

    return called


@pytest.mark.parametrize("case", ["http", "http_proxy_agent", "fetch", "undici_proxy", "http2", "trailers"])
def test_a_private_service_accepts_the_call(node, case):
    answers = node(case)
    assert answers and all(seen["audience"] == AUDIENCE for seen in answers)


def test_fetch_streams_its_body(node):
    assert [seen["length"] for seen in node("fetch")] == [1_000_000]


def test_an_aborted_fetch_is_cancelled_at_the_service(node, upstream):
    node("fetch_cancelled")
    assert upstream.left["/stuck/fetch"].wait(20)


@pytest.mark.parametrize("case", ["http_get", "undici_tunnel", "gaxios"])
def test_http_through_the_proxy_gets_its_token_in_every_form(node, case):
    assert [seen["audience"] for seen in node(case)] == [AUDIENCE]


def test_nodes_own_fetch_gets_its_token_by_the_environment(node, proxy, monkeypatch):
    monkeypatch.setenv("NODE_USE_ENV_PROXY", "1")
    monkeypatch.setenv("HTTP_PROXY", proxy)
    assert [seen["audience"] for seen in node("fetch_by_environment", NODE_24)] == [AUDIENCE]


@pytest.mark.parametrize("case", ["ws", "ws_tunnel"])
def test_a_websocket_opens_talks_and_closes(node, case):
    node(case)


def test_grpc_js_calls_a_private_service_by_proxy(sidecar, grpc_upstream):
    run("node", CLIENTS / "grpc.mjs", sidecar.routes[1], cwd=CLIENTS)
