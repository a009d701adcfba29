"""`zbench ab` where images of a side are none: b's are a regression, a's leave nothing to say, whoever comes first."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest
from commands import SYNTHETIC, zbench_here

from zbench.ab.launch import _base_first
from zbench.ab.side import ImagesInvalid, RoundCompiled, SideFailed

SPOILT = "cache=dbcache cache.residual_diff_threshold=0.5"


@pytest.mark.parametrize(
    ("sides", "option", "form", "code"),
    [
        (["b"], "black_on", "json", 1),
        (["b"], "nan_on", "junit", 1),
        (["a"], "black_on", "json", 3),
        (["a", "b"], "nan_on", "junit", 3),
    ],
)
def test_whose_images_are_none_decides(sides: list[str], option: str, form: str, code: int, tmp_path: Path) -> None:
    """With NaN it is one seed's images alone, so that the first image of a side is good."""
    given = [word for side in sides for word in (f"--{side}", SPOILT)]
    seed = ["workload.seeds=[0,1]", "engine.options.spoilt_seed=1"] if option == "nan_on" else []
    options = [f"engine.options.{option}=0.5", "workload=single", *seed, "--format", form, "--github"]
    done = zbench_here(tmp_path, "ab", *SYNTHETIC, *options, *given)
    assert done.returncode == code, done.stderr
    said = "images are no longer valid" if code == 1 else "--a: images are not valid"
    assert said in done.stdout and "Traceback" not in done.stderr
    if form == "json":
        assert json.loads(done.stdout)["verdict"] == {1: "FAILED", 3: "INCONCLUSIVE"}[code]
    else:
        assert ElementTree.fromstring(done.stdout).get("failures" if code == 1 else "errors") == "1"
    assert ("::error" if code == 1 else "::warning") in done.stderr


def base(answer: SideFailed | None) -> dict[Any, Any]:
    def generate(name: str, index: int) -> None:
        assert (name, index) == ("a", 3), "the pair that b spoilt"
        if answer is not None:
            raise answer

    return {"a": SimpleNamespace(generate=generate)}


def test_b_is_to_blame_where_the_base_makes_the_same_image_well() -> None:
    failure = ImagesInvalid("b", "black_image", 3)
    of_base = ImagesInvalid("a", "black_image", 3)
    assert _base_first(failure, base(None)) is failure
    assert _base_first(failure, base(of_base)) is of_base
    for other in (SideFailed("a", "the worker died", broken=True), RoundCompiled("a")):
        assert _base_first(failure, base(other)) is failure
    assert _base_first(of_base, {}) is of_base
