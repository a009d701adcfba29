"""A client of OpenAI's images endpoint, of any server that has one: one call, its first image, and what it told.

Whatever goes wrong on the way is one `ImagesServerError`, in one line that holds no key. It follows no redirect, asks
no proxy and fetches no URL that a reply names, so that no request leaves the address that it was given.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
import os
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from zbench.decode import plain
from zbench.engines.failure import CodedError
from zbench.engines.formats import format_in
from zbench.errors import ConfigError, one_line
from zbench.quality.artifacts import open_picture

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

GENERATIONS = "/v1/images/generations"

LARGEST_REPLY = 2**28
"""Bytes of a reply that is read: ten images of 2048×2048 pixels that no format makes smaller, in base64."""

LARGEST_COMPLAINT = 2**16
"""Bytes of an error's body that are read."""

SHOWN = 300
"""Characters of what a server complains about that a message shows."""

CONNECT_S = 10.0
"""Most seconds for a connection to be taken up."""

SIGN_OF_LIFE_S = 5.0
"""Most seconds for an answer of `/health`."""

IDLE_S = 2.0
"""A connection that was idle for longer is not used again: uvicorn closes its own after 5 s."""

FORMATS = ("PNG", "JPEG", "WEBP")
HIDDEN = "***"
MIB = 2**20


class ImagesServerError(CodedError):
    """A request that a server did not answer with images."""

    def __init__(
        self, code: str, message: str, *, status: int | None = None, retry_after_s: float | None = None
    ) -> None:
        """`code` is unreachable, timeout, closed_early, broken_reply, http_status, refused (429) or other_work.

        `status` is the HTTP status, `retry_after_s` when a server that refused wants to be asked again.
        """
        super().__init__(message)
        self.code, self.status, self.retry_after_s = code, status, retry_after_s


@dataclass(frozen=True)
class ImagesReply:
    """One answer. Times are seconds, `sent_s` and `done_s` on the clock of `time.perf_counter`."""

    images: list[NDArray[np.uint8]]  # the first alone, height × width × 3, RGB
    count: int  # images that came
    sent_s: float
    done_s: float  # when its last byte was there; what it holds was decoded afterwards
    server_s: float | None = None  # `inference_time_s`
    peak_memory_bytes: int | None = None  # `peak_memory_mb`
    image_format: str | None = None  # png, jpeg or webp, as the picture itself says
    fields: dict[str, Any] = field(default_factory=dict)  # all else that it says

    @property
    def latency_s(self) -> float:
        """From the request to the last byte of its answer."""
        return self.done_s - self.sent_s


class ImagesClient:
    """Of one server. Any number of threads may call at once; each call has a connection of its own."""

    def __init__(
        self,
        base_url: str,
        *,
        key_env: str | None,
        timeout_s: float,
        timeout_key: str = "engine.options.timeout_s",
        largest_bytes: int = LARGEST_REPLY,
    ) -> None:
        """`key_env` names the environment variable of the key, if there is one; where it is not set, none is sent.

        `timeout_s` is how long one answer may take, `timeout_key` the option that says so. Raises ConfigError for an
        address or a key that cannot be one.
        """
        self.url = server_url(base_url)
        self._key = key_in(key_env)
        self._key_env = key_env
        self._timeout_s, self._timeout_key, self._largest_bytes = timeout_s, timeout_key, largest_bytes
        self._client = httpx.Client(
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, CONNECT_S), pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=IDLE_S),
            follow_redirects=False,
            trust_env=False,  # no proxy, and no key out of a .netrc
            verify=ssl.create_default_context(),  # by the certificates of this machine
            headers={"accept-encoding": "identity"} | ({"authorization": f"Bearer {self._key}"} if self._key else {}),
        )

    def generate(self, body: dict[str, Any]) -> ImagesReply:
        """One request for images. Raises ImagesServerError."""
        request = self._client.build_request("POST", self.url + GENERATIONS, json=body)
        with self._told():
            sent_s = time.perf_counter()
            raw = self._answer(request, sent_s)
            done_s = time.perf_counter()
        return self._read(raw, sent_s, done_s)

    def health(self) -> bool:
        """Whether `/health` says 200: a sign of life, and no more."""
        try:
            with self._client.stream("GET", f"{self.url}/health", timeout=SIGN_OF_LIFE_S) as response:
                return response.status_code == 200  # what it says besides is not read
        except httpx.HTTPError:
            return False

    def models(self) -> list[str]:
        """The names of its models. Raises ImagesServerError."""
        request = self._client.build_request("GET", f"{self.url}/v1/models", timeout=CONNECT_S)
        with self._told():
            raw = self._answer(request, time.perf_counter())
        listed = self._json(raw).get("data")
        entries = listed if isinstance(listed, list) else []
        return [str(entry["id"]) for entry in entries if isinstance(entry, dict) and "id" in entry]

    def close(self) -> None:
        """Let go of its connections."""
        self._client.close()

    def _answer(self, request: httpx.Request, sent_s: float) -> bytes:
        """The body of an answer of status 200."""
        response = self._client.send(request, stream=True)
        try:
            if response.status_code != 200:
                raise self._refused(response)
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                raise self._broken("a compressed body, which nobody asked for")
            declared = response.headers.get("content-length", "")
            if declared.isdecimal() and int(declared) > self._largest_bytes:
                raise self._broken(f"{int(declared):,} bytes, more than {self._largest_bytes:,}")
            read = bytearray()
            for chunk in response.iter_raw():
                read += chunk
                if len(read) > self._largest_bytes:
                    raise self._broken(f"more than {self._largest_bytes:,} bytes")
                if time.perf_counter() - sent_s > self._timeout_s:
                    raise self._too_late()
            return bytes(read)
        finally:
            response.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What fails on the way, in one line. Of a cause that may hold the request's head nothing is passed on."""
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            said = self._without_key(one_line(error)) or "no answer"
            message = f"{self.url}: cannot be reached ({said}); start the server, or name another by engine.base_url"
            raise ImagesServerError("unreachable", message) from None
        except httpx.TimeoutException:
            raise self._too_late() from None
        except (httpx.NetworkError, httpx.RemoteProtocolError) as error:
            said = self._without_key(one_line(error))
            if isinstance(error, httpx.RemoteProtocolError) and not _is_an_end(said):
                raise self._broken(f"no HTTP ({said})") from None
            message = f"{self.url}: closed the connection before its answer was whole ({said}); its log says why"
            raise ImagesServerError("closed_early", message) from None
        except httpx.HTTPError as error:
            raise self._broken(f"no HTTP ({self._without_key(one_line(error))})") from None

    def _too_late(self) -> ImagesServerError:
        took = f"no whole answer within {self._timeout_s:g} s; {self._timeout_key} sets how long"
        return ImagesServerError("timeout", f"{self.url}: {took}")

    def _broken(self, what: str) -> ImagesServerError:
        return ImagesServerError("broken_reply", f"{self.url}: sent {what}")

    def _refused(self, response: httpx.Response) -> ImagesServerError:
        """What an answer of another status says. Who refuses a key may repeat it, so his words are left out."""
        status = response.status_code
        begins = f"{self.url}: status {status}"
        if status in (401, 403):
            variable = self._key_env or "none is named"
            way = f"the server wants a key; its environment variable ({variable}) is named by engine.options.key_env"
            return ImagesServerError("http_status", f"{begins}: {way}", status=status)
        if 300 <= status < 400:
            return ImagesServerError(
                "http_status", f"{begins}: it leads elsewhere, where zbench does not go", status=status
            )
        said = _complaint(self._some_of(response))
        message = f"{begins}: {self._without_key(said)[:SHOWN]}" if said else begins
        if status != 429:
            return ImagesServerError("http_status", message, status=status)
        after = response.headers.get("retry-after", "")
        after_s = float(after) if after.isdecimal() and len(after) < 10 else None
        return ImagesServerError("refused", message, status=status, retry_after_s=after_s)

    def _some_of(self, response: httpx.Response) -> bytes:
        read = bytearray()
        for chunk in response.iter_raw():
            read += chunk
            if len(read) >= LARGEST_COMPLAINT:
                break
        return bytes(read[:LARGEST_COMPLAINT])

    def _json(self, raw: bytes) -> dict[str, Any]:
        try:
            found = plain(raw)
        except ValueError as error:
            raise self._broken(f"what is {self._without_key(one_line(error))}") from None
        if not isinstance(found, dict):
            raise self._broken("JSON that is no object")
        return found

    def _read(self, raw: bytes, sent_s: float, done_s: float) -> ImagesReply:
        reply = self._json(raw)
        data = reply.pop("data", None)
        if not isinstance(data, list) or not data:
            raise self._broken("an answer without images (data)")
        image, image_format = self._picture(data[0])
        server_s = _figure(reply.pop("inference_time_s", None))
        peak_mib = _figure(reply.pop("peak_memory_mb", None))
        return ImagesReply(
            images=[image],
            count=len(data),
            sent_s=sent_s,
            done_s=done_s,
            server_s=server_s,
            peak_memory_bytes=None if peak_mib is None else round(peak_mib * MIB),
            image_format=image_format,
            fields=self._hidden(reply),
        )

    def _picture(self, entry: Any) -> tuple[NDArray[np.uint8], str | None]:
        """The pixels of one image, and the format of its file."""
        import numpy as np

        encoded = entry.get("b64_json") if isinstance(entry, dict) else None
        if not isinstance(encoded, str):
            url = isinstance(entry, dict) and isinstance(entry.get("url"), str)
            raise self._broken("an image's URL in place of b64_json; none is fetched" if url else "no b64_json")
        try:
            made = base64.b64decode(encoded, validate=True)
            picture = open_picture(io.BytesIO(made), "an image", formats=FORMATS)
        except (binascii.Error, OSError, ValueError) as error:
            said = self._without_key(one_line(error)).replace("<_io.BytesIO object at ", "<")
            raise self._broken(f"an image that cannot be read ({said[:SHOWN]})") from None
        return np.asarray(picture), format_in(made)

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, HIDDEN) if self._key else text

    def _hidden(self, value: Any) -> Any:
        """What a server said, without the key."""
        if isinstance(value, dict):
            return {self._without_key(key): self._hidden(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._hidden(item) for item in value]
        return self._without_key(value) if isinstance(value, str) else value


def server_url(base_url: str, key: str = "engine.base_url") -> str:
    """`base_url` without a last `/v1` and `/`. Raises ConfigError that names `key` for what is no server's address."""
    problem = "must be http://HOST:PORT, such as http://127.0.0.1:30000"
    try:
        url = httpx.URL(base_url.strip())
        port_fits = url.port is None or 0 < url.port < 65536
    except (httpx.InvalidURL, TypeError, ValueError):
        raise ConfigError(key, "…" if "@" in base_url else base_url[:100], problem) from None
    if url.userinfo:
        hidden = "it holds a name or a key; keys come from the environment alone (engine.options.key_env)"
        raise ConfigError(key, f"{url.scheme}://…@{url.host}", hidden)
    if url.scheme not in ("http", "https") or not url.host or not port_fits or url.query or url.fragment:
        raise ConfigError(key, str(url.copy_with(query=None, fragment=None))[:100] or "''", problem)
    return str(url).rstrip("/").removesuffix("/v1").rstrip("/")


def key_in(key_env: str | None) -> str | None:
    """The key that an environment variable holds, if it is set.

    Raises ConfigError, which does not show it, for one that no header can hold.
    """
    key = os.environ.get(key_env, "").strip() if key_env else ""
    if any(not "!" <= char <= "~" for char in key):
        problem = f"the key in {key_env} holds a character that no key has, such as a space; set it anew"
        raise ConfigError("engine.options.key_env", key_env, problem)
    return key or None


def _is_an_end(said: str) -> bool:
    """Whether httpx means that a connection ended, and not that what came over it is none of HTTP."""
    return "disconnected" in said or "closed" in said


def _figure(value: Any) -> float | None:
    """A number that is no less than 0; what else a server says is none."""
    fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and 0 <= value < 1e9
    return float(value) if fits else None


def _complaint(raw: bytes) -> str:
    """What an error's body says: OpenAI's `error.message`, FastAPI's `detail`, or its text."""
    try:
        told = plain(raw)
    except ValueError:
        told = raw.decode(errors="replace")
    for name in ("error", "message", "detail"):
        told = told.get(name, told) if isinstance(told, dict) else told
    if isinstance(told, list) and told and isinstance(told[0], dict):  # pydantic's faults
        place = ".".join(map(str, told[0].get("loc", ())))
        told = ": ".join(filter(None, (place, str(told[0].get("msg", told[0])))))
    return " ".join(str(told).split())
