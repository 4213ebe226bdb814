"""gRPC over a route in cleartext HTTP/2: an app sees the same as without the sidecar."""

import threading

import grpc
import pytest

from stage import Emulator


@pytest.fixture
def channel(sidecar, grpc_upstream):
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(sidecar.routes[1], options=options) as channel:
        yield channel


def test_a_long_silent_call_begins(quiet_call):
    assert quiet_call.is_active()


@pytest.mark.late
@pytest.mark.timeout(300)
def test_a_call_silent_for_130_s_is_not_ended_by_too_many_pings(quiet_call):
    """A grpcio server with its defaults ends a connection with PINGs more often than every 5 minutes."""
    assert list(quiet_call) == [b"last"]
    assert quiet_call.code() is grpc.StatusCode.OK


def test_a_unary_call_is_answered_with_both_kinds_of_metadata(channel):
    answer, call = channel.unary_unary("/test.Service/Echo").with_call(b"hello", timeout=30)
    assert answer == b"hello"
    initial = {item.key: item.value for item in call.initial_metadata()}
    assert (initial["x-email"], initial["x-initial-bin"]) == (Emulator.EMAIL, b"\x00\xff")
    trailing = {item.key: item.value for item in call.trailing_metadata()}
    assert (trailing["x-trailing"], trailing["x-trailing-bin"]) == ("the end", b"\x01\xfe")


def test_a_stream_of_requests_is_answered_once(channel):
    parts = (bytes([n % 256]) * n for n in range(500))
    answer = channel.stream_unary("/test.Service/Collect")(parts, timeout=60)
    assert answer == b"".join(bytes([n % 256]) * n for n in range(500))


def test_one_request_is_answered_by_a_stream(channel):
    answers = channel.unary_stream("/test.Service/Count")(b"2000", timeout=60)
    assert list(answers) == [str(n).encode() for n in range(2000)]


def test_both_sides_send_in_turn(channel):
    """Each request depends on the previous response, so no message may be held back."""
    turn, said = threading.Semaphore(1), [b"a"]

    def requests():
        for _ in range(50):
            assert turn.acquire(timeout=30)
            yield said[-1]

    for answer in channel.stream_stream("/test.Service/Chat")(requests(), timeout=60):
        said.append(answer.lower() + b"b")
        turn.release()
    assert said[-1] == b"a" + b"b" * 50


def test_an_error_of_the_service_keeps_status_and_message(channel):
    with pytest.raises(grpc.RpcError) as failed:
        channel.unary_unary("/test.Service/Fail")("100 % falsch – ü".encode(), timeout=30)
    assert failed.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert failed.value.details() == "100 % falsch – ü"


def test_an_unknown_method_is_unimplemented(channel):
    with pytest.raises(grpc.RpcError) as failed:
        channel.unary_unary("/test.Service/Nothing")(b"", timeout=30)
    assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_deadline_reaches_the_service_and_ends_the_call(channel, grpc_upstream):
    with pytest.raises(grpc.RpcError) as failed:
        channel.unary_unary("/test.Service/Wait")(b"deadline", timeout=1)
    assert failed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert grpc_upstream.cancelled["deadline"].wait(20)
    # gRPC rounds the remaining time up to fit its header: by a hundredth.
    assert 0 < grpc_upstream.deadlines["deadline"] <= 1.05


def test_a_call_that_is_cancelled_is_cancelled_at_the_service(channel, grpc_upstream):
    call = channel.unary_unary("/test.Service/Wait").future(b"cancelled")
    while "cancelled" not in grpc_upstream.deadlines and not call.done():
        grpc_upstream.cancelled["never"].wait(0.02)
    assert call.cancel()
    assert grpc_upstream.cancelled["cancelled"].wait(20)


def test_large_messages_pass(channel):
    message = bytes(range(256)) * 64 * 1024
    assert channel.unary_unary("/test.Service/Echo")(message, timeout=90) == message


def test_compressed_messages_pass(channel):
    echo = channel.unary_unary("/test.Service/Echo")
    assert echo(b"z" * 100_000, timeout=30, compression=grpc.Compression.Gzip) == b"z" * 100_000


def test_many_calls_share_a_channel(channel):
    echo = channel.unary_unary("/test.Service/Echo")
    calls = [echo.future(str(n).encode(), timeout=90) for n in range(1000)]
    assert [call.result() for call in calls] == [str(n).encode() for n in range(1000)]


def test_the_apps_own_metadata_and_authorization_pass(channel):
    echo = channel.unary_unary("/test.Service/Echo")
    own = (("authorization", "Bearer of-the-user"), ("x-own-bin", b"\x00\x01"))
    assert echo(b"x", timeout=30, metadata=own) == b"x"


def test_an_error_of_the_sidecar_is_a_grpc_status(start):
    with start("--route", "127.0.0.1:0=https://nowhere.a.run.app:1", "--connect-timeout", "2s") as sidecar:
        with grpc.insecure_channel(sidecar.routes[0]) as channel:
            with pytest.raises(grpc.RpcError) as failed:
                channel.unary_unary("/test.Service/Echo")(b"", timeout=20)
    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "nowhere.a.run.app" in failed.value.details()


def test_a_denied_call_is_permission_denied(start):
    rule = "127.0.0.1:0=https://grpc.a.run.app,credential=deny"
    with start("--route", rule) as sidecar, grpc.insecure_channel(sidecar.routes[0]) as channel:
        with pytest.raises(grpc.RpcError) as failed:
            channel.unary_unary("/test.Service/Echo")(b"", timeout=20)
    assert failed.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_calls_without_a_token_are_unauthenticated(start):
    rule = "127.0.0.1:0=https://grpc.a.run.app,credential=none"
    with start("--route", rule) as sidecar, grpc.insecure_channel(sidecar.routes[0]) as channel:
        with pytest.raises(grpc.RpcError) as failed:
            channel.unary_unary("/test.Service/Echo")(b"", timeout=20)
    assert failed.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert failed.value.details() == "no bearer token"
