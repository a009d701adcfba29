"""Where a pipeline's LoRA lies and whether it fits, decided before anything is loaded; it imports no torch."""

import os
from importlib.util import find_spec
from pathlib import Path

from zbench.config import PipelineConfig
from zbench.errors import WeightsUnavailableError
from zbench.trial import geometry_of
from zbench.zimage.layout import WeightsError
from zbench.zimage.lora import check_lora, find_lora


def resolve_lora(pipeline: PipelineConfig) -> Path | None:
    """The file that `pipeline.lora` leads to, each of whose tensors fits the transformer; None where there is none.

    Raises WeightsUnavailableError naming what is missing or does not fit, and the way out.
    """
    if pipeline.lora is None:
        return None
    named = f"pipeline.lora={pipeline.lora}"
    if find_spec("peft") is None:
        raise WeightsUnavailableError(f"{named}: diffusers loads a LoRA with peft: pip install 'zbench[lora]'")
    try:
        path = find_lora(Path(os.path.expanduser(pipeline.lora)))
        check_lora(path, geometry_of(pipeline).transformer)
    except (WeightsError, OSError) as error:
        raise WeightsUnavailableError(f"{named}: {error}") from error
    return path
