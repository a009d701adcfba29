"""A cache method's class from outside, on the tiny pipeline: switched on, over and off."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
from factories import TINY, trial

from zbench.config import CacheConfig, CustomCacheConfig, SCMConfig
from zbench.engines.reference.pipeline import ReferencePipeline
from zbench.errors import ConfigError
from zbench.trial import Trial

SMALL = replace(TINY, height=64, width=64, steps=4, weights="random")
PROMPT = "a large red circle on a white background"


class Repeat:
    """Gives again what the transformer gave one step before, at the step that `options.at` says."""

    made: ClassVar[list["Repeat"]] = []

    def __init__(self) -> None:
        self.made.append(self)

    def problem(self, options: Mapping[str, Any], n_blocks: int, steps: int) -> str | None:
        return None if 0 < options["at"] < steps else f"at must be between 1 and {steps - 1}, of {n_blocks} blocks"

    def enable(self, pipe: Any, options: Mapping[str, Any], steps: int) -> None:
        self.forward, self.at, self.calls, self.last = pipe.transformer.forward, options["at"], 0, None

        def forward(*arguments: Any, **named: Any) -> Any:
            step = self.calls % steps
            self.calls += 1
            if step != self.at:
                self.last = self.forward(*arguments, **named)
            return self.last

        pipe.transformer.forward = forward

    def disable(self, pipe: Any) -> None:
        del pipe.transformer.forward

    def statistics(self, pipe: Any) -> tuple[list[int], dict[str, float]]:
        return [self.at], {str(self.at): 0.5}

    def effective(self, pipe: Any) -> dict[str, Any]:
        return {"at": self.at}


class Half:
    """Lacks most of what a cache method must have."""

    def enable(self, pipe: Any, options: Mapping[str, Any], steps: int) -> None: ...


def repeat(at: int, name: str = "Repeat") -> CustomCacheConfig:
    return CustomCacheConfig(method="repeat", target=f"{__name__}:{name}", options={"at": at})


def small(cache: CacheConfig) -> Trial:
    return trial(cache, pipeline=SMALL)


@pytest.fixture(scope="module")
def engine() -> Iterator[ReferencePipeline]:
    made = ReferencePipeline()
    made.launch(small(CacheConfig()))
    yield made
    made.close()


def test_it_skips_says_so_and_leaves_no_trace(engine: ReferencePipeline) -> None:
    engine.configure(small(CacheConfig()))
    plain = engine.generate(PROMPT, 0)
    engine.configure(small(repeat(2)))
    skipped = engine.generate(PROMPT, 0)
    assert skipped.cached_steps == [2] and skipped.residual_diffs == {"2": 0.5}
    assert engine.effective().cache == {"method": "repeat", "at": 2}
    assert not np.array_equal(skipped.image, plain.image)
    engine.configure(small(repeat(1)))
    assert engine.generate(PROMPT, 0).cached_steps == [1], "switched over"
    forced = SCMConfig(max_warmup_steps=0, max_continuous_cached_steps=-1, scm_policy="static", scm_preset="ultra")
    engine.configure(small(forced))
    assert engine.generate(PROMPT, 0).cached_steps == [2], "cache-dit's own after it"
    engine.configure(small(CacheConfig()))
    again = engine.generate(PROMPT, 0)
    assert again.cached_steps == [] and np.array_equal(again.image, plain.image)
    assert engine.effective().cache == {}


def test_what_does_not_fit_is_refused_in_its_own_words(engine: ReferencePipeline) -> None:
    with pytest.raises(ConfigError, match=r"cache\.options=.*at must be between 1 and 3, of 10 blocks"):
        engine.configure(small(repeat(4)))
    assert engine.effective().cache == {}


@pytest.mark.parametrize(
    ("name", "said"),
    [("Nope", r"cache\.target=.*:Nope"), ("Half", "lacks problem, disable, statistics, effective")],
)
def test_a_class_that_is_none_is_named(engine: ReferencePipeline, name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        engine.configure(small(repeat(1, name)))
