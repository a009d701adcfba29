"""The client of an images endpoint, against a real HTTP server that misbehaves."""

import base64
import io
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from images_server import Call, images_server, picture, pixels
from PIL import Image

from zbench.engines.images_client import ImagesClient, ImagesServerError, server_url
from zbench.errors import ConfigError

KEY = "sk-very/secret+123"


OPEN: list[ImagesClient] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()


def client(url: str, *, timeout_s: float = 30.0, key_env: str | None = None) -> ImagesClient:
    OPEN.append(ImagesClient(url, key_env=key_env, timeout_s=timeout_s, largest_bytes=2**22))
    return OPEN[-1]


def error_of(script: Any, **settings: Any) -> ImagesServerError:
    with images_server(script) as server, pytest.raises(ImagesServerError) as told:
        client(server.url, **settings).generate({"prompt": "a cat"})
    assert server.url in str(told.value) and "\n" not in str(told.value)
    return told.value


def test_a_good_answer_is_read_whole() -> None:
    said = {"inference_time_s": 0.25, "peak_memory_mb": 12.5, "id": "x", "zbench": {"steps": 8}}
    with images_server(lambda call: call.images(picture(3), picture(4), **said)) as server:
        reply = client(server.url).generate({"prompt": "a cat", "n": 2})
    assert server.calls[0].path == "/v1/images/generations" and server.calls[0].body == {"prompt": "a cat", "n": 2}
    assert (reply.images[0] == pixels(3)).all() and len(reply.images) == 1 and reply.count == 2
    assert reply.server_s == 0.25 and reply.peak_memory_bytes == 12.5 * 2**20
    assert reply.fields == {"created": 1, "id": "x", "zbench": {"steps": 8}}
    assert reply.latency_s == reply.done_s - reply.sent_s > 0


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_other_formats_are_read(form: str) -> None:
    with images_server(lambda call: call.images(picture(form=form))) as server:
        assert client(server.url).generate({"prompt": "a"}).images[0].shape == (48, 64, 3)


@pytest.mark.parametrize("said", [{}, {"inference_time_s": "fast", "peak_memory_mb": None}, {"inference_time_s": -1}])
def test_a_server_that_tells_no_time_is_not_guessed_for(said: dict[str, Any]) -> None:
    with images_server(lambda call: call.images(picture(), **said)) as server:
        reply = client(server.url).generate({"prompt": "a"})
    assert reply.server_s is None and reply.peak_memory_bytes is None


def test_many_threads_call_at_once_each_on_a_connection_of_its_own() -> None:
    """The server answers nobody before all eight are there."""
    together = threading.Barrier(8, timeout=60)

    def script(call: Call) -> None:
        together.wait()
        call.images(picture(call.body["seed"]))

    seen: dict[int, Any] = {}
    with images_server(script) as server:
        one = client(server.url)
        threads = [
            threading.Thread(target=lambda k=k: seen.update({k: one.generate({"seed": k}).images[0]})) for k in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert all((seen[k] == pixels(k)).all() for k in range(8))


def test_a_server_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(ImagesServerError, match=r"cannot be reached .*; start the server") as told:
        client(url).generate({})
    assert told.value.code == "unreachable" and not client(url).health()


def test_one_that_is_alive_and_never_ready() -> None:
    def script(call: Call) -> None:
        call.answer(503, {"error": {"message": "it loads"}})

    with images_server(script) as server:
        one = client(server.url)
        assert not one.health()
        with pytest.raises(ImagesServerError, match="status 503: it loads") as told:
            one.generate({})
        assert told.value.code == "http_status" and told.value.status == 503
        server.script = lambda call: call.answer(200, {})
        assert one.health()


def test_a_sign_of_life_is_its_status_whatever_body_never_ends() -> None:
    def script(call: Call) -> None:
        call.head(200)
        while True:  # until the client leaves
            call.write(b"alive " * 100)

    with images_server(script) as server:
        assert client(server.url).health()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"error": {"message": "the pipeline broke\nover two lines"}}, "the pipeline broke over two lines"),
        ({"detail": "no such size"}, "no such size"),
        ({"detail": [{"msg": "too many", "loc": ["body", "n"]}]}, "body.n: too many"),
        (b"<html>oh no</html>", "<html>oh no</html>"),
        (b"\xff\xfe", "\ufffd"),
        (b"x" * 10_000_000, "xxx"),
    ],
)
def test_an_error_of_the_server_is_told_in_its_words(body: Any, says: str) -> None:
    told = error_of(lambda call: call.answer(500, body))
    assert told.code == "http_status" and f"status 500: {says}" in str(told) and len(str(told)) < 500


def test_a_server_that_is_full_says_when_to_come_again() -> None:
    told = error_of(lambda call: call.answer(429, {"error": {"message": "full"}}, retry_after="7"))
    assert (told.code, told.retry_after_s, told.status) == ("refused", 7.0, 429)
    assert error_of(lambda call: call.answer(429, b"", retry_after="tomorrow")).retry_after_s is None


def broken_png() -> str:
    """The beginning of a picture."""
    raw = base64.b64decode(picture())
    return base64.b64encode(raw[: len(raw) // 2]).decode()


def huge_png() -> str:
    """A few bytes that decode to more pixels than any trial makes."""
    held = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(held, format="PNG")
    return base64.b64encode(held.getvalue()).decode()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"not json", "not JSON"),
        (b"[1]", "JSON that is no object"),
        (b"{}", "an answer without images"),
        ({"data": []}, "an answer without images"),
        ({"data": [{"url": "http://example.com/x.png"}]}, "an image's URL in place of b64_json; none is fetched"),
        ({"data": [3]}, "no b64_json"),
        ({"data": [{"b64_json": "not base64!"}]}, "an image that cannot be read"),
        ({"data": [{"b64_json": base64.b64encode(b"GIF89a no picture").decode()}]}, "an image that cannot be read"),
        ({"data": [{"b64_json": broken_png()}]}, "an image that cannot be read"),
        ({"data": [{"b64_json": huge_png()}]}, "an image that cannot be read"),
        (b'{"data": [{"b64_json": NaN}]}', "not JSON"),
        (b"[" * 100_000, "not JSON that can be read"),
    ],
)
def test_an_answer_that_is_none_is_said_so(content: Any, says: str) -> None:
    told = error_of(lambda call: call.answer(200, content))
    assert told.code == "broken_reply" and says in str(told)


def test_an_answer_that_is_too_large_is_not_read_to_its_end() -> None:
    def declared(call: Call) -> None:
        call.head(200, content_length=str(2**40))

    def endless(call: Call) -> None:
        call.head(200, transfer_encoding="chunked")
        while True:
            call.write(b"100000\r\n" + b" " * 2**20 + b"\r\n")

    assert "more than 4,194,304" in str(error_of(declared))
    told = error_of(endless)
    assert told.code == "broken_reply" and "more than 4,194,304" in str(told)


def test_a_body_that_unpacks_into_more_is_refused() -> None:
    told = error_of(lambda call: call.answer(200, b"x", content_encoding="gzip"))
    assert told.code == "broken_reply" and "compressed" in str(told)


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("begun", [False, True])
def test_a_connection_that_is_closed_early(begun: bool, reset: bool) -> None:
    def script(call: Call) -> None:
        if begun:
            call.head(200, content_length="1000")
            call.write(b'{"data"')
        call.hang_up(reset=reset)

    told = error_of(script)
    assert told.code == "closed_early" and "before its answer was whole" in str(told)


def test_what_is_no_http_is_a_broken_reply() -> None:
    told = error_of(lambda call: call.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"))
    assert told.code == "broken_reply" and "no HTTP" in str(told)


def test_a_server_that_does_not_answer_in_time() -> None:
    """Both silence and an answer in drops, of which each comes in time."""
    left = threading.Event()

    def silent(call: Call) -> None:
        left.wait(60)

    def drops(call: Call) -> None:
        call.head(200, content_length="1000000")
        while not left.is_set():
            call.write(b" ")
            time.sleep(0.02)

    try:
        for script in (silent, drops):
            told = error_of(script, timeout_s=0.3)
            assert told.code == "timeout" and "within 0.3 s; engine.options.timeout_s" in str(told)
    finally:
        left.set()


def test_it_goes_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither where a redirect leads nor to a proxy that the environment names."""
    with images_server(lambda call: call.images(picture())) as elsewhere:
        for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(variable, elsewhere.url)
        told = error_of(lambda call: call.answer(307, b"", location=f"{elsewhere.url}/v1/images/generations"))
        assert told.code == "http_status" and "leads elsewhere" in str(told)
        assert not elsewhere.calls


def test_the_names_of_its_models() -> None:
    listed = {"object": "list", "data": [{"id": "z-image"}, {"id": "b"}, 3]}
    with images_server(lambda call: call.answer(200, listed)) as server:
        assert client(server.url).models() == ["z-image", "b"]


def test_a_key_is_sent_and_told_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", KEY)

    def echo(call: Call) -> None:
        call.answer(500, {"error": {"message": f"key {call.headers['authorization']} is odd"}})

    told = error_of(echo, key_env="A_KEY")
    assert "key Bearer *** is odd" in str(told)
    denied = error_of(lambda call: call.answer(401, {"error": {"message": KEY[:9]}}), key_env="A_KEY")
    assert KEY[:9] not in str(denied) and "(A_KEY) is named by engine.options.key_env" in str(denied)
    garbled = error_of(lambda call: call.write(call.headers["authorization"].encode() + b"\r\n\r\n"), key_env="A_KEY")
    assert KEY not in str(garbled)
    with images_server(lambda call: call.images(picture(), seen={"as": [KEY]}, **{KEY: 1})) as server:
        reply = client(server.url, key_env="A_KEY").generate({})
        assert server.calls[0].headers["authorization"] == f"Bearer {KEY}"
    assert reply.fields == {"created": 1, "seen": {"as": ["***"]}, "***": 1}


def test_without_a_key_none_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("A_KEY", raising=False)
    with images_server(lambda call: call.images(picture())) as server:
        client(server.url, key_env="A_KEY").generate({})
        client(server.url).generate({})
    assert all("authorization" not in call.headers for call in server.calls)


@pytest.mark.parametrize("key", ["sk a", "sk\nx: y", "schlüssel"])
def test_a_key_that_no_header_holds_is_one_line_without_it(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", key)
    with pytest.raises(ConfigError, match=r"engine.options.key_env=A_KEY: .*; set it anew") as told:
        client("http://127.0.0.1:1", key_env="A_KEY")
    assert key not in str(told.value)


@pytest.mark.parametrize(
    ("typed", "url"),
    [
        ("http://127.0.0.1:30000", "http://127.0.0.1:30000"),
        ("http://127.0.0.1:30000/", "http://127.0.0.1:30000"),
        ("http://127.0.0.1:30000/v1/", "http://127.0.0.1:30000"),
        ("https://example.com/images/v1", "https://example.com/images"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_addresses(typed: str, url: str) -> None:
    assert server_url(typed) == url


@pytest.mark.parametrize(
    "typed",
    ["", "127.0.0.1:30000", "localhost", "ftp://a", "http://", "http://a:99999", "http://a:b", "http://a?key=x#y"],
)
def test_what_is_no_address_is_one_line(typed: str) -> None:
    with pytest.raises(ConfigError, match=r"^engine.base_url=.*must be http://HOST:PORT"):
        server_url(typed)


@pytest.mark.parametrize("typed", ["http://me:sk-secret@127.0.0.1:1", "http://sk-secret@h:x", "http://h?key=sk-secret"])
def test_an_address_that_holds_a_key_is_refused_without_showing_it(typed: str) -> None:
    with pytest.raises(ConfigError) as told:
        server_url(typed)
    assert "sk-secret" not in str(told.value)
