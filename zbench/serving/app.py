"""The endpoints. A request waits in the line until its images are made, or until its client leaves."""

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from zbench import __version__
from zbench.serving.line import Line, QueueClosed, QueuedRequest, QueueFull
from zbench.serving.metrics import ServerMetrics
from zbench.serving.orders import Menu
from zbench.serving.painting import CallFailed, Painted
from zbench.serving.pictures import encoded
from zbench.serving.protocol import GenerationBody, parse_body
from zbench.serving.refusal import RequestRefused
from zbench.serving.studio import Studio
from zbench.serving.wire import ClientDisconnect, client_left, read_body
from zbench.streams import talk

CLIENT_LEFT = 499
"""nginx's status for it; nobody reads the answer."""

GENERATIONS = "/v1/images/generations"


@dataclass(frozen=True)
class Desk:
    """What the endpoints work with."""

    menu: Menu
    line: Line
    studio: Studio
    metrics: ServerMetrics
    began: int  # seconds since 1970


def make_desk(menu: Menu, line: Line, studio: Studio) -> Desk:
    """With metrics of its own."""
    metrics = ServerMetrics(
        waiting=lambda: len(line),
        serving=lambda: len(studio.serving),
        ready=lambda: int(studio.state == "ready"),
    )
    return Desk(menu, line, studio, metrics, int(time.time()))


def make_app(desk: Desk) -> FastAPI:
    """The application. It has no page that would fetch scripts from elsewhere; `/openapi.json` describes it."""
    app = FastAPI(title="zbench serve", version=__version__, docs_url=None, redoc_url=None)
    body = {"requestBody": {"required": True, "content": {"application/json": {"schema": _schema()}}}}

    @app.post(GENERATIONS, openapi_extra=body)
    async def generations(request: Request) -> Response:
        """Make images."""
        return await _answered(desk, request)

    @app.get("/health")
    async def health() -> Response:
        """200 once the pipeline is loaded and has made an image of its own; 503 before, and when it stops."""
        state = "stopping" if desk.line.is_closed and desk.studio.error is None else desk.studio.state
        is_ready = state == "ready"
        return JSONResponse({"status": "ok" if is_ready else state}, 200 if is_ready else 503)

    @app.get("/v1/models")
    async def models() -> Response:
        """The one model that is loaded."""
        return JSONResponse({"object": "list", "data": [_model(desk)]})

    @app.get("/v1/models/{model:path}")
    async def model(model: str) -> Response:
        """The same by its name."""
        if model not in desk.menu.models:
            raise RequestRefused(404, f"model={model[:60]}: this server has {desk.menu.model}", code="model_not_found")
        return JSONResponse(_model(desk))

    @app.get("/metrics")
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(desk.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    _word_errors(app)
    return app


def _word_errors(app: FastAPI) -> None:
    """Every error in OpenAI's form."""

    @app.exception_handler(RequestRefused)
    async def refused(request: Request, error: RequestRefused) -> Response:
        return JSONResponse(error.body, error.status, headers=error.headers)

    @app.exception_handler(HTTPException)
    async def not_there(request: Request, error: HTTPException) -> Response:
        said = f"{request.method} {request.url.path[:100]}: {error.detail}; images are made by POST {GENERATIONS}"
        found = RequestRefused(error.status_code, said, headers=error.headers)
        return JSONResponse(found.body, error.status_code, headers=found.headers)

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        return JSONResponse(RequestRefused(500, "a fault of zbench; its log says more", code="fault").body, 500)


def _schema() -> dict[str, Any]:
    return GenerationBody.model_json_schema()


def _model(desk: Desk) -> dict[str, Any]:
    return {"id": desk.menu.model, "object": "model", "created": desk.began, "owned_by": "zbench"}


async def _answered(desk: Desk, request: Request) -> Response:
    """One request for images, counted."""
    began = time.monotonic()
    status = 500
    try:
        response = await _images(desk, request)
        status = response.status_code
        return response
    except RequestRefused as error:
        status = error.status
        raise
    except ClientDisconnect:
        status = CLIENT_LEFT
        desk.metrics.left.labels("body").inc()
        return Response(status_code=CLIENT_LEFT)
    finally:
        desk.metrics.requests.labels(str(status)).inc()
        desk.metrics.request_s.observe(time.monotonic() - began)


async def _images(desk: Desk, request: Request) -> Response:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # which no page of another site can send unasked
        raise RequestRefused(415, f"content-type={kind[:60]}: must be application/json", code="unsupported_media_type")
    order = desk.menu.order(parse_body(await read_body(request)))
    if desk.studio.state != "ready" or desk.line.is_closed:
        raise _not_ready(desk)
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[Any] = loop.create_future()
    job = QueuedRequest(order, _settler(loop, outcome))
    try:
        desk.line.put(job)
    except QueueFull as error:
        wait_s = math.ceil((error.ahead + 1) * desk.studio.latest_s)
        message = f"the queue is full ({error.ahead} requests wait); come again in {wait_s} s"
        headers = {"retry-after": str(wait_s)}
        raise RequestRefused(429, message, code="queue_full", headers=headers) from error
    except QueueClosed as error:
        raise _not_ready(desk) from error
    leaving = loop.create_task(client_left(request))
    try:
        await asyncio.wait((outcome, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not outcome.done():
            waited = desk.line.leave(job)
            desk.metrics.left.labels("queue" if waited else "pipeline").inc()
            return Response(status_code=CLIENT_LEFT)
    finally:
        if not outcome.done():
            desk.line.leave(job)  # this task was cancelled
        leaving.cancel()
        with suppress(asyncio.CancelledError):
            await leaving
    return await _reply(desk, outcome.result())


def _settler(loop: asyncio.AbstractEventLoop, outcome: "asyncio.Future[Any]") -> Callable[[Any], None]:
    """What any thread may call with the outcome; a loop that is gone wants none."""

    def now(result: Any) -> None:
        if not outcome.done():
            outcome.set_result(result)

    def settle(result: Any) -> None:
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(now, result)

    return settle


async def _reply(desk: Desk, result: object) -> Response:
    if isinstance(result, QueueClosed):
        raise _not_ready(desk)
    if isinstance(result, CallFailed):
        raise RequestRefused(500, str(result), code=result.code)
    if not isinstance(result, Painted):
        return Response(status_code=CLIENT_LEFT)
    order = result.order
    form = order.output_format
    images = [await asyncio.to_thread(encoded, made.image, form, order.quality) for made in result.made]
    height, width = result.made[0].image.shape[:2]
    desk.metrics.images.inc(len(images))
    desk.metrics.batch.observe(result.batch)
    desk.metrics.queue_s.observe(result.queue_s)
    desk.metrics.inference_s.observe(result.inference_s)
    answer = {
        "id": result.id,
        "created": int(time.time()),
        "data": [{"b64_json": image} for image in images],
        "background": "opaque",
        "output_format": form,
        "size": f"{width}x{height}",
        "inference_time_s": result.inference_s,
        "peak_memory_mb": result.peak_mb,
        "zbench": result.told,
    }
    return JSONResponse(answer, headers={"x-request-id": result.id})


def _not_ready(desk: Desk) -> RequestRefused:
    state = desk.studio.state
    if state == "failed":
        return RequestRefused(503, "the server failed; its log says why", code="server_failed")
    if desk.line.is_closed:
        return RequestRefused(503, "the server stops; ask another", code="stopping")
    message = f"the server is {state}; wait until /health says 200"
    return RequestRefused(503, message, code="not_ready", headers={"retry-after": "2"})


def say(text: str) -> None:
    """A line of talk."""
    talk(f"zbench serve: {text}")
