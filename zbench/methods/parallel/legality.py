"""What cannot work on any engine: rules on the product of the degrees, given the model, the image and the guidance.

An engine has rules of its own beside these: of the built-in one they are in `stack`, of SGLang in `engines.sglang`.
"""

from collections.abc import Iterator

from zbench.config import ParallelConfig, PipelineConfig
from zbench.methods.parallel.dims import ParallelDims, all_have_tokens, share
from zbench.zimage.flops import padded_tokens
from zbench.zimage.geometry import SEQUENCE_MULTIPLE, Geometry


def problem(parallel: ParallelConfig, pipeline: PipelineConfig, geometry: Geometry) -> str | None:
    """Why these degrees cannot work, naming key, value and the way out; None where they can."""
    if parallel == ParallelConfig(grid=parallel.grid):
        return None
    dims = ParallelDims.of(parallel)
    checks = (
        _guidance(dims, pipeline),
        _one_way_to_keys(dims),
        _weights(dims, geometry),
        _options(parallel, dims),
        _even_tokens(parallel, dims, pipeline, geometry),
        _tokens_for_all(parallel, dims, pipeline, geometry),
        _decode(parallel, dims, pipeline, geometry),
        _text_encoder(parallel, dims, geometry),
    )
    return next((reason for reason in checks if reason), None)


def sequences(pipeline: PipelineConfig, geometry: Geometry) -> Iterator[tuple[str, int]]:
    """Every padded sequence that a block may see, by what it holds: the image, the text, and both together.

    How long a text is nobody knows before; it may be any multiple of SEQUENCE_MULTIPLE up to the longest allowed.
    """
    image = padded_tokens(geometry.image_tokens(pipeline.height, pipeline.width))
    yield "image", image
    for text in range(SEQUENCE_MULTIPLE, padded_tokens(pipeline.max_sequence_length) + 1, SEQUENCE_MULTIPLE):
        yield "text", text
        yield "image and text", image + text


def _guidance(dims: ParallelDims, pipeline: PipelineConfig) -> str | None:
    if dims.cfg > 2:
        return f"parallel.cfg_size={dims.cfg}: guidance makes two passes a step; 1 or 2 devices take them"
    if dims.cfg == 2 and pipeline.guidance_scale <= 0:
        return (
            f"parallel.cfg_size=2: pipeline.guidance_scale={pipeline.guidance_scale:g} makes one pass a step; "
            "above 0, as of pipeline=zimage, it makes two"
        )
    return None


def _one_way_to_keys(dims: ParallelDims) -> str | None:
    if dims.ring > 1 and dims.gather > 1:
        return (
            "parallel.ring_size and parallel.gather_size above 1: ring passes keys and values on, gather has them all "
            "at once; leave one of them at 1"
        )
    return None


def _weights(dims: ParallelDims, geometry: Geometry) -> str | None:
    heads, columns = geometry.transformer.n_heads, geometry.transformer.ffn_dim
    sizes = [size for size in range(2, heads + 1) if heads % size == 0 and columns % size == 0]
    way = f"{', '.join(map(str, sizes))} divide both" if sizes else "leave it at 1"
    for number, of in ((heads, "heads"), (columns, "columns of the feed-forward")):
        if number % dims.tp:
            return f"parallel.tp_size={dims.tp}: {number:,} {of} are not divisible by {dims.tp}; {way}"
    return None


def _options(parallel: ParallelConfig, dims: ParallelDims) -> str | None:
    for key in ("ulysses_anything", "ulysses_async"):
        if getattr(parallel, key) and dims.ulysses == 1:
            return f"parallel.{key}=true: parallel.ulysses_size=1 exchanges nothing; make it 2 or more, or leave it out"
    if parallel.ulysses_anything and dims.ring > 1:
        return f"parallel.ulysses_anything=true: parallel.ring_size={dims.ring} needs even shares; make it 1"
    if parallel.ring_rotate_method != "p2p" and dims.ring == 1:
        method = parallel.ring_rotate_method
        return f"parallel.ring_rotate_method={method}: parallel.ring_size=1 passes nothing on; leave it out"
    if parallel.gather_by != "auto" and dims.gather == 1:
        return f"parallel.gather_by={parallel.gather_by}: parallel.gather_size=1 gathers nothing; leave it out"
    return None


def _even_tokens(
    parallel: ParallelConfig, dims: ParallelDims, pipeline: PipelineConfig, geometry: Geometry
) -> str | None:
    """Ulysses and ring take even shares alone. With gather the shares are gather's."""
    if dims.sequence == 1 or dims.gather > 1 or parallel.ulysses_anything:
        return None
    uneven = next(((of, n) for of, n in sequences(pipeline, geometry) if n % dims.sequence), None)
    if uneven is None:
        return None
    named, (of, tokens) = dims.named("ulysses", "ring"), uneven
    anything = "" if dims.ring > 1 else " and parallel.ulysses_anything=true"
    way = f"parallel.gather_size{anything} take{'' if anything else 's'} uneven shares"
    return f"{named}: {tokens:,} {of} tokens are not divisible by {dims.sequence}; {way}"


def _tokens_for_all(
    parallel: ParallelConfig, dims: ParallelDims, pipeline: PipelineConfig, geometry: Geometry
) -> str | None:
    """Uneven shares are fine as long as each device has a token of every sequence."""
    if dims.sequence == 1:
        return None
    if dims.gather > 1:
        for of, tokens in sequences(pipeline, geometry):
            if not all_have_tokens(tokens, dims.sequence):
                each, named = share(tokens, dims.sequence), dims.named("ulysses", "gather")
                return (
                    f"{named}: of {tokens:,} {of} tokens, shares of {each} leave none for the last of {dims.sequence} "
                    "devices; use fewer"
                )
    elif parallel.ulysses_anything and dims.sequence > SEQUENCE_MULTIPLE:
        return (
            f"parallel.ulysses_size={dims.ulysses}: a text may have {SEQUENCE_MULTIPLE} tokens, fewer than devices; "
            f"use {SEQUENCE_MULTIPLE} or fewer"
        )
    return None


def _decode(parallel: ParallelConfig, dims: ParallelDims, pipeline: PipelineConfig, geometry: Geometry) -> str | None:
    if parallel.vae == "whole":
        return None
    if dims.ranks == 1:
        return f"parallel.vae={parallel.vae}: one device makes an image by itself; use parallel.vae=whole"
    if parallel.vae == "split" and pipeline.vae_tiling:
        return "parallel.vae=split: pipeline.vae_tiling=true decodes in tiles; parallel.vae=tiled shares tiles"
    if parallel.vae == "tiled":
        return _tiles(dims, pipeline, geometry)
    rows = pipeline.height // geometry.vae.scale_factor
    if parallel.vae == "split" and rows < dims.ranks:
        return f"parallel.vae=split: {rows} rows of latents are fewer than {dims.ranks} devices; use parallel.vae=whole"
    return None


def _tiles(dims: ParallelDims, pipeline: PipelineConfig, geometry: Geometry) -> str | None:
    """cache-dit gives tiles out in turn, and stops at a device without any."""
    tiles = geometry.vae.tiles(pipeline.height, pipeline.width)
    if tiles >= dims.ranks:
        return None
    size = f"parallel.vae=tiled: {pipeline.height}×{pipeline.width} pixels"
    way = "use parallel.vae=whole" if pipeline.vae_tiling else "use parallel.vae=split"
    if tiles == 1:
        return f"{size} are one tile, which each device would decode whole; {way}"
    return f"{size} are {tiles} tiles, fewer than {dims.ranks} devices; {way}"


def _text_encoder(parallel: ParallelConfig, dims: ParallelDims, geometry: Geometry) -> str | None:
    """All devices that make an image split it, whatever their degrees, for all of them read the same prompts."""
    if parallel.text_encoder == "whole":
        return None
    if dims.ranks == 1:
        return "parallel.text_encoder=tp: one device makes an image by itself; use parallel.text_encoder=whole"
    encoder = geometry.text_encoder
    sizes = {
        "heads": encoder.n_heads,
        "key and value heads": encoder.n_kv_heads,
        "columns of the feed-forward": encoder.intermediate_size,
    }
    for of, number in sizes.items():
        if number % dims.ranks:
            return (
                f"parallel.text_encoder=tp: its {number:,} {of} are not divisible by the {dims.ranks} devices of an "
                "image; use parallel.text_encoder=whole"
            )
    return None
