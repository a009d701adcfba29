"""Servers that zbench starts, over a program with SGLang's words: their ports, and where they are asked."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from commands import TESTS
from factories import trial

from zbench.config import PipelineConfig
from zbench.engines.programs.surroundings import LOGS
from zbench.engines.sglang.options import SGLangOptions
from zbench.engines.sglang.server import SGLangServer, url_at
from zbench.engines.sglang.versions import accepted
from zbench.engines.sglang.words import body_of, server_words

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
    engine = replace(own.engine, target="zbench.engines.sglang:SGLangEngine", options={"flags": {"master-port": 7}})
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
