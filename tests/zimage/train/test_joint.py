"""Batches must see exactly what the pipeline's one-sample path would make of them."""

from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from zbench.zimage.layout import preset_folder
from zbench.zimage.loading import load_pipeline
from zbench.zimage.scenes.captions import caption
from zbench.zimage.scenes.world import sample_scene
from zbench.zimage.train.batches import CaptionBatches, ahead, make_scenes, stream
from zbench.zimage.train.flow import Joint, sample
from zbench.zimage.train.joint import encode_text, predict_velocity, sampling_sigmas, tokenize
from zbench.zimage.train.tokenizer import build_tokenizer


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return load_pipeline(preset_folder("zimage_tiny"), dtype=torch.float32, device="cpu")


@torch.no_grad()
def test_velocity_is_the_transformers_own(pipeline: Any) -> None:
    random = Random(3)
    texts = [caption(sample_scene(random, "train"), "en", random) for _ in range(3)]
    captions = tokenize(pipeline.tokenizer, texts)
    features = encode_text(pipeline.text_encoder, captions)
    latents, sigma = torch.randn(3, 16, 32, 32), torch.tensor([0.3, 0.9, 0.6])
    ours = predict_velocity(pipeline.transformer, latents, sigma, features, captions.mask)
    for i in range(3):
        own_length = captions.mask[i].sum()
        padded_alone = -(-int(own_length) // 32) * 32
        if padded_alone != captions.ids.shape[1]:
            continue
        (theirs,) = pipeline.transformer(
            [latents[i][:, None]], 1 - sigma[i : i + 1], [features[i, :own_length]], return_dict=False
        )
        assert float((ours[i] + theirs[0][:, 0]).norm() / ours[i].norm()) < 1e-5


@torch.no_grad()
def test_sampling_is_the_pipelines_own(pipeline: Any) -> None:
    text = "a large red circle in the center on a white background"
    joint = Joint(pipeline.text_encoder, pipeline.transformer)
    captions = tokenize(pipeline.tokenizer, [text])
    noise = torch.randn((1, 16, 32, 32), generator=torch.Generator().manual_seed(5))
    theirs = pipeline(
        prompt=text,
        height=256,
        width=256,
        num_inference_steps=8,
        guidance_scale=0.0,
        latents=noise,
        output_type="latent",
        max_sequence_length=128,
    ).images
    ours = sample(joint, captions, (16, 32, 32), steps=8, seed=5)
    # training samples in bf16, the pipeline here in float32
    assert float((ours - theirs).norm() / theirs.norm()) < 0.05


def test_sigmas_are_the_schedulers(pipeline: Any) -> None:
    pipeline.scheduler.set_timesteps(sigmas=torch.linspace(1.0, 1 / 8, 8).tolist())
    assert torch.allclose(sampling_sigmas(8), pipeline.scheduler.sigmas.float(), atol=1e-6)


def test_batches_depend_on_their_step_alone() -> None:
    scenes = make_scenes(20, "train", seed=0)
    batches = CaptionBatches(scenes, build_tokenizer(), size=12, seed=4, dropped=0.2)
    whole = list(stream(batches, range(4), workers=0))
    resumed = list(stream(batches, range(2, 4), workers=0))
    for one, other in zip(whole[2:], resumed, strict=True):
        assert torch.equal(one.captions.ids, other.captions.ids) and torch.equal(one.scenes, other.scenes)
    for batch in whole:
        lengths = batch.captions.mask.sum(1)
        assert len(batch.captions) == len(batch.scenes) == 12
        assert batch.captions.ids.shape[1] % 32 == 0
        assert (lengths > batch.captions.ids.shape[1] - 32).all()  # no caption is padded further than alone


def test_batches_come_in_order_from_any_step_on() -> None:
    batches = CaptionBatches(make_scenes(4, "train", seed=0), build_tokenizer(), size=2, seed=4, dropped=0.0)
    batch_at = ahead(batches, steps=5, workers=0)
    assert torch.equal(batch_at(2).captions.ids, batches[2].captions.ids)
    assert torch.equal(batch_at(3).captions.ids, batches[3].captions.ids)
    with pytest.raises(ValueError, match="4 is next"):
        batch_at(2)


def test_batches_are_as_long_as_captions_are() -> None:
    batches = CaptionBatches(make_scenes(200, "train", seed=0), build_tokenizer(), size=16, seed=4, dropped=0.2)
    lengths = [batches[step].captions.ids.shape[1] for step in range(60)]
    alone = tokenize(batches.tokenizer, [caption(s, "en", Random(i)) for i, s in enumerate(batches.scenes)])
    middle = (alone.mask.sum(1) > 32).float().mean() * 0.8  # the dropped ones are short
    assert set(lengths) >= {32, 64}
    assert sum(length > 32 for length in lengths) / 60 == pytest.approx(float(middle), abs=0.2)


def test_a_batch_holds_its_scenes_captions() -> None:
    scenes = make_scenes(50, "train", seed=0)
    batch = CaptionBatches(scenes, build_tokenizer(), size=20, seed=4, dropped=0.0)[0]
    decoded = build_tokenizer().batch_decode(batch.captions.ids, skip_special_tokens=True)
    for index, text in zip(batch.scenes.tolist(), decoded, strict=True):
        if scenes[index].word:
            assert scenes[index].word in text


def test_letters_digits_and_chinese_are_tokens_of_their_own() -> None:
    tokenizer = build_tokenizer()
    text = "白色背景上有一个红色圆形，写着“CAT29”"
    tokens = [tokenizer.decode([i]) for i in tokenizer(text).input_ids]
    assert tokens == list(text)
    assert tokenizer.decode(tokenizer("any täxt 龘 \n").input_ids) == "any täxt 龘 \n"
    assert len(tokenizer) <= 2048


def test_no_caption_is_cut(tmp_path: Path) -> None:
    random, tokenizer = Random(9), build_tokenizer()
    texts = [caption(sample_scene(random, "train"), language, random) for _ in range(200) for language in ("en", "zh")]
    assert tokenize(tokenizer, texts).ids.shape[1] <= 128  # pipeline.max_sequence_length of zimage_tiny
