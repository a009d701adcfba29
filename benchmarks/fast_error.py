"""How far one request's final latents are from float32's, over how far those of eager bf16 are.

`python benchmarks/fast_error.py PIPELINE OVERRIDE [OVERRIDE …]`, such as `zimage_turbo compute=fast compute=fp8`: all
steps of one prompt, through the reference engine as a trial runs it, with the same random weights and seed. Float32
is the eager pipeline with its bf16 weights widened. Prints one JSON line a setting. On a CPU all is float32, and the
ratio says nothing.
"""

import copy
import json
import sys

import torch
from sharded_error import PROMPT, SEED, latents, trial_of

from zbench.engines.reference.pipeline import ReferencePipeline

NATIVE = "compute=eager"


def of_engine(pipeline: str, override: str, exact: bool = False) -> list[torch.Tensor]:
    """The final latents of a setting; behind them with `exact` those of its widened weights."""
    trial = trial_of(pipeline, f"pipeline.weights=random {override}")
    engine = ReferencePipeline()
    engine.launch(trial)
    try:
        engine.configure(trial)
        made = [torch.from_numpy(engine.generate(PROMPT, SEED).latents)]
        if exact:
            wide = copy.copy(engine.pipe)
            wide.transformer, wide.text_encoder = wide.transformer.float(), wide.text_encoder.float()
            made.append(latents(wide, trial)[0].view_as(made[0]))
        return made
    finally:
        engine.close()


def main(pipeline: str, overrides: list[str]) -> None:
    """Print them."""
    native, exact = of_engine(pipeline, NATIVE, exact=True)
    own = float((native - exact).norm() / exact.norm())
    print(json.dumps({"setting": NATIVE, "error": own}), flush=True)
    for override in overrides:
        error = float((of_engine(pipeline, override)[0] - exact).norm() / exact.norm())
        print(json.dumps({"setting": override, "error": error, "ratio": error / own if own else None}), flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    main(sys.argv[1], sys.argv[2:])
