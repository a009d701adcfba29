"""The tiny pipeline's byte-level BPE tokenizer with Qwen's chat template, learnt from scene captions and a text.

Being byte-level it encodes any text, English and Chinese alike, without an unknown token. It speaks Qwen3's template,
so a prompt passes through `ZImagePipeline` exactly as it would with the official tokenizer; only the number of tokens
differs (about half as many again for English).
"""

from __future__ import annotations

from random import Random
from typing import Any

from zbench.zimage.scenes.captions import LANGUAGES, caption
from zbench.zimage.scenes.world import sample_scene

VOCAB_SIZE = 2048
"""Most entries the vocabulary may have; what it is learnt from yields fewer."""

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
"""Padding, start and end of a turn, as ids 0, 1 and 2."""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen3's template without tools, with thinking enabled, which is how the pipeline asks for it."""

ALONE = r"[A-Z0-9]|[\u4e00-\u9fff]"
"""What never merges with its neighbours: letters that spell a word to paint, digits, Chinese characters."""

CAPTIONS = 2000
"""Scene captions of each language that the vocabulary is learnt from, beside the text below."""

TEXT = """\
a photo of a red circle on a white background; a blue square, a green triangle, a yellow star, an orange ring,
a purple hexagon, a pink heart, a brown box, a gray cloud, a black line, a cyan wave, a golden crown, a silver moon.
a portrait of a young woman with long hair, an old man with a beard, a child with a balloon, a smiling girl, a boy.
a cat sitting on a chair, a dog running in the park, a horse in a field, a bird on a branch, a fish in clear water.
a house by the lake, a castle on a hill, a city street at night, a bridge over the river, a forest in autumn, a tree,
mountains under a cloudy sky, a sunset over the sea, a snowy village in winter, flowers in the spring garden, rain.
a bowl of fruit on a wooden table, a cup of coffee, a glass of wine, a slice of cake, bread and cheese, an apple.
a car on the road, an old train, a ship on the ocean, an airplane above the clouds, a bicycle by the wall, a robot.
close-up, wide shot, from above, in the style of an oil painting, watercolor, ink drawing, pixel art, anime, sketch,
highly detailed, realistic, soft light, dramatic lighting, bright colors, dark, shallow depth of field, 4k, film.
large, small, two, three, four, left, right, top, bottom, center, behind, in front of, next to, between, inside,
holding, wearing, standing, walking, looking at the camera, with text that says "hello" in neon letters, sign, poster.
一张照片，白色背景上的红色圆形；蓝色方形，绿色三角形，黄色星星，橙色圆环，紫色六边形，粉色爱心，黑色线条。
一位年轻女子的肖像，长发，微笑，穿着红色汉服；一位老人，一个孩子拿着气球，一个女孩，一个男孩。
一只猫坐在椅子上，一只狗在公园里奔跑，一匹马，一只鸟站在树枝上，水中的鱼，湖边的房子，山上的城堡。
夜晚的城市街道，河上的桥，秋天的森林，多云的天空，海上的日落，冬天的雪村，春天花园里的花，西安大雁塔。
木桌上的水果，一杯咖啡，一辆汽车，一艘船，一架飞机，油画风格，水彩，水墨画，动漫，细节丰富，写实，柔和的光线。
大的，小的，两个，三个，左边，右边，上面，下面，中间，前面，后面，霓虹灯，文字，海报，高清，特写。
"""


def build_tokenizer() -> Any:
    """A `transformers.PreTrainedTokenizerFast` trained on `TEXT` and captions; the same vocabulary every time."""
    import transformers
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(ALONE), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        min_frequency=1,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*TEXT.splitlines(), *_captions()], trainer)
    padding, _, end = SPECIAL_TOKENS
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=padding,
        eos_token=end,
        chat_template=CHAT_TEMPLATE,
        padding_side="right",
        model_max_length=VOCAB_SIZE,
    )


def _captions() -> list[str]:
    random = Random(0)
    scenes = [sample_scene(random, "train") for _ in range(CAPTIONS)]
    return [caption(scene, language, random) for language in LANGUAGES for scene in scenes]
