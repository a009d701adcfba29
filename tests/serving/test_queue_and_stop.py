"""One request is painted at a time; the others wait, leave, are sent away or are told that the server stops."""

import socket

import httpx
import pytest
from commands import wait_for
from gated_server import PATH, WAIT_S, GatedEngine, bare_request, running

from zbench.errors import ZbenchError
from zbench.serving import wire
from zbench.serving.orders import CallSharing


def read_all(connection: socket.socket) -> bytes:
    """Until the server closes it."""
    data = b""
    with connection:
        while chunk := connection.recv(65536):
            data += chunk
    return data


def answered(waiting: "object") -> httpx.Response:
    answer = waiting.get(timeout=WAIT_S)  # type: ignore[attr-defined]
    assert isinstance(answer, httpx.Response), answer
    return answer


def test_a_full_queue_says_when_to_come_again_and_loses_nobody() -> None:
    with running(queue_size=2) as at:
        painting = at.in_background(prompt="hold 0")
        assert at.began() == "hold 0"
        first = at.in_background(prompt="hold 1")
        at.wait_for_metric("zbench_waiting", 1)
        second = at.in_background(prompt="hold 2")
        at.wait_for_metric("zbench_waiting", 2)
        refused = at.post()
        assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["code"] == "queue_full"
        for _ in range(3):
            at.engine.gate.release()
        assert [answered(one).status_code for one in (painting, first, second)] == [200] * 3
        assert [prompt for prompt, *_ in at.engine.painted] == ["hold 0", "hold 1", "hold 2"]


def test_a_client_that_left_the_queue_is_never_painted_and_its_place_is_free() -> None:
    with running(queue_size=1) as at:
        painting = at.in_background(prompt="hold 0")
        at.began()
        gone = bare_request(at, prompt="gone")
        at.wait_for_metric("zbench_waiting", 1)
        gone.close()
        at.wait_for_metric("zbench_waiting", 0)
        after = at.in_background(prompt="after")
        at.wait_for_metric("zbench_waiting", 1)
        at.engine.gate.release()
        assert answered(painting).status_code == answered(after).status_code == 200
        assert [prompt for prompt, *_ in at.engine.painted] == ["hold 0", "after"]
        assert at.metric('zbench_clients_left_total{where="queue"}') == 1


def test_of_a_client_that_left_no_further_image_is_painted() -> None:
    with running() as at:
        connection = bare_request(at, prompt="hold", n=10)
        at.began()
        connection.close()
        wait_for(lambda: at.metric('zbench_clients_left_total{where="pipeline"}') == 1)
        at.engine.gate.release()
        assert at.post(prompt="after").status_code == 200
        assert [prompt for prompt, *_ in at.engine.painted] == ["hold", "after"]


def test_a_stop_answers_what_is_painted_and_sends_the_others_away() -> None:
    with running() as at:
        painting = at.in_background(prompt="hold 0")
        at.began()
        waiting = [at.in_background(prompt=f"{k}") for k in range(3)]
        at.wait_for_metric("zbench_waiting", 3)
        at.server.stop()
        for one in waiting:
            refused = answered(one)
            assert refused.status_code == 503 and refused.json()["error"]["code"] == "stopping"
        with pytest.raises(httpx.ConnectError):
            wait_for(lambda: httpx.get(f"{at.server.url}/health", timeout=WAIT_S).status_code == 0)
        at.engine.gate.release()
        assert answered(painting).status_code == 200
        at.thread.join(WAIT_S)
        assert at.error is None and at.engine.closed
        assert [prompt for prompt, *_ in at.engine.painted] == ["hold 0"]


def test_until_it_is_warmed_up_it_is_not_healthy_and_takes_nothing() -> None:
    engine = GatedEngine()
    engine.loading.clear()
    with running(engine, ready=False) as at:
        wait_for(lambda: at.client.get("/health").json() == {"status": "loading"})
        assert at.client.get("/health").status_code == 503
        refused = at.post()
        assert refused.status_code == 503 and refused.headers["retry-after"]
        assert refused.json()["error"]["code"] == "not_ready"
        engine.loading.set()
        wait_for(lambda: at.client.get("/health").status_code == 200)
        assert len(engine.painted) == 1, "the server's own request"


@pytest.mark.parametrize("misdeed", [RuntimeError("no such pipeline"), ZbenchError("pipeline.weights=x: is not there")])
def test_a_load_that_fails_ends_the_server_with_its_reason(misdeed: Exception) -> None:
    engine = GatedEngine()
    engine.misdeed = misdeed
    with running(engine, ready=False) as at:
        at.thread.join(WAIT_S)
        assert isinstance(at.error, ZbenchError) and str(misdeed) in str(at.error)


def test_a_machine_that_fails_ends_the_server_after_it_told_the_client() -> None:
    with running() as at:
        at.engine.configure = lambda trial: (_ for _ in ()).throw(RuntimeError("CUDA error: unknown error"))
        refused = at.post(num_inference_steps=3)
        assert refused.status_code == 500 and refused.json()["error"]["code"] == "machine"
        at.thread.join(WAIT_S)
        assert isinstance(at.error, ZbenchError) and at.error.exit_code == 4


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: an illegal memory access was encountered",
        "CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported",
        "CUDA error: unspecified launch failure",
        "CUDA error: misaligned address",
    ],
)
def test_an_error_that_cuda_keeps_ends_the_server_and_not_a_batch_one_by_one(said: str) -> None:
    """After it every call of the process fails, whoever is to blame."""
    with running(batching=CallSharing(2)) as at:
        at.engine.sick = RuntimeError(said)
        refused = at.post(n=2)
        assert refused.status_code == 500 and "CUDA error" in refused.json()["error"]["message"]
        at.thread.join(WAIT_S)
        assert isinstance(at.error, ZbenchError) and at.error.exit_code == 4
        assert str(at.error).endswith("no later call can succeed; start the server anew")
        assert len(at.engine.batches) == 1 and at.engine.painted == []


def test_calls_that_fail_one_after_another_end_the_server_once_its_own_fails_too() -> None:
    """Of whatever they fail: nobody is answered 500 for ever."""
    with running() as at:
        at.engine.sick = RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED")
        assert [at.post().status_code for _ in range(3)] == [500] * 3
        at.thread.join(WAIT_S)
        assert isinstance(at.error, ZbenchError) and at.error.exit_code == 4
        assert "3 calls failed, and the server's own request did too" in str(at.error)


def test_requests_that_cannot_be_painted_do_not_end_it() -> None:
    with running() as at:
        assert [at.post(prompt="raise").status_code for _ in range(7)] == [500] * 7
        assert [at.post(prompt="black").status_code for _ in range(7)] == [500] * 7
        assert at.post().status_code == 200


def test_who_waits_when_the_engine_is_lost_is_told() -> None:
    with running(batching=CallSharing(3), queue_size=4) as at:
        painting = at.in_background(prompt="hold")
        at.began()
        waiting = [at.in_background(prompt=f"{k}", num_inference_steps=3 + k % 2) for k in range(4)]
        at.wait_for_metric("zbench_waiting", 4)
        at.engine.sick = RuntimeError("CUDA error: an illegal memory access was encountered")
        at.engine.gate.release()
        assert answered(painting).json()["error"]["code"] == "error"
        told = [answered(one) for one in waiting]
        assert {one.status_code for one in told} == {503}
        assert {one.json()["error"]["code"] for one in told} == {"server_failed"}


def test_a_body_that_is_too_large_is_refused_before_it_is_read() -> None:
    with running() as at:
        connection = at.connect()
        head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        connection.sendall(f"{head}content-length: {wire.LARGEST_BODY + 1}\r\n\r\n".encode())
        answer = read_all(connection)  # which ends, as the server closes
        assert answer.startswith(b"HTTP/1.1 413 ") and b"body_too_large" in answer
        chunk = b"10000\r\n" + b"a" * 0x10000 + b"\r\n"
        with at.connect() as connection:
            connection.sendall(f"{head}transfer-encoding: chunked\r\n\r\n".encode() + chunk * 9)
            assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_body_or_a_head_that_does_not_come_holds_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire.TimelyProtocol, "head_s", 0.2)
    monkeypatch.setattr(wire.read_body, "__defaults__", (wire.LARGEST_BODY, 0.2))
    with running() as at:
        slow_head, slow_body, silent = at.connect(), at.connect(), at.connect()
        slow_head.sendall(b"POST /v1/ima")
        head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        slow_body.sendall(f'{head}content-length: 100\r\n\r\n{{"prompt"'.encode())
        assert read_all(slow_head) == b"" == read_all(silent)
        answer = read_all(slow_body)
        assert answer.startswith(b"HTTP/1.1 408 ") and b"body_too_slow" in answer
        assert at.post().status_code == 200


def test_what_is_painted_may_take_longer_than_a_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire.TimelyProtocol, "head_s", 0.1)
    with running() as at:
        waiting = at.in_background(prompt="hold")
        at.began()
        silent = at.connect()
        assert read_all(silent) == b"", "by now a head would be late"
        at.engine.gate.release()
        assert answered(waiting).status_code == 200


def test_a_client_that_leaves_amid_its_body_costs_nothing() -> None:
    with running() as at:
        connection = at.connect()
        connection.sendall(f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n".encode())
        connection.sendall(b'content-length: 100\r\n\r\n{"prompt": "a')
        connection.close()
        at.wait_for_metric('zbench_clients_left_total{where="body"}', 1)
        assert at.engine.painted == [] and at.post().status_code == 200


def test_fifty_clients_at_once_all_get_their_own_image() -> None:
    with running(queue_size=64) as at:
        answers = [at.in_background(seed=seed) for seed in range(50)]
        told = [answered(one).json() for one in answers]
        assert [one["zbench"]["seed"] for one in told] == list(range(50))
        assert len({one["data"][0]["b64_json"] for one in told}) == 50
