"""SGLang's performance dumps are read as they are written, and a step that was skipped is told by its time."""

import json
from pathlib import Path

import pytest

from zbench.engines.sglang import perf
from zbench.engines.sglang.perf import cached_steps, read_dump

DUMP = {  # of sglang 0.5.15.post1 on an H100, shortened
    "timestamp": "2026-11-26T08:41:07.133925+00:00",
    "tag": "server_perf_dump",
    "total_duration_ms": 1033.2,
    "steps": [
        {"name": "InputValidationStage", "duration_ms": 0.05},
        {"name": "TextEncodingStage", "duration_ms": 21.4},
        {"name": "LatentPreparationStage", "duration_ms": 0.4},
        {"name": "DenoisingStage", "duration_ms": 874.9},
        {"name": "DecodingStage", "duration_ms": 58.1},
    ],
    "denoise_steps_ms": [{"step": 0, "duration_ms": 98.0}, {"step": 1, "duration_ms": 93.5}],
    "memory_checkpoints": {},
    "meta": {"model": "Z-Image-Turbo"},
}


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "perf.json"
    path.write_text(text)
    return path


def test_stages_and_steps_are_seconds_by_zbenchs_names(tmp_path: Path) -> None:
    dump = read_dump(written(tmp_path, json.dumps(DUMP)))
    assert dump is not None
    assert dump.stages_s == pytest.approx({"text_encode": 0.0214, "denoise": 0.8749, "decode": 0.0581})
    assert dump.steps_s == pytest.approx([0.098, 0.0935])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"steps": [], "denoise_steps_ms": [{"duration_ms": "x"}]}',
        '{"steps": [], "denoise_steps_ms": [{"duration_ms": NaN}]}',
        '{"steps": [], "denoise_steps_ms": [{"duration_ms": -1}]}',
        '{"steps": [3], "denoise_steps_ms": []}',
    ],
)
def test_a_file_that_is_none_tells_nothing(tmp_path: Path, text: str) -> None:
    assert read_dump(written(tmp_path, text)) is None


def test_a_file_that_never_comes_is_waited_for_a_moment_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perf, "WRITTEN_S", 0.05)
    assert read_dump(tmp_path / "none.json") is None


@pytest.mark.parametrize(
    ("steps_ms", "share", "certain", "cached"),
    [
        ([93, 93, 92, 94], 1 / 30, 2, []),
        ([93, 93, 6, 93, 6, 6], 1 / 30, 2, [2, 4, 5]),
        ([180, 93, 6, 93], 1 / 30, 2, [2]),  # the first step is slow by itself
        ([95, 93, 55, 93, 55], 17 / 30, 2, [2, 4]),  # F8B9 skips no more than 13 blocks of 30
        ([95, 6, 6], 1 / 30, 1, [1, 2]),
        ([93, 93, 93], 1 / 30, 4, []),
        ([], 1 / 30, 1, []),
    ],
)
def test_a_skipped_step_takes_the_time_of_the_blocks_that_it_computes(
    steps_ms: list[float], share: float, certain: int, cached: list[int]
) -> None:
    assert cached_steps([ms / 1000 for ms in steps_ms], share, certain) == cached
