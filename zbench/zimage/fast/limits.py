"""Why a transformer's layers cannot be fused, a sentence each: what stands in the way, then the way out.

Plans say them before weights load, so this imports no torch; the pieces say them of what they find.
"""

MULTIPLE = 16
"""What both dimensions of a weight must be multiples of, for scaled matmuls of FP8 take no others."""

GATHER_SENDS_EACH = (
    "gather sends the values while the keys are computed, and the keys while the queries are, so it computes each "
    "apart; use compute.qkv=split"
)
ASYNC_SENDS_EACH = (
    "ulysses_async sends the queries while the keys are computed, in an attention of cache-dit's own with complex "
    "rotations; use parallel.ulysses_async=false, or compute.qkv=split with compute.rope=complex"
)
ADAPTER_BESIDE = (
    "a LoRA that is kept beside the layers changes each of them apart; use pipeline.lora_fused=true, or leave its "
    "layers split"
)
PACKED = "its weights are packed ({kind}), and only plain ones can be joined; leave its layers split"
ALREADY = "its layers are fused already; undo that first"
FOREIGN_PROCESSOR = (
    "its attention is computed by {kind}, not by diffusers' own processor; use compute.qkv=split and "
    "compute.rope=complex"
)
NO_MASK = "attention in FP8 takes no mask, which prompts of unequal length in one forward need"
NORMS_ALREADY = "its norms are fused already"
NORMS_APART = (
    "no block reads FP8 by joined layers in attention and feed-forward, so its norms have nothing to round for; use "
    "compute.norms=split"
)
