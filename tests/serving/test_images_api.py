"""What requests for images are answered with: OpenAI's form, the official client, and every fault named."""

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest
from gated_server import PATH, GatedEngine, ServerInThread, running
from PIL import Image


@pytest.fixture(scope="module")
def at() -> Iterator[ServerInThread]:
    with running() as server:
        yield server


def pixels(b64: str) -> Any:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(b64))))


def painted(seed: int, width: int = 64, height: int = 48) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_openais_own_client_gets_the_very_pixels(at: ServerInThread) -> None:
    client = openai.OpenAI(base_url=f"{at.server.url}/v1", api_key="none", max_retries=0)
    asked: dict[str, Any] = {"seed": 7, "num_inference_steps": 5, "enable_cache_dit": False}
    answer = client.images.generate(prompt="a cat", n=2, size="64x48", extra_body=asked)
    assert answer.data is not None and answer.output_format == "png"
    first, second = (pixels(one.b64_json or "") for one in answer.data)
    assert (first == painted(7)).all() and (second == painted(8)).all()
    told = answer.model_dump()
    assert told["inference_time_s"] == 1.0 and told["peak_memory_mb"] > 1
    assert told["zbench"]["steps"] == 5 and told["zbench"]["seed"] == 7 and told["zbench"]["cached_steps"] == [[2], [2]]
    assert [model.id for model in client.models.list()] == ["zimage_tiny"]
    assert client.models.retrieve("zimage_tiny").owned_by == "zbench"


def test_openais_client_raises_its_own_errors(at: ServerInThread) -> None:
    client = openai.OpenAI(base_url=f"{at.server.url}/v1", api_key="none", max_retries=0)
    with pytest.raises(openai.BadRequestError) as bad:
        client.images.generate(prompt="a cat", n=11)
    assert bad.value.param == "n" and bad.value.code == "invalid_value"
    with pytest.raises(openai.NotFoundError) as unknown:
        client.images.generate(prompt="a cat", model="dall-e-3")
    assert unknown.value.code == "model_not_found"


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_the_image_has_the_format_that_was_asked_for(at: ServerInThread, form: str) -> None:
    data = at.post(output_format=form).json()["data"][0]["b64_json"]
    assert Image.open(io.BytesIO(base64.b64decode(data))).format == form.upper()


def test_a_lower_quality_is_a_smaller_file(at: ServerInThread) -> None:
    sizes = [
        len(at.post(seed=1, output_format="jpeg", output_compression=quality).json()["data"][0]["b64_json"])
        for quality in (10, 95)
    ]
    assert sizes[0] < sizes[1]


def test_a_seed_that_nobody_gave_is_told_and_makes_the_image_again(at: ServerInThread) -> None:
    first, other = at.post().json(), at.post().json()
    again = at.post(seed=first["zbench"]["seed"]).json()
    assert again["data"] == first["data"] != other["data"]


DBCACHE = {"enable_cache_dit": True}


@pytest.mark.parametrize(
    ("asked", "label"),
    [
        ({}, "none"),
        ({"enable_cache_dit": False}, "none"),
        (DBCACHE, "F1B0_W4_MC3_R0.24"),
        ({"cache_dit_params": {"max_warmup_steps": 2}}, "F1B0_W2_MC3_R0.24"),
        ({**DBCACHE, "cache_dit_params": {"enable_taylorseer": True}}, "F1B0_W4_MC3_R0.24_T1O1"),
        ({**DBCACHE, "cache_dit_params": {"residual_diff_threshold": 1}}, "F1B0_W4_MC3_R1"),
        (
            {"cache_dit_params": {"scm_preset": "fast", "scm_policy": "static"}, "num_inference_steps": 9},
            "forced_fast_F1B0",
        ),
    ],
)
def test_cache_parameters_take_effect_for_their_request_alone(
    at: ServerInThread, asked: dict[str, Any], label: str
) -> None:
    assert at.post(**asked).json()["zbench"]["cache"] == label
    assert at.engine.painted[-1][3] == label
    at.post()
    assert at.engine.painted[-1][3] == "none"


def test_the_pipeline_is_configured_only_where_something_changes(at: ServerInThread) -> None:
    at.post(num_inference_steps=3)
    before = at.engine.configured
    at.post(num_inference_steps=3, seed=4)
    assert at.engine.configured == before
    at.post(num_inference_steps=4)
    assert at.engine.configured == before + 1


def test_another_size_is_made_within_the_servers_own_pixels(at: ServerInThread) -> None:
    answer = at.post(size="32x80", seed=5).json()
    assert answer["size"] == "32x80"
    assert (pixels(answer["data"][0]["b64_json"]) == painted(5, 32, 80)).all()
    assert at.post(size="auto").json()["size"] == "64x48"


def test_an_engine_of_one_size_refuses_others() -> None:
    with running(GatedEngine(sizes=False)) as server:
        refused = server.post(size="32x32")
        assert refused.status_code == 400
        assert "makes 64x48 alone; start one with pipeline.width=32" in refused.json()["error"]["message"]


FAULTS: list[tuple[dict[str, Any], str, str]] = [
    ({"prompt": None}, "prompt", "prompt=null: input should be a valid string"),
    ({"background": ["x", None]}, "background", 'background=["x", null]: input should be'),
    ({"prompt": " "}, "prompt", "is empty; say what to paint"),
    ({"prompt": "a" * 32_001}, "prompt", "at most 32000 characters"),
    ({"prompt": "a\x07"}, "prompt", "holds U+0007"),
    ({"prompt": 3}, "prompt", "prompt=3: "),
    ({"foo": 1}, "foo", "foo: no such field; there are: prompt, model"),
    ({"\x1b[2J::error::": 1}, "\x1b[2J::error::", "\\x1b[2J::error::: no such field"),
    ({"n": 0}, "n", "n=0"),
    ({"n": 11}, "n", "n=11"),
    ({"n": "2"}, "n", "n=2: input should be a valid integer"),
    ({"n": True}, "n", "n=true: input"),
    ({"size": "big"}, "size", "must be WIDTHxHEIGHT"),
    ({"size": "64X48"}, "size", "must be WIDTHxHEIGHT"),
    ({"size": "٦٤x48"}, "size", "must be WIDTHxHEIGHT"),
    ({"size": "128x128"}, "size", "no more pixels than 64x48; start one with pipeline.width=128"),
    ({"size": "40x40"}, "size", "multiples of 16"),
    ({"size": "0x64"}, "size", "multiples of 16"),
    ({"seed": 2**63}, "seed", "seed=9223372036854775808"),
    ({"seed": 2**63 - 1, "n": 2}, "seed", "they end at"),
    ({"seed": 1.5}, "seed", "seed=1.5"),
    ({"num_inference_steps": 0}, "num_inference_steps", "num_inference_steps=0"),
    ({"num_inference_steps": 1001}, "num_inference_steps", "num_inference_steps=1001"),
    ({"guidance_scale": 3.5}, "guidance_scale", "started with 0; start one with pipeline.guidance_scale=3.5"),
    ({"negative_prompt": "blur"}, "negative_prompt", "without guidance it changes nothing"),
    ({"cfg_normalization": True}, "cfg_normalization", "cfg_normalization=true: input should be false"),
    ({"generator_device": "cuda"}, "generator_device", "generator_device=cuda"),
    ({"response_format": "url"}, "response_format", "ask for b64_json"),
    ({"output_format": "gif"}, "output_format", "output_format=gif"),
    ({"output_compression": 50}, "output_compression", "quality of jpeg and webp"),
    ({"stream": True}, "stream", "stream=true: input should be false"),
    ({"cache_dit_params": []}, "cache_dit_params", "cache_dit_params="),
    ({"cache_dit_params": {"residual_diff_threshold": None}}, "cache_dit_params", "=null: expected float, got null"),
    ({"cache_dit_params": {"enable_taylorseer": 1}}, "cache_dit_params", "enable_taylorseer=1: expected bool"),
    ({"cache_dit_params": {"F": 1}}, "cache_dit_params", "cache_dit_params.F: no such parameter; there are: Fn_"),
    ({"cache_dit_params": {"method": "none"}}, "cache_dit_params", "no such parameter"),
    ({"cache_dit_params": {"Fn_compute_blocks": "1"}}, "cache_dit_params", "expected int, got str"),
    ({"cache_dit_params": {"Fn_compute_blocks": 0}}, "cache_dit_params", "must be at least 1"),
    ({"cache_dit_params": {"Fn_compute_blocks": 11}}, "cache_dit_params", "exceed the 10 blocks"),
    ({"cache_dit_params": {"scm_preset": "x"}}, "cache_dit_params", "must be one of slow"),
    ({"cache_dit_params": {"scm_preset": "fast"}, "num_inference_steps": 7}, "cache_dit_params", "not for 7"),
    ({"enable_cache_dit": False, "cache_dit_params": {"scm_preset": "fast"}}, "cache_dit_params", "leave one of them"),
]


@pytest.mark.parametrize(("fields", "param", "says"), FAULTS, ids=[json.dumps(f)[:60] for f, *_ in FAULTS])
def test_a_field_that_cannot_be_followed_is_refused_by_name(
    at: ServerInThread, fields: dict[str, Any], param: str, says: str
) -> None:
    before = list(at.engine.painted)
    refused = at.post(**fields)
    error = refused.json()["error"]
    assert refused.status_code == 400 and error["type"] == "invalid_request_error", error
    assert error["param"] == param and says in error["message"], error
    assert at.engine.painted == before


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"prompt": "\xff"}', "not JSON"),
        (b'{"prompt": "\\ud800"}', "not JSON"),
        (b'{"prompt": NaN}', "prompt=NaN: input should be a valid string"),
        (
            b'{"prompt": "a", "cache_dit_params": {"residual_diff_threshold": NaN}}',
            "cache_dit_params.residual_diff_threshold=NaN: input should be a finite number",
        ),
        (
            b'{"prompt": "a", "cache_dit_params": {"residual_diff_threshold": -Infinity}}',
            "cache_dit_params.residual_diff_threshold=-Infinity: input should be a finite number",
        ),
        (b'{"prompt": "a", "guidance_scale": 1e999}', "guidance_scale"),
        (b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}", "number out of range"),
        (b"[" * 100_000, "not JSON"),
        (b'{"prompt": "a", "cache_dit_params": ' + b'{"a":' * 5000 + b"1" + b"}" * 5001, "not JSON"),
        (b"[]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b"{}", "prompt: is missing"),
    ],
)
def test_a_malformed_body_is_one_error_in_openais_form(at: ServerInThread, raw: bytes, says: str) -> None:
    answer = at.client.post(PATH, content=raw, headers={"content-type": "application/json"})
    assert answer.status_code == 400 and says in answer.json()["error"]["message"], answer.text


def test_a_form_of_another_site_is_not_obeyed(at: ServerInThread) -> None:
    """A page may send text/plain anywhere without being asked; JSON it may not."""
    answer = at.client.post(PATH, content=b'{"prompt": "a cat"}', headers={"content-type": "text/plain"})
    assert answer.status_code == 415 and "must be application/json" in answer.json()["error"]["message"]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", PATH, 405), ("GET", "/", 404), ("POST", "/x", 404)])
def test_other_places_say_where_images_are_made(at: ServerInThread, method: str, path: str, status: int) -> None:
    answer = at.client.request(method, path)
    assert answer.status_code == status and f"POST {PATH}" in answer.json()["error"]["message"]


def test_no_page_fetches_scripts_from_elsewhere(at: ServerInThread) -> None:
    assert at.client.get("/docs").status_code == 404 and at.client.get("/redoc").status_code == 404
    described = at.client.get("/openapi.json").json()["paths"][PATH]["post"]["requestBody"]
    assert "cache_dit_params" in json.dumps(described)


def test_a_call_that_fails_is_told_and_the_next_is_served(at: ServerInThread) -> None:
    broken = at.post(prompt="raise")
    assert broken.status_code == 500
    assert broken.json()["error"]["type"] == "server_error" and broken.json()["error"]["code"] == "error"
    assert "the pipeline broke over two lines" in broken.json()["error"]["message"]
    black = at.post(prompt="black")
    assert black.status_code == 500 and black.json()["error"]["code"] == "invalid_images"
    assert at.post().status_code == 200


def test_metrics_count_what_was_answered() -> None:
    with running() as server:
        server.post(n=3)
        server.post(n=0)
        assert server.metric("zbench_images_total") == 3
        assert server.metric('zbench_requests_total{status="200"}') == 1
        assert server.metric('zbench_requests_total{status="400"}') == 1
        assert server.metric("zbench_inference_seconds_sum") == 1.5
        assert server.metric("zbench_ready") == 1
