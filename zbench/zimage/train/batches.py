"""What each training step sees, decided by the step's number alone, so that a resumed run goes on as if never stopped.

Captions are written by worker processes ahead of their use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from zbench.zimage.scenes.captions import LANGUAGES, caption
from zbench.zimage.scenes.world import Scene, Split, sample_scene
from zbench.zimage.train.joint import PADDING_MULTIPLE, Captions, tokenize

MOST_DRAWS = 30
"""Times that captions are drawn to find a batch of one length."""


@dataclass(frozen=True)
class Batch:
    """Captions of one padded length, and the indices of their scenes."""

    scenes: torch.Tensor
    captions: Captions


def make_scenes(count: int, split: Split, seed: int) -> list[Scene]:
    """`count` scenes; the same for the same seed."""
    random = Random(f"{split} {seed}")
    return [sample_scene(random, split) for _ in range(count)]


class CaptionBatches(Dataset[Batch]):
    """Item k: captions of `size` scenes picked by k, all of one padded length; `dropped` of all captions are empty.

    A length is as likely as it is among captions. Empty captions teach the unconditional velocity that guidance needs.
    """

    def __init__(self, scenes: list[Scene], tokenizer: Any, size: int, seed: int, dropped: float) -> None:
        self.scenes, self.tokenizer, self.size, self.seed, self.dropped = scenes, tokenizer, size, seed, dropped

    def __getitem__(self, step: int) -> Batch:
        random = Random(f"{self.seed} {step}")
        parts = self._parts(random)
        found = random.choices(parts, weights=[len(part.captions) for part in parts])
        for _ in range(MOST_DRAWS):
            if sum(len(part.captions) for part in found) >= self.size:
                break
            found += [p for p in self._parts(random) if p.captions.ids.shape[1] == found[0].captions.ids.shape[1]]
        scenes, ids, masks = (
            torch.cat(tensors)
            for tensors in zip(*((p.scenes, p.captions.ids, p.captions.mask) for p in found), strict=True)
        )
        chosen = torch.arange(self.size) % len(scenes)  # a length that hardly any caption has repeats those that do
        return Batch(scenes[chosen], Captions(ids[chosen], masks[chosen]))

    def _parts(self, random: Random) -> list[Batch]:
        picked = random.choices(range(len(self.scenes)), k=self.size)
        texts = [
            "" if random.random() < self.dropped else caption(self.scenes[i], random.choice(LANGUAGES), random)
            for i in picked
        ]
        return by_length(torch.tensor(picked), tokenize(self.tokenizer, texts))


def by_length(scenes: torch.Tensor, captions: Captions) -> list[Batch]:
    """Part captions by the length that each alone would be padded to."""
    lengths = captions.mask.sum(1)
    padded = (lengths + PADDING_MULTIPLE - 1) // PADDING_MULTIPLE * PADDING_MULTIPLE
    return [
        Batch(scenes[chosen], Captions(captions.ids[chosen, :length], captions.mask[chosen, :length]))
        for length in sorted(set(padded.tolist()))
        for chosen in (padded == length,)
    ]


def ahead(batches: CaptionBatches, steps: int, workers: int) -> Callable[[int], Batch]:
    """A function that gives a step's batch; to be asked for consecutive steps below `steps`, from any on.

    It raises ValueError at a step that does not follow the last one.
    """
    coming: Iterator[Batch] | None = None
    due = 0

    def batch_at(step: int) -> Batch:
        nonlocal coming, due
        if coming is None:
            coming, due = stream(batches, range(step, steps), workers), step
        if step != due:
            raise ValueError(f"batch {step} was asked for, {due} is next")
        due += 1
        return next(coming)

    return batch_at


def stream(batches: CaptionBatches, steps: range, workers: int) -> Iterator[Batch]:
    """Batches of these steps in order, made `workers` processes ahead; 0 makes them in this process."""
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,
    )
    return iter(loader)
