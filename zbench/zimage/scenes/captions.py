"""Says what a scene holds, in varied English and Chinese; every caption names all attributes, so one scene fits it."""

from __future__ import annotations

from random import Random
from typing import Literal

from zbench.zimage.scenes.world import Scene, Thing

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")

SIZES_EN = {"small": ("small", "little"), "large": ("large", "big")}
PLACES_EN = {
    "top-left": ("in the top left corner", "at the upper left"),
    "top": ("at the top", "at the top center"),
    "top-right": ("in the top right corner", "at the upper right"),
    "left": ("on the left", "on the left side"),
    "center": ("in the center", "in the middle"),
    "right": ("on the right", "on the right side"),
    "bottom-left": ("in the bottom left corner", "at the lower left"),
    "bottom": ("at the bottom", "at the bottom center"),
    "bottom-right": ("in the bottom right corner", "at the lower right"),
}
SIZES_ZH = {"small": ("小的", "小小的"), "large": ("大的", "大大的")}
COLOURS_ZH = {
    "red": "红色",
    "orange": "橙色",
    "yellow": "黄色",
    "green": "绿色",
    "cyan": "青色",
    "blue": "蓝色",
    "purple": "紫色",
    "pink": "粉色",
}
SHAPES_ZH = {
    "circle": ("圆形", "圆"),
    "square": ("正方形", "方块"),
    "triangle": ("三角形",),
    "diamond": ("菱形",),
    "star": ("五角星", "星星"),
    "cross": ("十字", "十字形"),
}
PLACES_ZH = {
    "top-left": ("左上角", "左上方"),
    "top": ("顶部", "上方"),
    "top-right": ("右上角", "右上方"),
    "left": ("左边", "左侧"),
    "center": ("中间", "中央"),
    "right": ("右边", "右侧"),
    "bottom-left": ("左下角", "左下方"),
    "bottom": ("底部", "下方"),
    "bottom-right": ("右下角", "右下方"),
}
BACKGROUNDS_ZH = {"white": "白色", "gray": "灰色", "black": "黑色"}


def caption(scene: Scene, language: Language, random: Random) -> str:
    """One sentence that names everything in the scene, in an order and words that `random` picks."""
    things = random.sample(scene.things, len(scene.things))
    return (_english if language == "en" else _chinese)(scene, things, random)


def _english(scene: Scene, things: list[Thing], random: Random) -> str:
    named = []
    for thing in things:
        what = f"{random.choice(SIZES_EN[thing.size])} {thing.colour} {thing.shape}"
        where = random.choice(PLACES_EN[thing.place])
        named.append(f"{where} a {what}" if random.random() < 0.3 else f"a {what} {where}")
    text = " and ".join(filter(None, [", ".join(named[:-1]), named[-1]]))
    ground = random.choice((f"on a {scene.background} background", f"against {scene.background}"))
    word = ""
    if scene.word:
        kind = "number" if scene.word.isdigit() else "word"
        word = random.choice((f', with the {kind} "{scene.word}" below', f', and the text "{scene.word}" underneath'))
    if random.random() < 0.3:
        return f"{ground}, {text}{word}"
    return f"{random.choice(('', 'a picture of '))}{text} {ground}{word}"


def _chinese(scene: Scene, things: list[Thing], random: Random) -> str:
    named = []
    for thing in things:
        what = f"{random.choice(SIZES_ZH[thing.size])}{COLOURS_ZH[thing.colour]}{random.choice(SHAPES_ZH[thing.shape])}"
        where = random.choice(PLACES_ZH[thing.place])
        named.append(f"一个{what}在{where}" if random.random() < 0.3 else f"{where}有一个{what}")
    text = "，".join(named)
    ground = BACKGROUNDS_ZH[scene.background]
    word = ""
    if scene.word:
        kind = "数字" if scene.word.isdigit() else "文字"
        word = random.choice((f"，下面写着{kind}“{scene.word}”", f"，最下面是{kind}“{scene.word}”"))
    if random.random() < 0.4:
        return f"{text}，背景是{ground}{word}"
    return f"{ground}背景上，{text}{word}"
