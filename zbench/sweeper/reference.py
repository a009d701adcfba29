"""`sweep.reference_weights`: whose images all others are judged against, where those are not each trial's own weights'.

Its value is what `pipeline.weights` takes. The work is the same but for the weights and the LoRA, which it has none of.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import replace

from zbench.config import ServedEngineConfig
from zbench.errors import ConfigError
from zbench.methods import lora
from zbench.space import made_to_fit
from zbench.trial import Trial, geometry_of

KEY = "sweep.reference_weights"


def named_reference(weights: str, trials: Iterable[Trial]) -> Callable[[Trial], Trial]:
    """What gives a trial the quality reference of the same work with `weights` and without a LoRA.

    Raises ConfigError that names `sweep.reference_weights` where the images of `weights`, or those of one of `trials`,
    could not be judged, or where the config of `weights` cannot be read.
    """
    if weights in ("", "random"):
        problem = "images are judged against those of trained weights; give auto, a folder, a file or a hub id"
        raise ConfigError(KEY, weights or "''", problem)
    for trial in trials:
        if isinstance(trial.engine, ServedEngineConfig):
            problem = f"engine={trial.engine.name} has its server's weights and no others; leave it out"
            raise ConfigError(KEY, weights, problem)
        if trial.hardware is not None:
            on = f"hardware={trial.hardware.name} is projected, and a projection's images are the tiny pipeline's"
            raise ConfigError(KEY, weights, f"{on}; leave it out, or measure")
        if trial.pipeline.weights == "random":
            problem = "images of pipeline.weights=random are not judged; leave it out, or give trained weights"
            raise ConfigError(KEY, weights, problem)

    def reference_of(trial: Trial) -> Trial:
        plain = replace(trial, pipeline=replace(lora.without(trial.pipeline), weights=weights))
        return made_to_fit(plain.reference)

    for pipeline in (reference_of(trial).pipeline for trial in trials):
        try:
            geometry_of(pipeline)
        except ConfigError as error:
            if error.key != "pipeline.weights":
                raise
            raise ConfigError(KEY, weights, str(error).removeprefix(f"{error.key}={weights}: ")) from error
    return reference_of


def named_by_its_key(message: str) -> str:
    """What is wrong with `pipeline.weights` of a reference, said of the key that it came by, whose way out is no random
    weights."""
    return re.sub(r",[^,;]*pipeline\.weights=random", "", message).replace("pipeline.weights", KEY)
