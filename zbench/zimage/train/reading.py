"""Phase two: the text encoder learns to read before anything is painted, as the full model's language model has.

Painting alone teaches it which word sits where, but hardly which colour belongs to which thing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zbench.zimage.scenes.world import ALPHABET, BACKGROUNDS, COLOURS, LONGEST_WORD, PLACES, SHAPES, SIZES, Scene
from zbench.zimage.train.batches import CaptionBatches, ahead
from zbench.zimage.train.joint import Captions, encode_text
from zbench.zimage.train.loop import Phase, Session, learn

NOTHING = ""
"""The answer where no thing or no sign stands."""
ANSWERS: dict[str, tuple[str, ...]] = {
    "size": (NOTHING, *SIZES),
    "colour": (NOTHING, *COLOURS),
    "shape": (NOTHING, *SHAPES),
    "background": tuple(BACKGROUNDS),
    "sign": (NOTHING, *ALPHABET),
}


def answers(scene: Scene) -> dict[str, list[int]]:
    """The right answers by kind, as indices in `ANSWERS`: one for each place or sign, or the background's alone."""
    at = {thing.place: thing for thing in scene.things}
    right = {
        kind: [getattr(at[place], kind) if place in at else NOTHING for place in PLACES]
        for kind in ("size", "colour", "shape")
    }
    right["background"] = [scene.background]
    right["sign"] = list(scene.word or "") + [NOTHING] * (LONGEST_WORD - len(scene.word or ""))
    return {kind: [ANSWERS[kind].index(answer) for answer in given] for kind, given in right.items()}


class Reader(nn.Module):
    """A text encoder and what asks it: a query for each place, for the background and for each sign."""

    def __init__(self, text_encoder: Any) -> None:
        super().__init__()
        width = text_encoder.config.hidden_size
        self.text_encoder = text_encoder
        self.norm = nn.LayerNorm(width)
        self.queries = nn.Parameter(torch.randn(len(PLACES) + 1 + LONGEST_WORD, width))
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.heads = nn.ModuleDict({kind: nn.Linear(width, len(given)) for kind, given in ANSWERS.items()})
        self.to(text_encoder.device)

    def forward(self, captions: Captions) -> dict[str, Tensor]:
        """Logits by kind, captions × questions × answers."""
        features = self.norm(encode_text(self.text_encoder, captions).float())
        queries = self.queries.expand(len(captions), -1, -1)
        asked, _ = self.attention(queries, features, features, key_padding_mask=~captions.mask, need_weights=False)
        places, background, signs = asked.split((len(PLACES), 1, LONGEST_WORD), dim=1)
        by_kind = {"background": background, "sign": signs}
        return {kind: head(by_kind.get(kind, places)) for kind, head in self.heads.items()}


def train_reading(text_encoder: Any, batches: CaptionBatches, phase: Phase, seed: int, session: Session) -> Any:
    """The text encoder, averaged over the end of the phase. `batches` say whose captions are read."""
    device = text_encoder.device
    right = [answers(scene) for scene in batches.scenes]
    labels = {kind: torch.tensor([r[kind] for r in right], device=device) for kind in ANSWERS}
    torch.manual_seed(seed)
    reader = Reader(text_encoder)
    batch_at = ahead(batches, phase.steps, session.workers)

    def loss_at(step: int) -> Tensor:
        batch = batch_at(step)
        with torch.autocast(device.type, torch.bfloat16):
            given = reader(batch.captions.to(device))
        scenes = batch.scenes.to(device)
        losses = [
            F.cross_entropy(given[kind].flatten(0, 1).float(), labels[kind][scenes].flatten()) for kind in ANSWERS
        ]
        return torch.stack(losses).sum()

    return learn(phase, reader, loss_at, session).text_encoder
