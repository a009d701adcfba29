"""One `sglang serve` that zbench started, or one that was there: until it answers a request of its own, and its end.

`/health` answers long before a server is ready, so readiness is a first image that arrived.
"""

import os
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from zbench.engines import OnProgress
from zbench.engines.failure import CodedError
from zbench.engines.images_client import ImagesClient, ImagesReply, ImagesServerError
from zbench.engines.programs.guarded import GuardedProgram
from zbench.engines.programs.surroundings import logs_folder, users_own
from zbench.engines.sglang.options import SGLangOptions
from zbench.engines.sglang.words import ServerWords
from zbench.errors import ConfigError
from zbench.sanitize import shell_line

POLL_S = 0.2
ATTACH_S = 60.0
"""How long one that somebody else started may take to make a first image: it is said to be there."""

DYING_S = 2.0
"""How long a server may take to be gone after it closed a connection: then its end is the reason, not that."""

GONE = ("unreachable", "closed_early")
"""Of a request that a server's end may have stopped."""

COMPLAINED = ("http_status", "server_died")
"""Of what a server may have written an error to its log."""

INNER_PORTS = ("--scheduler-port", "--master-port")
"""Of SGLang's own processes, always 5555 and 30005 with --strict-ports: a second server on the machine then ends."""

NOT_YET, UNAVAILABLE = (*GONE, "refused"), 503
"""Codes, or the status, of a server that is still starting."""


class ServerFailure(CodedError):
    """The server fails the trial; `code` says how."""

    def __init__(self, code: str, message: str, log_tail: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.code, self.log_tail = code, log_tail


class SGLangServer:
    """A server, and the only client of it."""

    def __init__(self, options: SGLangOptions) -> None:
        self._options = options
        self._program: GuardedProgram | None = None
        self._client: ImagesClient | None = None
        self.parts_s: dict[str, float] = {}
        """Seconds to its first sign of life, `launch`, and those of its first request, `first_request`."""

    def start(
        self,
        make: Callable[[int, Mapping[str, int]], ServerWords],
        body: Mapping[str, Any],
        on_progress: OnProgress | None,
    ) -> None:
        """Start it by what `make` says for its port and its inner ones, and wait until it has answered a first request.

        Raises ServerFailure where it does not, and MachineError where nothing can be started.
        """
        options = self._options
        if options.base_url is not None:
            self._client = self._client_of(options.base_url)
        else:
            free, *inner = _free_ports(options.host, 1 + len(INNER_PORTS))
            port = options.port or free
            _check_free(options, port)
            self._launch(make(port, dict(zip(INNER_PORTS, inner, strict=True))), port)
        began = time.perf_counter()
        waiting = _Waiting(began + self._patience_s, on_progress)
        while not self._own_client.health():
            waiting.on("to start", self._lost(waiting))
        self.parts_s["launch"] = time.perf_counter() - began
        reply = self._first_request(dict(body), waiting)
        self.parts_s["first_request"] = reply.latency_s

    def generate(self, body: dict[str, Any]) -> ImagesReply:
        """One request. Any thread may ask. Raises ServerFailure."""
        before = self._log_bytes()
        try:
            return self._own_client.generate(body)
        except ImagesServerError as error:
            raise self._told(error, before) from error

    @property
    def log(self) -> Path | None:
        """Of one that zbench started."""
        return None if self._program is None else self._program.log

    @property
    def scratch(self) -> Path | None:
        """A folder that lasts as long as the one that zbench started."""
        return None if self._program is None else self._program.scratch

    @property
    def command(self) -> tuple[str, ...]:
        """That started it; empty where somebody else did."""
        return () if self._program is None else self._program.command

    @property
    def pids(self) -> tuple[int, ...]:
        """All its processes; none are known of one that somebody else started."""
        return () if self._program is None else self._program.pids

    def said(self) -> str:
        """All that it printed so far."""
        return "" if self._program is None else self._program.said()

    def close(self) -> None:
        """End what zbench started."""
        client, self._client = self._client, None
        if client is not None:
            client.close()
        program, self._program = self._program, None
        if program is not None:
            program.close()

    @property
    def _patience_s(self) -> float:
        limit_s = self._options.ready_timeout_s
        return limit_s if self._options.base_url is None else min(limit_s, ATTACH_S)

    @property
    def _own_client(self) -> ImagesClient:
        assert self._client is not None, "generate comes after start"
        return self._client

    def _launch(self, words: ServerWords, port: int) -> None:
        folder = logs_folder()
        log = next(p for n in range(1, 10**6) if not (p := folder / f"sglang-{os.getpid()}-{n}.log").exists())
        scratch = Path(tempfile.gettempdir()) / f"zbench-sglang-{os.getpid()}-{secrets.token_hex(4)}"
        self._program = GuardedProgram(words.command, users_own() | words.environment, log, scratch)
        print(f"{log.name}: {shell_line(words.command)}", flush=True)  # in the worker's log
        self._client = self._client_of(url_at(self._options.host, port))

    def _client_of(self, url: str) -> ImagesClient:
        options = self._options
        return ImagesClient(
            url,
            key_env=options.key_env,  # None of a server that zbench starts
            timeout_s=options.request_timeout_s,
            timeout_key="engine.options.request_timeout_s",
        )

    def _first_request(self, body: dict[str, Any], waiting: "_Waiting") -> ImagesReply:
        """Asked until it is answered; what a server says that is still starting is no answer."""
        while True:
            answer: list[ImagesReply | Exception] = []
            before = self._log_bytes()
            asking = threading.Thread(target=self._ask, args=(body, answer), name="zbench-first-request", daemon=True)
            asking.start()
            while asking.is_alive():
                waiting.on("to make its first image", self._lost(waiting), asking)
            made = answer[0]
            if isinstance(made, ImagesReply):
                return made
            if not isinstance(made, ImagesServerError):
                raise made
            if made.code not in NOT_YET and made.status != UNAVAILABLE:
                raise self._told(made, before)
            waiting.on("to make its first image", self._lost(waiting))

    def _ask(self, body: dict[str, Any], answer: list[ImagesReply | Exception]) -> None:
        try:
            answer.append(self._own_client.generate(body))
        except Exception as error:
            answer.append(error)

    def _lost(self, waiting: "_Waiting") -> ServerFailure | None:
        """Why there is nothing to wait for any more."""
        if self._program is not None and self._program.exit_code is not None:
            return self._death("before it had made its first image")
        if waiting.is_over:
            limit = f"engine.options.ready_timeout_s={self._options.ready_timeout_s:g}"
            if self._options.base_url is None:
                return self._failure("server_not_ready", f"sglang serve had not made its first image within {limit}")
            said = f"{self._options.base_url} had not answered with an image within {self._patience_s:g} s"
            return self._failure("server_not_ready", f"{said}; start it, or leave engine.base_url out")
        return None

    def _log_bytes(self) -> int:
        return 0 if self._program is None else self._program.log_bytes()

    def _told(self, error: ImagesServerError, before: int) -> ServerFailure:
        """A failed request, or the end of the server behind it. The log had `before` bytes when it was sent."""
        until = time.monotonic() + DYING_S
        while self._program is not None and error.code in GONE and time.monotonic() < until:
            if self._program.exit_code is not None:
                return self._death("during a request", before)
            time.sleep(POLL_S / 4)
        if error.code == "http_status":
            self._await_complaint(before)
        return self._failure(error.code, str(error), before)

    def _await_complaint(self, before: int) -> None:
        """A server answers first, and writes what was wrong to its log then."""
        until = time.monotonic() + DYING_S
        while self._program is not None and time.monotonic() < until:
            if self._program.complaint(before):
                return
            time.sleep(POLL_S / 4)

    def _death(self, when: str, before: int = 0) -> ServerFailure:
        assert self._program is not None
        return self._failure("server_died", f"sglang serve {self._program.death()} {when}", before)

    def _failure(self, code: str, message: str, before: int = 0) -> ServerFailure:
        """With the log's end; the message has its last error after `before` bytes, or else its last line."""
        if self._program is None:
            return ServerFailure(code, message)
        words, log = self._program.last_words(), self._program.log.name
        complaint = self._program.complaint(before) if code in COMPLAINED else None
        said = f"{log} says: {complaint}" if complaint else f"{log} ends: {words[-1]}" if words else f"{log} is empty"
        return ServerFailure(code, f"{message}; {said}", words)


class _Waiting:
    """Until a time on the clock of `time.perf_counter`, with progress told."""

    def __init__(self, until: float, on_progress: OnProgress | None) -> None:
        self._until, self._on_progress = until, on_progress

    @property
    def is_over(self) -> bool:
        return time.perf_counter() > self._until

    def on(self, what: str, lost: ServerFailure | None, asking: threading.Thread | None = None) -> None:
        """A moment more, or less if `asking` ends before; raises what was lost."""
        if lost is not None:
            raise lost
        if self._on_progress is not None:
            self._on_progress(f"waiting for the server {what}", 0, 0)
        if asking is not None:
            asking.join(POLL_S)
        else:
            time.sleep(POLL_S)


def _free_ports(host: str, count: int) -> list[int]:
    """So many, each another, that nobody listens at now."""
    with ExitStack() as held:
        bound = [held.enter_context(socket.socket(_family(host))) for _ in range(count)]
        for each in bound:
            each.bind((host, 0))
        return [each.getsockname()[1] for each in bound]


def _check_free(options: SGLangOptions, port: int) -> None:
    """Raise ConfigError for an address that another process has: its answers would be taken for the server's."""
    try:
        with socket.socket(_family(options.host)) as bound:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((options.host, port))
    except OSError as error:
        way = f"cannot be listened at ({error.strerror}); give another, or 0 for a free one"
        raise ConfigError("engine.options.port", f"{options.host}:{port}", way) from error


def url_at(host: str, port: int) -> str:
    """Where one that listens at `host` is asked from this machine."""
    near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{near}]:{port}" if ":" in near else f"http://{near}:{port}"


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
