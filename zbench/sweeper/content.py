"""Whether what a record was measured on is still what its paths lead to: weights, configs, judges, images.

A trial's id names weights by path, and files under a path can be replaced. Nothing is asked before a record would else
be reused, and each pipeline is asked about once a sweep.
"""

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from zbench.config import MeasureConfig, PipelineConfig
from zbench.engines.weights import resolve_weights
from zbench.errors import ZbenchError
from zbench.measurement import CALLED, CONTENT, Effective, Measurement
from zbench.quality.artifacts import contents, missing
from zbench.quality.judge_weights import JUDGES, judges_sha256
from zbench.trial import Trial
from zbench.zimage.layout import WeightsError

NOT_KEPT = "not_kept"
"""Reason of a measurement for having no artifacts: whoever measured it left none, so none were deleted since."""


def with_what_was_kept(measured: Measurement, artifacts: Path) -> Measurement:
    """A measurement that was just made, with the reason where its images were not left in `artifacts`."""
    if _are_kept(measured, artifacts):
        return measured
    return replace(measured, reasons=measured.reasons | {"artifacts": NOT_KEPT})


def _are_kept(measured: Measurement, artifacts: Path) -> bool:
    """Whether every image that was made lies there; of random weights none is to."""
    images = ((r.prompt_id, r.seed) for r in measured.requests)
    return measured.effective.weights == "random" or not missing(artifacts, images)


class PresentContent:
    """What paths lead to now, as far as a sweep has asked."""

    def __init__(self, measure: MeasureConfig) -> None:
        self._measure = measure
        self._of: dict[tuple[str | None, ...], Effective] = {}

    def changes(self, ran: Trial, measured: Measurement, artifacts: Path) -> list[str]:
        """Why what was `measured` of the trial that `ran` is no longer true; empty where nothing is known to differ.

        For a projected trial that is its proxy. `artifacts` is the folder of its images. A measurement that does not
        know its content is taken at its word, and so is an engine that loads no weights of ours.
        """
        effective = measured.effective
        changed = []
        if ran.engine.loads_here and effective != _without_content(effective):
            differs = self._content(ran.pipeline).differs_in_content(effective)
            changed += [f"its {CALLED[differs]} changed since"] if differs else []
        for key, digest in self._judges.items():
            if measured.judges_sha256.get(key, digest) != digest:
                changed.append(f"the {JUDGES[key].judge} weights that judged it changed since")
        differs = contents(artifacts).effective.differs_in_content(effective)
        if differs and not changed:  # as a sweep leaves them that was killed before it could write its record
            changed.append(f"its images are of other {CALLED[differs]}")
        if not changed and measured.reasons.get("artifacts") != NOT_KEPT and not _are_kept(measured, artifacts):
            changed.append("its images were deleted")
        return changed

    def _content(self, pipeline: PipelineConfig) -> Effective:
        if pipeline.named_files not in self._of:
            self._of[pipeline.named_files] = _content_of(pipeline)
        return self._of[pipeline.named_files]

    @cached_property
    def _judges(self) -> dict[str, str]:
        return judges_sha256(self._measure)


def _content_of(pipeline: PipelineConfig) -> Effective:
    """Nothing where it cannot be read now: whoever loads it says why."""
    try:
        content = resolve_weights(pipeline).content()
    except (ZbenchError, WeightsError, OSError):
        content = None
    return Effective() if content is None else Effective(**content._asdict())


def _without_content(effective: Effective) -> Effective:
    nothing: dict[str, Any] = {f"{kind}_sha256": None for kind in CONTENT}
    return replace(effective, **nothing)
