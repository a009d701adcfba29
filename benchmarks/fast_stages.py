"""What of a request is not the forward, each way side by side in one run: text encoding, decode, and the rest.

    python benchmarks/fast_stages.py
    python benchmarks/fast_stages.py --device cpu --preset tiny

Random weights of full size in bf16, on a GPU. One JSON line a variant: the median of its calls in ms, its first call in
s (compiling and capturing included), and its error relative to the first variant. Then of whole requests what is
neither text encoding, denoising nor decode (`rest_ms`), what of denoising is no forward (`between_ms`), and latency,
as it is, with a host that runs ahead, and with all stages sped up. A CPU only rehearses: small images,
float32, nothing that a compiler makes, no graphs.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "error")

from agreement.call import Call

TEXT_TOKENS = (64, 400)
SIDES = {"cuda": (1024, 512), "cpu": (64, 32)}
REPEATS = {"cuda": 20, "cpu": 2}
WARM_UP = 2


class Stages:
    """One loaded pipeline, and the device it is on."""

    def __init__(self, device: str, preset: str) -> None:
        """`device` is cuda or cpu, `preset` tiny or turbo."""
        self.kind = device
        self.call = Call(
            [
                f"pipeline=zimage_{preset}",
                *(["pipeline.weights=random"] if preset == "turbo" else []),
                f"pipeline.height={SIDES[device][0]}",
                f"pipeline.width={SIDES[device][0]}",
                f"pipeline.steps={8 if device == 'cuda' else 2}",
                f"hardware={'auto' if device == 'cuda' else 'cpu'}",
                "workload=single",
            ]
        )
        self.pipe: Any = self.call.engine.pipe
        if device == "cpu":
            from zbench.zimage.fast import shapes

            shapes.BACKEND = "eager"

    def text(self) -> None:
        """Padded, short, compiled, and that in a graph."""
        from zbench.zimage.fast.text import shorten_text

        for tokens in TEXT_TOKENS:
            prompt, real = self._prompt(tokens)

            def encode(prompt: str = prompt) -> Any:
                return self.pipe.encode_prompt(prompt, self.call.engine.device, False)[0][0]

            ways: dict[str, Callable[[], Callable[[], None]]] = {
                "padded": lambda: lambda: None,
                "short": lambda: shorten_text(self.pipe, compiled=False),
                "compiled": lambda: shorten_text(self.pipe, compiled=True),
            }
            self._tell({"stage": "text", "tokens": real}, ways, self.pipe.text_encoder, encode)

    def decode(self) -> None:
        """Eager, channels last, compiled, and that in a graph."""
        import torch

        from zbench.zimage.fast.decode import MODES, speed_decode

        vae = self.pipe.vae
        for side in SIDES[self.kind]:
            latents = torch.randn(1, vae.config.latent_channels, side // 8, side // 8).to(vae.device, vae.dtype)

            def decode(latents: Any = latents) -> Any:
                return vae.decode(latents, return_dict=False)[0]

            ways = {mode: lambda mode=mode: speed_decode(vae, mode) for mode in MODES}
            self._tell({"stage": "decode", "side": side}, ways, vae.decoder, decode)

    def requests(self) -> None:
        """Of whole requests what is no stage."""
        from zbench.zimage.fast.ahead import run_ahead
        from zbench.zimage.fast.decode import speed_decode
        from zbench.zimage.fast.text import shorten_text

        ways: dict[str, list[Callable[[], Callable[[], None]]]] = {
            "as it is": [],
            "ahead": [lambda: run_ahead(self.pipe)],
            "all": [
                lambda: shorten_text(self.pipe, compiled=True),
                lambda: speed_decode(self.pipe.vae, "compiled"),
                lambda: run_ahead(self.pipe),
            ],
        }
        for way, pieces in ways.items():
            with self.call.engine.unwatched():
                undos = [piece() for piece in pieces]
            print(json.dumps({"stage": "request", "way": way, **self._request_ms()}), flush=True)
            with self.call.engine.unwatched():
                for undo in reversed(undos):
                    undo()

    def _request_ms(self) -> dict[str, float]:
        pair, made = self.call.pair, []
        for _ in range(WARM_UP + REPEATS[self.kind]):
            made.append(self.call.engine.generate(pair.prompt_text, pair.seed))
        told: dict[str, list[float]] = {}
        for one in made[WARM_UP:]:
            parts = {
                "latency_ms": one.latency_s,
                "rest_ms": one.latency_s - math.fsum(one.stages_s.values()),
                "between_ms": one.stages_s["denoise"] - math.fsum(one.steps_s),
                **{f"{stage}_ms": spent_s for stage, spent_s in one.stages_s.items()},
            }
            for name, spent_s in parts.items():
                told.setdefault(name, []).append(1e3 * spent_s)
        return {name: round(statistics.median(values_ms), 2) for name, values_ms in told.items()}

    def _prompt(self, tokens: int) -> tuple[str, int]:
        """The longest of repeated words that has no more tokens, and how many it has."""
        from zbench.zimage.fast.text import bucketed

        words, said = 1, ("circle", 0)
        while (real := bucketed(self.pipe.tokenizer, ["circle " * words], 512)[1][0]) <= tokens and words < tokens:
            said = "circle " * words, real
            words += 1
        return said

    def _tell(self, what: dict[str, Any], ways: dict[str, Any], module: Any, run: Callable[[], Any]) -> None:
        """Measure each way, and the last once more as a graph of `module`."""
        import torch

        from zbench.engines.reference.graphed import GraphedForward

        expected = None
        graphed = ["compiled+graph"] if self.kind == "cuda" else []
        with torch.no_grad(), self.call.engine.unwatched():
            for way in [*ways, *graphed]:
                undo = ways[way.removesuffix("+graph")]()
                graph = GraphedForward(module, torch.cuda.graph_pool_handle()) if way in graphed else None
                made, told = self._timed(run)
                if graph is not None:
                    graph.close()
                undo()
                expected = made if expected is None else expected
                told["rel_error"] = float((made - expected).norm() / expected.norm())
                print(json.dumps({**what, "way": way, **told}), flush=True)

    def _timed(self, run: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
        spent_s, made = [], None
        for _ in range(1 + WARM_UP + REPEATS[self.kind]):
            self._synchronize()
            began = time.perf_counter()
            made = run()
            self._synchronize()
            spent_s.append(time.perf_counter() - began)
        warm_ms = [1e3 * one for one in spent_s[1 + WARM_UP :]]
        told = {"median_ms": statistics.median(warm_ms), "least_ms": min(warm_ms), "first_s": spent_s[0]}
        return made.float(), {name: round(value, 3) for name, value in told.items()}

    def _synchronize(self) -> None:
        if self.kind == "cuda":
            import torch

            torch.cuda.synchronize()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=sorted(SIDES), default="cuda")
    parser.add_argument("--preset", choices=["turbo", "tiny"], default="turbo")
    parser.add_argument("--parts", nargs="+", choices=["text", "decode", "requests"], default=None)
    asked = parser.parse_args()
    stages = Stages(asked.device, asked.preset)
    for part in asked.parts or ("text", "decode", "requests"):
        getattr(stages, part)()


if __name__ == "__main__":
    main()
