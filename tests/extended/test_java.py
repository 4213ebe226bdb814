"""The JDK's HttpClient, and its WebSocket."""

import json

import pytest

from conftest import AUDIENCE, run
from stage import WORK


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    out = tmp_path_factory.mktemp("classes")
    run("javac", "-d", out, WORK / "clients" / "Client.java")
    return out


@pytest.fixture
def java(classes, route, proxy):
    def called(case):
        printed = run("java", "-cp", classes, "Client", case, route, proxy)
        return [json.loads(line) for line in printed.splitlines()]

    return called


@pytest.mark.parametrize("case", ["http1", "http2", "proxy"])
def test_a_private_service_accepts_calls(java, case):
    answers = java(case)
    assert [seen["audience"] for seen in answers] == [AUDIENCE] * 43
    assert [seen["length"] for seen in answers[:3]] == [0, 3_000_000, 3_000_000]
    assert [seen["path"] for seen in answers[3:]] == [f"/java/{n}" for n in range(40)]


def test_a_websocket_passes_messages(java):
    assert java("websocket") == ["from java"]
