"""One training phase: optimise, average, checkpoint, show progress; what is learnt is the caller's loss."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from zbench.zimage.train.checkpoint import Checkpoint

MAX_NORM = 1.0
"""Of the gradient."""
SHOW_EVERY = 20
"""Steps, over which the loss shown is averaged."""


class TimeIsUp(Exception):
    """The time given is over; everything learnt is in the checkpoint."""


@dataclass(frozen=True)
class Phase:
    """How long and how fast one phase learns. Rates fall linearly to zero after a warm-up."""

    name: str
    steps: int
    batch: int
    rate: float  # AdamW's learning rate
    matrix_rate: float | None = None  # Muon's, for the matrices between the first and the last layer; None: AdamW's
    warmup: int = 100
    average: float = 0.999  # decay of the weights' moving average
    save_every: int = 500


@dataclass(frozen=True)
class Session:
    """Where and for how long one run of the program learns."""

    work: Path  # checkpoints
    workers: int = 0  # processes that write captions ahead; 0: none
    deadline: float = math.inf  # of `time.monotonic()`


def learn(
    phase: Phase,
    model: nn.Module,
    loss_at: Callable[[int], Tensor],
    session: Session,
    on_save: Callable[[int, nn.Module], None] = lambda step, averaged: None,
) -> nn.Module:
    """Minimise `loss_at(step)` over the phase's steps; returns the average of the weights, in evaluation mode.

    Goes on from `<work>/<name>.safetensors` if it is there. `on_save(step, averaged)` runs at every checkpoint. Raises
    TimeIsUp, after a checkpoint, once the session's deadline is past.
    """
    optimizers = _optimizers(phase, model)
    decay = get_ema_multi_avg_fn(phase.average)  # type: ignore[no-untyped-call]
    averaged = AveragedModel(model, multi_avg_fn=decay, use_buffers=True)
    checkpoint = Checkpoint(session.work / f"{phase.name}.safetensors", {"now": model, "average": averaged}, optimizers)
    start = checkpoint.load()
    parameters = [p for p in model.parameters() if p.requires_grad]
    losses: list[Tensor] = []
    model.train()
    with _progress(phase, start) as show:
        for step in range(start, phase.steps):
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = group["peak"] * rate_share(phase, step)
                optimizer.zero_grad(set_to_none=True)
            loss = loss_at(step)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, MAX_NORM)
            for optimizer in optimizers:
                optimizer.step()
            averaged.update_parameters(model)
            losses.append(loss.detach())
            done = step + 1
            saves = done % phase.save_every == 0 or done == phase.steps
            if done % SHOW_EVERY == 0 or saves:
                losses = losses[-SHOW_EVERY:]
                show(done, float(torch.stack(losses).mean()))
            if saves:
                checkpoint.save(done)
                on_save(done, averaged.module.eval())
                model.train()
            elif time.monotonic() > session.deadline:
                checkpoint.save(done)
                raise TimeIsUp
    return averaged.module.eval()


def rate_share(phase: Phase, step: int) -> float:
    """Share of the peak rate at a step: up over the warm-up, then down to zero."""
    return min((step + 1) / phase.warmup, 1.0) * (1 - step / phase.steps)


def _optimizers(phase: Phase, model: nn.Module) -> list[torch.optim.Optimizer]:
    fused = next(model.parameters()).is_cuda
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    matrices = [p for n, p in named if phase.matrix_rate is not None and p.ndim == 2 and _is_within(n)]
    chosen = {id(p) for p in matrices}
    rest = [p for _, p in named if id(p) not in chosen]
    adam = torch.optim.AdamW(
        [{"params": rest, "peak": phase.rate}], lr=phase.rate, betas=(0.9, 0.98), weight_decay=0.01, fused=fused
    )
    if phase.matrix_rate is None:
        return [adam]
    muon = torch.optim.Muon(
        [{"params": matrices, "peak": phase.matrix_rate}],
        lr=phase.matrix_rate,
        weight_decay=0.01,
        adjust_lr_fn="match_rms_adamw",
    )
    return [adam, muon]


def _is_within(name: str) -> bool:
    """Whether a matrix lies between the first and the last layer and is no modulation."""
    return ("layers." in name or "refiner." in name) and "adaLN" not in name


@contextmanager
def _progress(phase: Phase, start: int) -> Iterator[Callable[[int, float], None]]:
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(phase.name, total=phase.steps, completed=start, loss="")

        def show(done: int, loss: float) -> None:
            bar.update(task, completed=done, loss=f"{loss:.5f}")
            if not console.is_terminal and (done % phase.save_every == 0 or done == phase.steps):
                console.print(f"{phase.name}: step {done} of {phase.steps}, loss {loss:.5f}", highlight=False)

        yield show
