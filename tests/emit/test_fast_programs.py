"""A program of diffusers alone for the fast path: what it can say it says, and what is zbench's own is in a note."""

import ast

from factories import TURBO, trial
from torch import nn

from zbench.config import ComputeConfig
from zbench.emit import emit
from zbench.methods import fast
from zbench.zimage.fast.quantization import SCOPES

FAST = ComputeConfig(device="cuda", compile=True, graphs="auto", attention_backend="_native_cudnn", **fast.FAST)


def program(compute: ComputeConfig) -> tuple[str, tuple[str, ...]]:
    made = emit(trial(pipeline=TURBO, compute=compute), "diffusers")
    ast.parse(made.files[0].text)
    return made.files[0].text, made.notes


def test_it_carries_what_diffusers_and_torch_have_words_for() -> None:
    text, notes = program(FAST)
    for line in (
        "pipe.transformer.set_attention_backend('_native_cudnn')",
        "pipe.transformer.compile_repeated_blocks(fullgraph=True)",
        "pipe.vae.to(memory_format=torch.channels_last)",
        "pipe.vae.decoder.compile()",
    ):
        assert line in text
    assert any("compute.qkv=fused, compute.rope=real, compute.text=compiled" in n for n in notes)
    assert any("compute.graphs=auto" in note for note in notes) and not any("compute.decode" in note for note in notes)
    assert "torchao" not in text


def test_a_layout_alone_compiles_nothing() -> None:
    text, _ = program(ComputeConfig(device="cuda", decode="channels_last"))
    assert "channels_last" in text and "compile" not in text.split("prompts = [")[0].replace("# ", "")


def test_it_quantises_the_layers_that_zbench_does() -> None:
    names = [
        f"layers.{place}.{part}"
        for place in range(30)
        for part in ("attention.to_q", "attention.to_out.0", "feed_forward.w2", "adaLN_modulation.0")
    ] + ["noise_refiner.0.attention.to_q", "cap_embedder.1"]
    for scope, parts in SCOPES.items():
        text, notes = program(ComputeConfig(device="cuda", compile=True, quantization="fp8", scope=scope))
        (told,) = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
        space: dict[str, object] = {"torch": type("torch", (), {"nn": nn})}
        exec(compile(ast.Module([told], []), "generate.py", "exec"), space)
        is_quantised, layer = space["is_quantised"], nn.Linear(1, 1, device="meta")
        assert callable(is_quantised)
        chosen = {name for name in names if is_quantised(layer, name)}
        assert chosen == {n for n in names if n.split(".")[2:3] and n.split(".")[2] in parts and _inner(n)}
        assert "quantize_(pipe.transformer, by_row, filter_fn=is_quantised)" in text
        assert not any("compute.quantization" in note or "compute.scope" in note for note in notes)


def _inner(name: str) -> bool:
    return name.startswith("layers.") and 1 <= int(name.split(".")[1]) <= 28
