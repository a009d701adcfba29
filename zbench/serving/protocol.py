"""The body of `POST /v1/images/generations`: OpenAI's fields, SGLang's and two of its flags; any other is refused.

A field that would change the image and that this server cannot follow is refused too, never ignored.
"""

import json
import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from zbench.config.pipeline import SEED_LIMIT
from zbench.methods.cache.given import PARAMETERS
from zbench.serving.refusal import RequestRefused

MOST_IMAGES = 10
"""Of one request, as OpenAI has it."""

LONGEST_PROMPT = 32_000
"""Characters, as OpenAI has it."""

SIZE = re.compile(r"(\d{1,5})x(\d{1,5})", re.ASCII)

FORMATS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}
"""Output formats, and Pillow's names for them."""


class GenerationBody(BaseModel):
    """What a request may hold. Null is as good as left out."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    prompt: str = Field(max_length=LONGEST_PROMPT)
    model: str | None = None
    n: int | None = Field(None, ge=1, le=MOST_IMAGES)
    size: str | None = None
    response_format: str | None = None
    output_format: Literal["png", "jpeg", "webp"] | None = None
    output_compression: int | None = Field(None, ge=0, le=100)  # of jpeg and webp: their quality
    background: Literal["auto", "opaque"] | None = None  # the pipeline paints every pixel
    quality: Literal["auto"] | None = None  # cache, steps and size decide it
    stream: Literal[False] | None = None
    moderation: Literal["auto", "low"] | None = None  # nothing is moderated
    user: str | None = None  # changes nothing
    seed: int | None = Field(None, ge=-SEED_LIMIT, lt=SEED_LIMIT)
    num_inference_steps: int | None = Field(None, ge=1, le=1000)
    guidance_scale: float | None = None
    negative_prompt: str | None = Field(None, max_length=LONGEST_PROMPT)
    cfg_normalization: Literal[False] | None = None  # diffusers' pipeline does none
    generator_device: Literal["cpu"] | None = None  # where the noise is drawn
    enable_cache_dit: bool | None = None
    cache_dit_params: dict[str, Any] | None = None
    batching_max_size: int | None = Field(None, ge=1)  # images of one call, of this request and others
    batching_delay_ms: float | None = Field(None, ge=0)  # how long a call that is not full waits


def parse_body(raw: bytes) -> GenerationBody:
    """A request's body. Raises RequestRefused that names the field."""
    try:
        return GenerationBody.model_validate_json(raw)
    except ValidationError as error:
        raise _refused(error) from error


def size_of(body: GenerationBody) -> tuple[int, int] | None:
    """Width and height in pixels; None where the server's own are meant. Raises RequestRefused."""
    if body.size in (None, "auto"):
        return None
    found = SIZE.fullmatch(body.size or "")
    if found is None:
        message = f"size={shown(body.size)}: must be WIDTHxHEIGHT in pixels, such as 1024x1024, or auto"
        raise RequestRefused(400, message, param="size", code="invalid_value")
    return int(found[1]), int(found[2])


def check_form(body: GenerationBody) -> None:
    """Raise RequestRefused for a form of answer that this server does not give."""
    if body.response_format not in (None, "b64_json"):
        message = f"response_format={shown(body.response_format)}: this server keeps no files; ask for b64_json"
        raise RequestRefused(400, message, param="response_format", code="unsupported_value")
    if body.output_compression is not None and body.output_format not in ("jpeg", "webp"):
        message = "output_compression is the quality of jpeg and webp; ask for one with output_format, or leave it out"
        raise RequestRefused(400, message, param="output_compression", code="unsupported_value")


def _refused(error: ValidationError) -> RequestRefused:
    """The first fault of a body."""
    fault = error.errors(include_url=False, include_context=False)[0]
    kind, place = fault["type"], ".".join(str(part) for part in fault["loc"])
    if kind == "json_invalid":
        return RequestRefused(400, f"the body is not JSON: {fault['msg'].removeprefix('Invalid JSON: ')}", code=kind)
    if not place:
        return RequestRefused(400, 'the body must be a JSON object, such as {"prompt": "a cat"}', code=kind)
    if kind == "extra_forbidden":
        known = ", ".join(GenerationBody.model_fields)
        inside = "; put it into cache_dit_params" if place in PARAMETERS else ""
        message = f"{shown(place)}: no such field{inside}; there are: {known}"
        return RequestRefused(400, message, param=place[:100], code="unknown_parameter")
    said = fault["msg"][:1].lower() + fault["msg"][1:].replace("False", "false")
    if kind == "missing":
        return RequestRefused(400, f"{place}: is missing; give it", param=place, code="missing_required_parameter")
    return RequestRefused(400, f"{place}={shown(fault['input'])}: {said}", param=place, code="invalid_value")


def shown(value: object) -> str:
    """The beginning of what was asked for, as JSON spells it."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:59]}…"
