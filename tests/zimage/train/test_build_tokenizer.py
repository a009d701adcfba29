"""The tokenizer that ships with the tiny pipeline."""

from pathlib import Path
from typing import Any

import pytest
from tiny_images import PROMPTS

from zbench.zimage.layout import preset_folder
from zbench.zimage.train.tokenizer import build_tokenizer


def test_the_shipped_one_is_what_is_built(tmp_path: Path) -> None:
    """Scenes and captions decide the vocabulary: whoever changes them must train the weights again."""
    build_tokenizer().save_pretrained(tmp_path)
    shipped = preset_folder("zimage_tiny") / "tokenizer"
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / name).read_text("utf-8") == (shipped / name).read_text("utf-8"), name


@pytest.mark.parametrize("text", [*PROMPTS, "emoji 🦊, tab\tand\nline", ""])
def test_any_text_is_encoded_without_loss(tiny: Any, text: str) -> None:
    assert tiny.tokenizer.decode(tiny.tokenizer(text).input_ids) == text


def test_the_chat_template_is_qwens(tiny: Any) -> None:
    """What Qwen3's own template gives for one user turn with thinking enabled, as `ZImagePipeline` asks for it."""
    messages = [{"role": "user", "content": "a cat"}]
    text = tiny.tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, enable_thinking=True
    )
    assert text == "<|im_start|>user\na cat<|im_end|>\n<|im_start|>assistant\n"
