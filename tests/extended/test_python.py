"""Python's HTTP clients: with HTTP_PROXY, which they read themselves, and through a route."""

import asyncio
import hashlib
import threading

import aiohttp
import httpx
import pytest
import requests
import urllib3
import websockets.exceptions
import websockets.sync.client

from conftest import AUDIENCE
from upstream import pattern

SERVICE = "http://svc.a.run.app"


@pytest.fixture
def http_proxy(proxy, monkeypatch):
    """The variables that a deployment sets."""
    monkeypatch.setenv("HTTP_PROXY", proxy)
    monkeypatch.setenv("http_proxy", proxy)


def test_requests_with_http_proxy_calls_a_private_service(http_proxy):
    with requests.Session() as session:
        for number in range(3):
            seen = session.post(f"{SERVICE}/requests", json={"number": number}).json()
            assert (seen["audience"], seen["length"]) == (AUDIENCE, len('{"number": 0}'))


def test_a_host_header_of_the_app_does_not_change_the_destination(http_proxy, proxy):
    headers = {"Host": "other.example.com"}
    seen = requests.get(f"{SERVICE}/requests", headers=headers).json()
    assert (seen["audience"], seen["host"]) == (AUDIENCE, "svc.a.run.app")
    with urllib3.ProxyManager(proxy) as manager:
        seen = manager.request("GET", f"{SERVICE}/urllib3", headers=headers).json()
    assert (seen["audience"], seen["host"]) == (AUDIENCE, "svc.a.run.app")


def test_requests_streams_both_ways_through_a_route(route):
    def parts():
        for _ in range(64):
            yield pattern(16 * 1024)

    seen = requests.post(f"{route}/requests", data=parts()).json()
    assert seen["sha256"] == hashlib.sha256(pattern(16 * 1024) * 64).hexdigest()
    with requests.get(f"{route}/down?bytes=3000000", stream=True) as response:
        assert sum(map(len, response.iter_content(5000))) == 3_000_000


def test_requests_that_brings_its_own_authorization_keeps_it(route):
    seen = requests.get(f"{route}/own", headers={"Authorization": "Bearer of-the-user"}).json()
    assert seen["audience"] == AUDIENCE
    sent = dict(seen["headers"])
    assert sent["authorization"] == "Bearer of-the-user"
    assert sent["x-serverless-authorization"].startswith("Bearer ey")


def test_httpx_with_http_proxy_calls_a_private_service(http_proxy):
    with httpx.Client() as client:
        for number in range(3):
            seen = client.get(f"{SERVICE}/httpx", params={"n": number}).json()
            assert (seen["audience"], seen["query"]) == (AUDIENCE, f"n={number}")


def test_httpx_speaks_http2_to_a_route(route):
    async def all_at_once():
        async with httpx.AsyncClient(http1=False, http2=True, timeout=60) as client:
            calls = [client.post(f"{route}/h2", content=pattern(n * 997)) for n in range(60)]
            return await asyncio.gather(*calls)

    for number, response in enumerate(asyncio.run(all_at_once())):
        assert (response.status_code, response.http_version) == (200, "HTTP/2")
        assert response.json()["sha256"] == hashlib.sha256(pattern(number * 997)).hexdigest()


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
def test_the_first_event_arrives_before_the_second_is_sent(route, upstream, http2):
    path = f"/events/{http2}"
    with httpx.Client(http1=not http2, http2=http2, timeout=30) as client:
        with client.stream("GET", f"{route}{path}") as response:
            lines = response.iter_lines()
            assert next(lines) == "data: first"
            upstream.go_on[path].set()
            assert [line for line in lines if line] == ["data: second"]


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
def test_a_caller_that_disconnects_is_cancelled_at_the_service(route, upstream, http2):
    path = f"/stuck/{http2}"
    with httpx.Client(http1=not http2, http2=http2) as client:
        with pytest.raises(httpx.ReadTimeout):
            client.get(f"{route}{path}", timeout=0.5)
    assert upstream.left[path].wait(20)


def test_aiohttp_with_http_proxy_makes_many_calls_at_once(http_proxy, emulator, sidecar):
    fetched = sidecar.metric("sidentity_token_fetches_total")

    async def all_at_once():
        async with aiohttp.ClientSession(trust_env=True) as session:
            async def call(number):
                url = f"http://many.a.run.app/aiohttp/{number}"
                async with session.post(url, data=pattern(number)) as response:
                    seen = await response.json()
                    return seen["path"], seen["length"], seen["audience"]

            return await asyncio.gather(*(call(number) for number in range(200)))

    seen = asyncio.run(all_at_once())
    assert seen == [(f"/aiohttp/{n}", n, "https://many.a.run.app") for n in range(200)]
    assert sidecar.metric("sidentity_token_fetches_total") == fetched + 1


def test_aiohttp_streams_an_upload_through_a_route(route):
    async def parts():
        for _ in range(32):
            yield pattern(32 * 1024)
            await asyncio.sleep(0)

    async def call():
        async with aiohttp.ClientSession() as session, session.put(f"{route}/up", data=parts()) as response:
            return await response.json()

    assert asyncio.run(call())["sha256"] == hashlib.sha256(pattern(32 * 1024) * 32).hexdigest()


def test_websockets_connects_to_a_private_service(route):
    address = route.replace("http", "ws")
    with websockets.sync.client.connect(f"{address}/ws") as socket:
        for size in (0, 1, 125, 126, 65_535, 65_536, 900_000):
            socket.send(pattern(size))
            assert socket.recv(timeout=30) == pattern(size)
        socket.send("ünïcode")
        assert socket.recv(timeout=30) == "ünïcode"
        assert socket.ping().wait(20)
        socket.send("bye")
        with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
            socket.recv(timeout=30)
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "as you wish")


def test_websockets_reaches_a_private_service_through_the_proxy(proxy):
    with websockets.sync.client.connect("ws://svc.a.run.app/ws", proxy=proxy) as socket:
        socket.send("through a tunnel to port 80")
        assert socket.recv(timeout=30) == "through a tunnel to port 80"


def test_many_websockets_at_once_do_not_mix(route):
    address = route.replace("http", "ws")
    failures = []

    def talk(number):
        try:
            with websockets.sync.client.connect(f"{address}/ws/{number}") as socket:
                for turn in range(20):
                    socket.send(f"{number}:{turn}")
                    assert socket.recv(timeout=30) == f"{number}:{turn}"
        except Exception as error:
            failures.append((number, error))

    threads = [threading.Thread(target=talk, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_aiohttp_opens_a_websocket_through_the_proxy(proxy):
    async def call():
        async with aiohttp.ClientSession() as session:
            async with session.ws_connect("http://svc.a.run.app/ws", proxy=proxy) as socket:
                await socket.send_str("hello")
                return (await socket.receive(timeout=30)).data

    assert asyncio.run(call()) == "hello"
