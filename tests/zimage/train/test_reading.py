"""The reading phase: right answers, and a text encoder that learns to give them."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from zbench.zimage.layout import preset_folder
from zbench.zimage.scenes.world import PLACES, parse_scene
from zbench.zimage.train.batches import CaptionBatches, make_scenes
from zbench.zimage.train.loop import Phase, Session
from zbench.zimage.train.reading import ANSWERS, Reader, answers, train_reading
from zbench.zimage.train.start import new_modules
from zbench.zimage.train.tokenizer import build_tokenizer


def test_answers_say_what_stands_where() -> None:
    right = answers(parse_scene("large red circle left; small blue star top; on white; word A2"))
    said = {kind: [ANSWERS[kind][i] for i in given] for kind, given in right.items()}
    assert {place: c for place, c in zip(PLACES, said["colour"], strict=True) if c} == {"left": "red", "top": "blue"}
    assert {place: s for place, s in zip(PLACES, said["shape"], strict=True) if s} == {"left": "circle", "top": "star"}
    assert sorted(filter(None, said["size"])) == ["large", "small"]
    assert said["background"] == ["white"] and said["sign"] == ["A", "2", "", ""]


def test_a_few_captions_are_soon_read_without_an_error(tmp_path: Path) -> None:
    modules = new_modules(preset_folder("zimage_tiny"), torch.device("cpu"), seed=0)
    batches = CaptionBatches(make_scenes(2, "train", seed=0), build_tokenizer(), size=8, seed=0, dropped=0.0)
    phase = Phase("reading", steps=150, batch=8, rate=3e-3, warmup=10, average=0.5, save_every=150)

    def given(reader: Reader) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            return {kind: logits.argmax(-1) for kind, logits in reader(batches[99].captions).items()}

    encoder = train_reading(modules["text_encoder"], batches, phase, 0, Session(tmp_path))
    reader = Reader(encoder)
    stored = load_file(tmp_path / "reading.safetensors")
    learned = {k.removeprefix(prefix): t for k, t in stored.items() if k.startswith(prefix := "model.average.module.")}
    asks = {name: tensor for name, tensor in learned.items() if not name.startswith("text_encoder.")}
    reader.load_state_dict(asks, strict=False)
    right = [answers(batches.scenes[i]) for i in batches[99].scenes.tolist()]
    for kind, said in given(reader).items():
        assert said.tolist() == [r[kind] for r in right], kind
