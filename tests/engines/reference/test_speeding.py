"""What a trial's compute asks for is applied to a pipeline in its order, and put back the last first."""

import sys
from collections.abc import Callable
from contextlib import ExitStack
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from factories import trial
from torch._dynamo import config as dynamo

from zbench.config import ComputeConfig, OffloadConfig
from zbench.engines.reference.speeding import Sped, speed
from zbench.errors import ConfigError
from zbench.trial import Trial

FAST = ComputeConfig(
    device="cuda", compile=True, qkv="fused", rope="real", ffn="fused", text="compiled", decode="compiled"
)


class Pieces:
    """Stand-ins for the pieces, which write down what they were asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.said: list[str] = []
        self.refusal: str | None = None
        self._patch = monkeypatch
        self._put(
            "attention",
            fuse_attention=lambda _t, *, qkv, rope, in_fp8: self._said(f"attention {qkv} {rope}{' fp8' * in_fp8}"),
        )
        self._put("feed_forward", fuse_feed_forward=lambda _t: self._said("feed_forward"))
        self._put("text", shorten_text=lambda _p, *, compiled: self._said(f"text {compiled}"))
        self._put("ahead", run_ahead=lambda _p: self._said("ahead"))
        self._put("decode", speed_decode=lambda _v, mode: self._said(f"decode {mode}"))
        self._put("quantization", quantize=self._quantize, count_quantised=lambda _t: 6)
        self._put("fused_norms", fuse_norms=lambda _t: self._said("norms"))
        transformer = SimpleNamespace(compile_repeated_blocks=lambda fullgraph, options: self.said.append("compile"))
        vae = SimpleNamespace(decoder="decoder")
        self.pipe = SimpleNamespace(transformer=transformer, vae=vae, text_encoder="text")

    def _put(self, name: str, **functions: Any) -> None:
        module = ModuleType(name)
        vars(module).update(functions)
        self._patch.setitem(sys.modules, f"zbench.zimage.fast.{name}", module)

    def _said(self, what: str) -> Callable[[], None]:
        if self.refusal is not None and what.startswith(self.refusal):
            raise ValueError("these layers are none")
        self.said.append(what)
        return lambda: self.said.append(f"undo {what}")

    def _quantize(self, _transformer: Any, kind: str, scope: str, keep_ends: int) -> None:
        self._said(f"quantize {kind} {scope} {keep_ends}")

    def applied(self, compute: ComputeConfig, undo: ExitStack) -> Sped:
        of: Trial = trial(compute=compute)
        return speed(self.pipe, of, "none", None, undo)


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> Pieces:
    # monkeypatch imports the package itself, where its folder is there
    package = ModuleType("zbench.zimage.fast")
    package.__path__ = []
    monkeypatch.setitem(sys.modules, "zbench.zimage.fast", package)
    return Pieces(monkeypatch)


def test_layers_are_joined_then_quantised_then_compiled(pieces: Pieces) -> None:
    compute = ComputeConfig(**{**vars(FAST), "quantization": "fp8", "scope": "ffn"})
    with ExitStack() as undo:
        quantized, graphed = pieces.applied(compute, undo)
        assert pieces.said == [
            "attention True True", "feed_forward", "quantize fp8 ffn 1", "text True", "ahead", "decode compiled",
            "compile",
        ]  # fmt: skip
        assert quantized == {"fp8": 6} and graphed == []
        pieces.said.clear()
    assert pieces.said == ["undo decode compiled", "undo ahead", "undo text True"]


def test_norms_are_fused_once_what_they_round_for_is_quantised(pieces: Pieces) -> None:
    with ExitStack() as undo:
        compute = ComputeConfig(device="cuda", compile=True, quantization="fp8", norms="fused")
        assert pieces.applied(compute, undo).quantized == {"fp8": 6}
        assert pieces.said == ["quantize fp8 both 1", "norms", "compile"]


def test_what_was_applied_is_put_back_the_last_first_but_for_joined_layers(pieces: Pieces) -> None:
    """To part them takes their weights a second time, for a pipeline that nobody uses any more."""
    with ExitStack() as undo:
        pieces.applied(FAST, undo)
        pieces.said.clear()
    assert pieces.said == ["undo decode compiled", "undo ahead", "undo text True"]


def test_nothing_is_touched_that_nobody_asked_for(pieces: Pieces) -> None:
    with ExitStack() as undo:
        assert pieces.applied(ComputeConfig(device="cuda"), undo) == ({}, [])
        assert pieces.said == []


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"rope": "real"}, "attention False True"),
        ({"qkv": "fused"}, "attention True False"),
        ({"text": "short"}, "text False"),
        ({"decode": "channels_last"}, "decode channels_last"),
    ],
)
def test_a_knob_alone_is_its_piece_alone(pieces: Pieces, knobs: dict[str, Any], said: str) -> None:
    with ExitStack() as undo:
        pieces.applied(ComputeConfig(device="cuda", **knobs), undo)
        assert pieces.said == [said, *(["ahead"] if "text" in knobs else [])], "short text lets the host run ahead"


@pytest.mark.parametrize(
    ("refuses", "says"),
    [
        ("attention", "compute.qkv=fused: these"),
        ("feed", "compute.ffn=fused: these"),
        ("decode", "compute.decode=compiled: these"),
        ("quantize", "compute.quantization=fp8: these"),
        ("norms", "compute.norms=fused: these"),
    ],
)
def test_what_a_piece_refuses_names_its_knob_and_the_rest_is_put_back(pieces: Pieces, refuses: str, says: str) -> None:
    pieces.refusal = refuses
    quantised = {"quantization": "fp8", "norms": "fused"} if refuses in ("quantize", "norms") else {}
    compute = ComputeConfig(**{**vars(FAST), **quantised})
    with pytest.raises(ConfigError, match=says), ExitStack() as undo:
        pieces.applied(compute, undo)
    applied = [each for each in pieces.said if not each.startswith("undo ")]
    undone = [each.removeprefix("undo ") for each in pieces.said if each.startswith("undo ")]
    assert undone == [
        each for each in reversed(applied) if not each.startswith(("attention", "feed_forward", "quantize"))
    ]


def test_what_waits_in_host_memory_is_not_captured(pieces: Pieces) -> None:
    of = trial(compute=ComputeConfig(device="cuda", graphs="stages"), offload=OffloadConfig(mode="all"))
    with ExitStack() as undo:
        assert speed(pieces.pipe, of, "stages", None, undo) == Sped({}, [])


@pytest.mark.parametrize("whole", [False, True])
def test_blocks_compiled_in_pieces_may_be_of_more_kinds_than_torch_keeps(monkeypatch: pytest.MonkeyPatch, whole: bool):
    """cache-dit's hooks are one function for all blocks; ring's were more kinds than 8, and the rest ran uncompiled."""
    pieces, before = Pieces(monkeypatch), dynamo.recompile_limit
    sharded = SimpleNamespace(compiles_whole=whole, compile_options=None)
    with ExitStack() as undo:
        speed(pieces.pipe, trial(compute=ComputeConfig(compile=True)), "none", sharded, undo)
        assert (dynamo.recompile_limit > before) is not whole
    assert dynamo.recompile_limit == before
