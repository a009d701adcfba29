"""The format of a server's pictures: asked for, told apart, and said where it is not exact."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import zbench
from factories import TINY, TURBO, complete, trial
from images_server import Call, images_server, picture

from zbench.analysis.view import view_of
from zbench.config import ComputeConfig, ServedEngineConfig
from zbench.emit.sglang import emit_sglang
from zbench.engines.formats import format_in
from zbench.engines.openai_images import ImagesEngine
from zbench.engines.openai_images.dialects import DIALECTS
from zbench.engines.sglang import SGLangEngine
from zbench.errors import ConfigError
from zbench.measurement import Effective
from zbench.report.tables.main import render
from zbench.store import read_records
from zbench.trial import Trial

URL = "http://127.0.0.1:30000"


def served(**options: Any) -> Trial:
    target = "zbench.engines.openai_images:ImagesEngine"
    engine = ServedEngineConfig(name="openai_images", target=target, loads_weights=False, base_url=URL, options=options)
    pipeline = replace(TINY, width=64, height=48)
    return trial(engine=engine, compute=ComputeConfig(device="cpu"), pipeline=pipeline)


@pytest.mark.parametrize("dialect", ["sglang", "vllm_omni"])
def test_a_request_asks_for_exact_pixels_unless_another_format_is_named(dialect: str) -> None:
    assert DIALECTS[dialect].body(served(), "a cat", 7, "")["output_format"] == "png"
    assert DIALECTS[dialect].body(served(output_format="webp"), "a cat", 7, "")["output_format"] == "webp"


def test_openais_own_endpoint_is_asked_for_a_format_only_where_one_is_named() -> None:
    assert "output_format" not in DIALECTS["openai"].body(served(), "a cat", 7, "")
    assert DIALECTS["openai"].body(served(output_format="jpeg"), "a cat", 7, "")["output_format"] == "jpeg"


@pytest.mark.parametrize("engine", [ImagesEngine, SGLangEngine])
@pytest.mark.parametrize("value", ["gif", "PNG", 3, True])
def test_what_is_no_format_is_an_error_that_names_those_that_are(engine: Any, value: Any) -> None:
    with pytest.raises(ConfigError) as said:
        engine(base_url=URL, output_format=value)
    assert str(said.value) == f"engine.options.output_format={value}: must be one of png, jpeg, webp"


def test_there_is_one_place_that_says_it() -> None:
    with pytest.raises(ConfigError, match=r"engine\.options\.fields\.output_format.*or engine\.options\.output_format"):
        ImagesEngine(URL, fields={"output_format": "jpeg"})


@pytest.mark.parametrize(("asked", "sent", "doubted"), [(None, "PNG", 0), ("jpeg", "JPEG", 0), ("jpeg", "PNG", 1)])
def test_what_came_is_told_and_another_format_is_a_doubt(asked: str | None, sent: str, doubted: int) -> None:
    of = served() if asked is None else served(output_format=asked)
    with images_server(lambda call: call.images(picture(form=sent))) as server:
        engine = ImagesEngine(server.url, output_format=asked).engine()
        engine.launch(of)
        engine.configure(of)
        engine.generate("a cat", 5)
        effective = engine.effective()
        engine.close()
    assert effective.other["image_format"] == sent.lower()
    assert effective.doubts == [f"asked for output_format {asked}, the server sent {sent.lower()}"] * doubted


def test_what_is_no_picture_has_no_format() -> None:
    assert format_in(b"GIF89a") is None and format_in(b"RIFF1234WEBPVP8 ") == "webp"


@pytest.mark.parametrize(("name", "said"), [("png", False), ("jpeg", True)])
def test_a_table_says_through_what_images_were_judged(name: str, said: bool) -> None:
    record = complete(served(output_format=name), effective=Effective(other={"image_format": name}))
    table = " ".join(render(view_of([record]), "table").split())
    assert ("came as jpeg, which is lossy: they are judged against their own reference" in table) is said


def test_words_for_sglang_carry_it() -> None:
    emission = emit_sglang(replace(served(output_format="jpeg"), pipeline=TURBO))
    files = {file.name: file.text for file in emission.files}
    assert json.loads(files["request.json"])["output_format"] == "jpeg"
    check = files["check.sh"]
    assert "engine=sglang" in check and "output_format" in check and "jpeg" in check
    assert any("output_format=jpeg, which is lossy" in note for note in emission.notes)
    assert not any("output_format" in note for note in emit_sglang(served()).notes)


def test_each_format_has_a_reference_of_its_own(tmp_path: Path) -> None:
    def paints(call: Call) -> None:
        drift = 3 * call.body.get("enable_cache_dit", 0)  # a question for models has no body
        call.images(picture(call.body.get("seed", 0) + drift, (64, 64), call.body.get("output_format", "png").upper()))

    with images_server(paints) as server:
        size = ("pipeline=zimage_tiny", "hardware=cpu", "pipeline.height=64", "pipeline.width=64")
        words = ("engine=openai_images", f"engine.base_url={server.url}", "engine.options.output_format=png,jpeg")
        short = ("measure={min_rounds:1,max_rounds:1,max_warmup_rounds:1}", "workload=single", "sweep.name=s")
        done = zbench(
            tmp_path,
            "sweep",
            *words,
            *size,
            *short,
            "cache=dbcache",
            "cache.residual_diff_threshold=0.2",
            "cache.max_warmup_steps=2",
        )
    assert done.returncode == 0, done.stderr
    found = read_records(tmp_path / "runs" / "s" / "records.jsonl")
    formats = {r.trial_id: r.trial.engine.options["output_format"] for r in found}
    assert len(found) == 4 and all(formats[r.reference_id] == formats[r.trial_id] for r in found)
    rows = view_of(found).trials
    assert all(sum(name in row.label for row in rows) == 2 for name in ("png", "jpeg")), [row.label for row in rows]
