"""Text encoding of what is used: the prompts' real tokens, up to the layer whose output the transformer is given.

diffusers pads every prompt to 512 tokens, runs all layers, keeps the output of each, takes the last but one, and waits
for the device to pick the real tokens out of it. Attention is causal and padding on the right, so real tokens never see
it: here they are padded to the next multiple of `TEXT_BUCKET` alone, without a mask, which also lets attention use its
fastest kernels. Their number is known on the host before anything is sent to the device, so nothing waits for it.

Of Qwen3's n layers the last and the norm after it do not run: `hidden_states[-2]` is what layer n - 1 gives.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zbench.zimage.fast.shapes import compiled as compiled_by_shape
from zbench.zimage.fast.shapes import each_shape
from zbench.zimage.fast.stand_in import Undo, stand_in, undoing
from zbench.zimage.fast.transfer import sent
from zbench.zimage.flops import bucketed_tokens

SHORT = "second_last_alone"
"""The argument by which the text encoder is asked for that state alone; asked otherwise it answers as ever."""

MASKLESS = ("sdpa", "flash_attention_2", "flash_attention_3")
"""Of transformers' attention implementations those that are causal without a mask."""


def shorten_text(pipe: Any, *, compiled: bool) -> Undo:
    """Encode real tokens alone in `pipe`, a diffusers `ZImagePipeline` with a Qwen3, until the result is called.

    `compiled`: each layer is one graph for each bucket and batch; what hooks a layer stays outside of it. To capture
    a CUDA graph of, `pipe.text_encoder` is the module, as before: its forward waits for nothing.

    The encoder may be a language model, whose head does not run either.

    Raises ValueError for a text encoder whose layers attend to a window, or need a mask to be causal.
    """
    encoder = pipe.text_encoder
    _refuse_masks(encoder)
    short, own = _without_last_layer(encoder.base_model), encoder.forward
    masks = dict.fromkeys(encoder.config.layer_types)

    def second_last(input_ids: Tensor) -> Tensor:
        """Batch × tokens × width, of ids (batch × tokens). The model's `forward`, for its hooks have been called."""
        made: Tensor = short.forward(input_ids=input_ids, attention_mask=masks, use_cache=False).last_hidden_state
        return made

    def forward(*args: Any, **kwargs: Any) -> Any:
        if not kwargs.pop(SHORT, False):
            return own(*args, **kwargs)
        if not compiled:
            return second_last(*args, **kwargs)
        with each_shape():
            return second_last(*args, **kwargs)

    def encode(
        prompt: str | list[str],
        device: torch.device | None = None,
        prompt_embeds: list[Tensor] | None = None,
        max_sequence_length: int = 512,
    ) -> list[Tensor]:
        """Of each prompt tokens × width, as `ZImagePipeline._encode_prompt`; it writes nothing into `prompt`."""
        if prompt_embeds is not None:
            return prompt_embeds
        texts = [prompt] if isinstance(prompt, str) else prompt
        ids, lengths = bucketed(pipe.tokenizer, texts, max_sequence_length)
        there = sent(ids, device or pipe._execution_device)
        states = pipe.text_encoder(input_ids=there, **{SHORT: True})
        return [states[k, :length] for k, length in enumerate(lengths)]

    undos = [stand_in(encoder, "forward", forward), stand_in(pipe, "_encode_prompt", encode)]
    if compiled:
        for layer in short.layers:
            undos.append(stand_in(layer, "forward", compiled_by_shape(_without_recorders(layer).forward, whole=True)))
    return undoing(undos)


def bucketed(tokenizer: Any, texts: Sequence[str], max_sequence_length: int) -> tuple[Tensor, list[int]]:
    """Ids (prompts × bucket) in host memory, and how many of each prompt are real: those of diffusers' pipeline."""
    said = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True, enable_thinking=True
        )
        for text in texts
    ]
    tokens = tokenizer(said, max_length=max_sequence_length, truncation=True).input_ids
    lengths = [len(one) for one in tokens]
    bucket = bucketed_tokens(max(lengths))
    ids = torch.full((len(tokens), bucket), tokenizer.pad_token_id, dtype=torch.int64)
    for row, one in zip(ids, tokens, strict=True):
        row[: len(one)] = torch.tensor(one)
    return ids, lengths


def _without_last_layer(encoder: Any) -> Any:
    """The model with one layer less and no norm at its end. Its parts are the encoder's own, and so are its weights."""
    short = copy.copy(encoder)
    vars(short).pop("forward", None)
    short._modules = dict(encoder._modules)
    short.layers = nn.ModuleList(list(encoder.layers)[:-1])
    short.norm = nn.Identity()
    return short


def _without_recorders(layer: Any) -> Any:
    """A layer of the same parts, without the hooks by which transformers records what attention gives.

    It hooks them on at the first call that asks for states, for good, and no compiler sees through them.
    """
    bare = copy.copy(layer)
    bare._modules = {name: copy.copy(child) for name, child in layer._modules.items()}
    for child in bare._modules.values():
        child._forward_hooks = OrderedDict()
    return bare


def _refuse_masks(encoder: Any) -> None:
    windows = sorted(set(encoder.config.layer_types) - {"full_attention"})
    if windows:
        raise ValueError(f"the text encoder has layers of {', '.join(windows)}, which padding matters to; text=padded")
    kernel = encoder.config._attn_implementation
    if kernel not in MASKLESS:
        problem = "is not causal without a mask; load it with sdpa, or leave text=padded"
        raise ValueError(f"the text encoder's attention, {kernel}, {problem}")
