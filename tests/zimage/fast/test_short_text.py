"""Text encoding of real tokens alone gives what the pipeline's own gives, in static shapes, and waits for nothing."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode

from zbench.zimage.fast import shapes
from zbench.zimage.fast.text import SHORT, bucketed, shorten_text
from zbench.zimage.flops import TEXT_BUCKET

SHORTEST, MIDDLE, LONG = "a red circle", "a blue square on the left " * 15, "一幅海报，蒸汽火车" * 40
TOLERANCE = 1e-5

WAITS = ("aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.is_nonzero")
"""What a host asks of a device and waits for."""


class Asked(TorchDispatchMode):
    """Notes every operation."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func).rsplit(".", 1)[0])
        return func(*args, **(kwargs or {}))


@contextmanager
def shortened(pipe: Any, *, compiled: bool = False) -> Iterator[None]:
    undo = shorten_text(pipe, compiled=compiled)
    try:
        yield
    finally:
        undo()


@torch.no_grad()
def encoded(pipe: Any, prompt: Any, negative: Any = None, **options: Any) -> list[Tensor]:
    guided = negative is not None
    both = pipe.encode_prompt(prompt, "cpu", guided, copy.copy(negative), **options)
    return [*both[0], *both[1]]


def assert_same(some: list[Tensor], others: list[Tensor]) -> None:
    """Relative to the largest: random layers give states far above 1."""
    assert len(some) == len(others)
    for one, other in zip(some, others, strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype
        assert float((one - other).abs().max()) <= TOLERANCE * float(other.abs().max())


CASES = {
    "one": (SHORTEST, None),
    "batch": ([SHORTEST, LONG, MIDDLE], None),
    "guided": ([MIDDLE, SHORTEST], ["", LONG]),
    "empty": ("", ""),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("longest", [512, 96])
def test_states_are_those_of_the_padded_encoder(tiny: Any, case: str, longest: int) -> None:
    """96: no multiple of a bucket, and the long prompt is cut off there."""
    prompt, negative = CASES[case]
    own = encoded(tiny, copy.copy(prompt), negative, max_sequence_length=longest)
    with shortened(tiny):
        assert_same(encoded(tiny, copy.copy(prompt), negative, max_sequence_length=longest), own)


def test_of_a_language_model_the_head_does_not_run(tiny: Any) -> None:
    """A folder's text encoder may be one; its states are those of the model in it."""
    own = encoded(tiny, [SHORTEST, MIDDLE])
    whole = transformers.Qwen3ForCausalLM(tiny.text_encoder.config).eval()
    whole.model, other = tiny.text_encoder, copy.copy(tiny)
    other.text_encoder = whole
    heads: list[Any] = []
    whole.lm_head.register_forward_hook(lambda *_: heads.append(1))
    with shortened(other):
        assert_same(encoded(other, [SHORTEST, MIDDLE]), own)
    assert not heads and "forward" not in vars(whole)


def test_the_encoder_sees_a_bucket_and_runs_no_layer_in_vain(tiny: Any) -> None:
    seen: list[torch.Size] = []
    ran: list[int] = []
    encoder = tiny.text_encoder
    hooks = [encoder.register_forward_pre_hook(lambda *a: seen.append(a[2]["input_ids"].shape), with_kwargs=True)]
    for k, layer in enumerate(encoder.layers):
        hooks.append(layer.register_forward_hook(lambda *_, k=k: ran.append(k)))
    with shortened(tiny):
        encoded(tiny, [SHORTEST, MIDDLE])
    for hook in hooks:
        hook.remove()
    assert seen == [(2, 2 * TEXT_BUCKET)]  # the longer one has between 65 and 128 tokens
    assert ran == list(range(len(encoder.layers) - 1))


@pytest.mark.parametrize("words", range(0, 130, 13))
def test_a_bucket_is_the_least_that_holds_the_prompt(tiny: Any, words: int) -> None:
    ids, (length,) = bucketed(tiny.tokenizer, ["a " * words], 512)
    assert ids.shape[1] % TEXT_BUCKET == 0 and ids.shape[1] - TEXT_BUCKET < length <= ids.shape[1]


def test_nothing_waits_for_the_device(tiny: Any) -> None:
    own, short = Asked(), Asked()
    with own:
        encoded(tiny, [SHORTEST, MIDDLE])
    assert set(WAITS) & set(own.names)  # as diffusers does, or this test sees nothing
    ids, _ = bucketed(tiny.tokenizer, [SHORTEST, MIDDLE], 512)
    with shortened(tiny), torch.no_grad(), short:
        tiny.text_encoder(input_ids=ids, **{SHORT: True})
    assert not set(WAITS) & set(short.names)


def test_callers_keep_their_prompts_and_their_own_embeddings(tiny: Any) -> None:
    prompts, given = [SHORTEST, MIDDLE], [torch.ones(3, 4)]
    with shortened(tiny):
        encoded(tiny, prompts)
        assert encoded(tiny, prompts, prompt_embeds=given)[0] is given[0]
    assert prompts == [SHORTEST, MIDDLE]


def test_asked_otherwise_the_encoder_answers_as_ever(tiny: Any) -> None:
    ids = torch.arange(5, 12)[None]
    with torch.no_grad():
        own = tiny.text_encoder(input_ids=ids, output_hidden_states=True)
        with shortened(tiny):
            made = tiny.text_encoder(input_ids=ids, output_hidden_states=True)
    assert len(made.hidden_states) == len(own.hidden_states)
    assert torch.equal(made.last_hidden_state, own.last_hidden_state)


def test_undone_nothing_is_left(tiny: Any) -> None:
    config = copy.deepcopy(tiny.text_encoder.config.to_dict())
    undo = shorten_text(tiny, compiled=True)
    undo()
    undo()
    parts = [tiny, tiny.text_encoder, *tiny.text_encoder.layers]
    assert not [part for part in parts if {"forward", "_encode_prompt"} & set(vars(part))]
    assert tiny.text_encoder.config.to_dict() == config
    assert type(tiny.text_encoder.norm).__name__ == "Qwen3RMSNorm"


def test_undone_beneath_what_wrapped_it_the_encoder_is_itself(tiny: Any) -> None:
    """As offload hooks do, which keep the forward that they found."""
    own = encoded(tiny, SHORTEST)
    undo = shorten_text(tiny, compiled=False)
    found = tiny.text_encoder.forward
    tiny.text_encoder.forward = lambda *args, **kwargs: found(*args, **kwargs)
    undo()
    try:
        assert_same(encoded(tiny, SHORTEST), own)
    finally:
        del tiny.text_encoder.forward


def test_an_image_is_the_same(tiny: Any) -> None:
    def image() -> Tensor:
        made: Tensor = tiny(
            [SHORTEST, MIDDLE],
            height=64,
            width=64,
            num_inference_steps=2,
            guidance_scale=2.0,
            generator=torch.Generator().manual_seed(0),
            output_type="pt",
        ).images
        return made

    own = image()
    with shortened(tiny):
        assert float((image() - own).abs().max()) <= TOLERANCE


@pytest.fixture
def one_shape() -> Iterator[None]:
    """Dynamo's own limit is a single shape; past it, it would go on without compiling, and say nothing."""
    torch.compiler.reset()
    counters.clear()
    with torch._dynamo.config.patch(recompile_limit=1):
        yield
    torch.compiler.reset()


@pytest.mark.usefixtures("one_shape")
def test_each_bucket_is_compiled_once_however_many_there_are(tiny: Any) -> None:
    own = [encoded(tiny, prompt) for prompt in (SHORTEST, MIDDLE)]
    with shortened(tiny, compiled=True):
        for _ in range(2):
            for prompt, states in zip((SHORTEST, MIDDLE), own, strict=True):
                assert_same(encoded(tiny, prompt), states)
    assert counters["stats"]["unique_graphs"] == 2 and not counters["graph_break"]


@pytest.mark.usefixtures("one_shape")
def test_too_many_shapes_are_an_error_and_not_a_slow_call(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "SHAPES", 1)
    monkeypatch.setattr(shapes, "BACKEND", "eager")
    with shortened(tiny, compiled=True):
        encoded(tiny, SHORTEST)
        with pytest.raises(Exception, match="recompile_limit"):
            encoded(tiny, MIDDLE)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("layer_types", ["full_attention", "sliding_attention", "full_attention"], "sliding_attention"),
        ("_attn_implementation", "eager", "eager"),
    ],
)
def test_an_encoder_that_needs_a_mask_is_refused(tiny: Any, name: str, value: Any, told: str) -> None:
    other = copy.copy(tiny)
    other.text_encoder = copy.copy(tiny.text_encoder)
    other.text_encoder.config = copy.deepcopy(tiny.text_encoder.config)
    setattr(other.text_encoder.config, name, value)
    with pytest.raises(ValueError, match=told):
        shorten_text(other, compiled=False)
