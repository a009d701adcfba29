"""Servers that zbench starts, over a program with SGLang's words: their ports, and where they are asked."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from commands import TESTS
from factories import trial
from images_server import Call, images_server, picture

from zbench.config import PipelineConfig, ServedEngineConfig
from zbench.engines.images_client import ImagesServerError
from zbench.engines.programs.guarded import GuardedProgram
from zbench.engines.programs.surroundings import LOGS
from zbench.engines.sglang import SGLangEngine
from zbench.engines.sglang.launch import TARGET
from zbench.engines.sglang.options import SGLangOptions
from zbench.engines.sglang.server import ServerFailure, SGLangServer, url_at
from zbench.engines.sglang.versions import accepted
from zbench.engines.sglang.words import body_of, server_words
from zbench.trial import Trial

OPTIONS = SGLangOptions(
    program=(sys.executable, str(TESTS / "fake_sglang.py")),
    environment=(("PYTHONPATH", str(TESTS.parent)),),
    ready_timeout_s=60.0,
)
TURBO = PipelineConfig(name="zimage_turbo", preset="zimage_turbo", width=64, height=48, steps=2)


@contextmanager
def started(options: SGLangOptions) -> Iterator[SGLangServer]:
    """A server that made its first image; it is gone afterwards."""
    own = replace(trial(), pipeline=TURBO)
    body = body_of(own, own.workload.prompts[0], 0, per_request=True)
    server = SGLangServer(options)
    try:
        server.start(partial(server_words, own, options, accepted("0.5.23")), body, None)
        assert server.generate(body).count == 1
        yield server
    finally:
        server.close()


def asked_of(url: str) -> Trial:
    """A trial of a server that is there."""
    return trial(pipeline=TURBO, engine=ServedEngineConfig(name="sglang", target=TARGET, base_url=url))


def value(command: tuple[str, ...], flag: str) -> int:
    """Of a flag that is there."""
    return int(command[command.index(flag) + 1])


def test_two_servers_of_one_machine_share_no_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOGS, str(tmp_path))
    with started(OPTIONS) as one, started(OPTIONS) as other:  # such as trials side by side, a device each
        flags = ("--port", "--scheduler-port", "--master-port")
        ports = [value(each.command, flag) for each in (one, other) for flag in flags]
    assert len(set(ports)) == 6


def test_a_port_that_the_user_names_stays() -> None:
    own = replace(trial(), pipeline=TURBO)
    inner = {"--scheduler-port": 41, "--master-port": 42}
    command = server_words(own, OPTIONS, accepted("0.5.23"), 40, inner).command
    assert (value(command, "--scheduler-port"), value(command, "--master-port")) == (41, 42)
    engine = replace(own.engine, target=TARGET, options={"flags": {"master-port": 7}})
    command = server_words(replace(own, engine=engine), OPTIONS, accepted("0.5.23"), 40, inner).command
    assert command.count("--master-port") == 1 and value(command, "--master-port") == 7


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:1"),
        ("0.0.0.0", "http://127.0.0.1:1"),
        ("::1", "http://[::1]:1"),
        ("::", "http://[::1]:1"),
    ],
)
def test_a_server_is_asked_on_this_machine(host: str, url: str) -> None:
    assert url_at(host, 1) == url


def test_too_long_an_answer_names_the_key_that_sets_how_long() -> None:
    def script(call: Call) -> None:
        call.answer(200, {}) if call.path == "/health" else call.head(200)

    with images_server(script) as there:
        own = asked_of(there.url)
        engine = SGLangEngine(there.url, request_timeout_s=0.2).engine()
        with pytest.raises(ServerFailure, match=r"within 0.2 s; engine.options.request_timeout_s sets how long"):
            engine.launch(own)
        engine.close()


def test_of_a_server_that_is_there_nothing_is_said_that_its_launch_decided() -> None:
    with images_server(lambda call: call.images(picture(0, (64, 48)))) as there:
        own = asked_of(there.url)
        engine = SGLangEngine(there.url).engine()
        engine.launch(own)
        engine.configure(own)
        took = engine.effective()
        engine.close()
    assert (took.compile, took.graphs, took.offload, took.pin_memory, took.weights) == (None,) * 5
    assert took.weights_note is not None and "the server's own" in took.weights_note


class Answering:
    """Stands in for a server's client: another request is sent and answered before the first one fails."""

    def __init__(self, server: SGLangServer, log: Path) -> None:
        self._server, self._log = server, log

    def generate(self, body: dict[str, Any]) -> str:
        if body["prompt"] == "well":
            return "an image"
        self._log.write_text("RuntimeError: no kernel image\n")
        assert self._server.generate({"prompt": "well"}) == "an image"
        raise ImagesServerError("http_status", "status 500", status=500)


def test_a_request_that_fails_beside_others_names_the_error_in_the_log(tmp_path: Path) -> None:
    server, log = SGLangServer(OPTIONS), tmp_path / "log"
    server._program = GuardedProgram([sys.executable, "-c", "import time; time.sleep(60)"], dict(os.environ), log)
    server._client = cast(Any, Answering(server, log))
    try:
        with pytest.raises(ServerFailure, match="status 500; log says: RuntimeError: no kernel image"):
            server.generate({"prompt": "ill"})
    finally:
        server._client = None
        server.close()
