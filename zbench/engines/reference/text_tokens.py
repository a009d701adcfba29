"""Prompt tokens: how many of a prompt are cut off, and those of each sample in a transformer forward.

The latter are read from its arguments' shapes; it waits for no device.
"""

from collections.abc import Iterable
from typing import Any

from zbench.config import PipelineConfig, Prompt


def cut_tokens(tokenizer: Any, pipeline: PipelineConfig, prompts: Iterable[Prompt]) -> dict[str, int]:
    """By prompt id, how many tokens of it the pipeline cuts off; the prompts that fit are left out.

    Of a prompt and its negative prompt the more counts. Tokens are those of diffusers' `ZImagePipeline.encode_prompt`:
    of the chat template with the prompt in it.
    """
    cut = {}
    for prompt in prompts:
        texts = [prompt.text, prompt.negative_prompt] if prompt.negative_prompt else [prompt.text]
        beyond = max(len(_tokens(tokenizer, text)) for text in texts) - pipeline.max_sequence_length
        if beyond > 0:
            cut[prompt.id] = beyond
    return cut


def _tokens(tokenizer: Any, text: str) -> list[int]:
    said = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True, enable_thinking=True
    )
    return list(tokenizer(said, verbose=False).input_ids)


class TextTokens:
    """Watches the forwards of a `ZImageTransformer2DModel` by a hook; `close` takes it off again."""

    def __init__(self, transformer: Any) -> None:
        self.latest: list[int] = []  # of the last forward: with guidance, prompts first and then negative prompts
        # first of all hooks, for one of them may leave only a part of the batch to this device
        self._hook = transformer.register_forward_pre_hook(self._read, with_kwargs=True, prepend=True)

    def _read(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """`cap_feats`, one tensor (tokens × width) a sample, is the third argument of `forward`."""
        cap_feats = kwargs["cap_feats"] if "cap_feats" in kwargs else args[2]
        self.latest = [int(sample.shape[0]) for sample in cap_feats]

    def close(self) -> None:
        """Take the hook off."""
        self._hook.remove()
