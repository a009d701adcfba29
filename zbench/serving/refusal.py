"""Why a request is not answered with images, in OpenAI's form: `{"error": {"message", "type", "param", "code"}}`."""

from collections.abc import Mapping
from typing import Any

from zbench.sanitize import printable

TYPES = {401: "authentication_error", 429: "rate_limit_error"}
"""OpenAI's name for a kind of error, by HTTP status; other 4xx are the request's fault and 5xx the server's."""


class RequestRefused(Exception):
    """A request that gets no images; `status` is HTTP's."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`param` is the request's field that is wrong, `code` a word for programs."""
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """As JSON."""
        kind = TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        shown = printable(self.message)
        return {"error": {"message": shown, "type": kind, "param": self.param, "code": self.code}}
