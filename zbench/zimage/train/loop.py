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

from zbench.zimage.train.checkpoint import TrainingCheckpoint

MAX_NORM = 1.0
"""Of the gradient."""
SHOW_EVERY = 20
"""Steps, over which the loss shown is averaged."""


class TimeIsUp(Exception):
    """The time given is over; everything learnt is in the checkpoint."""


@dataclass(frozen=True)
class Phase:
    """How long and how fast AdamW learns in one phase. The rate falls linearly to zero after a warm-up."""

    name: str
    steps: int
    batch: int
    rate: float
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

    Goes on from `<work>/<name>.safetensors` if it is there. `on_save(step, averaged)` runs before every checkpoint.
    Raises TimeIsUp, after a checkpoint, once the session's deadline is past.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=phase.rate, betas=(0.9, 0.98), weight_decay=0.01, fused=parameters[0].is_cuda
    )
    decay = get_ema_multi_avg_fn(phase.average)  # type: ignore[no-untyped-call]
    averaged = AveragedModel(model, multi_avg_fn=decay, use_buffers=True)
    checkpoint = TrainingCheckpoint(
        session.work / f"{phase.name}.safetensors", {"now": model, "average": averaged}, optimizer
    )
    start = checkpoint.load()
    losses: list[Tensor] = []
    model.train()
    with _progress(phase, start) as show:
        for step in range(start, phase.steps):
            optimizer.param_groups[0]["lr"] = phase.rate * rate_share(phase, step)
            optimizer.zero_grad(set_to_none=True)
            loss = loss_at(step)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, MAX_NORM)
            optimizer.step()
            averaged.update_parameters(model)
            losses.append(loss.detach())
            done = step + 1
            saves = done % phase.save_every == 0 or done == phase.steps
            if done % SHOW_EVERY == 0 or saves:
                losses = losses[-SHOW_EVERY:]
                show(done, float(torch.stack(losses).mean()))
            if saves:
                on_save(done, averaged.module.eval())
                checkpoint.save(done)
                model.train()
            elif time.monotonic() > session.deadline:
                checkpoint.save(done)
                raise TimeIsUp
    return averaged.module.eval()


def rate_share(phase: Phase, step: int) -> float:
    """Share of the peak rate at a step: up over the warm-up, then down to zero."""
    return min((step + 1) / phase.warmup, 1.0) * (1 - step / phase.steps)


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
        began = time.monotonic()

        def show(done: int, loss: float) -> None:
            bar.update(task, completed=done, loss=f"{loss:.5f}")
            if not console.is_terminal and (done % phase.save_every == 0 or done == phase.steps):
                pace = 1000 * (time.monotonic() - began) / max(done - start, 1)
                console.print(
                    f"{phase.name}: step {done} of {phase.steps}, loss {loss:.5f}, {pace:.0f} ms a step with saving",
                    highlight=False,
                )

        yield show
