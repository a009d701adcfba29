"""Images and their differences as bytes for a page; chooses none, and leaves out what cannot be read."""

import base64
import io
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from zbench.quality.artifacts import read_picture
from zbench.report.page.images import Picture, Strip
from zbench.sanitize import printable

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

PAGE_PIXELS = 384  # widest on the page
STRIP_PIXELS = 224  # widest in a strip
MOST_COLUMNS = 5
MOST_TALL = 4  # times its width
AMPLIFIED = 4
DIFFERENCE = f"difference ×{AMPLIFIED}"
GAP, LINE = 8, 15  # pixels between the pictures of a strip, and of a line of text
INK, SOFT = "#111111", "#555555"


def data_uri(picture: Picture) -> str | None:
    """The image as a `data:` URI, at most PAGE_PIXELS wide; None if it cannot be read."""
    image = _read(picture.path, picture)
    return None if image is None else _uri(_sized(image, PAGE_PIXELS))


def difference_uri(picture: Picture) -> str | None:
    """As `data_uri`, of the picture's difference from the reference's; None where there is none to show."""
    difference = _difference(picture)
    return None if difference is None else _uri(_sized(difference, PAGE_PIXELS))


def strip_jpeg(strip: Strip) -> bytes | None:
    """The strip as one picture: names and figures under each image, under these its difference; None if none opens."""
    from PIL import Image, ImageDraw

    opened = [(picture, _read(picture.path, picture)) for picture in strip.pictures]
    shown = [
        (picture, _sized(image, STRIP_PIXELS), _difference(picture)) for picture, image in opened if image is not None
    ]
    if not shown:
        return None
    columns = min(len(shown), MOST_COLUMNS)
    width = max(image.width for _, image, _ in shown) + GAP
    tallest = max(image.height for _, image, _ in shown)
    lines = 2 + any(picture.prompt for picture, _, _ in shown)
    below = 6 + LINE * lines
    height = tallest + below + GAP
    if any(difference is not None for _, _, difference in shown):
        height += tallest + 6 + LINE
    sheet = Image.new("RGB", (columns * width + GAP, -(-len(shown) // columns) * height + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (picture, image, difference) in enumerate(shown):
        x, y = GAP + place % columns * width, GAP + place // columns * height
        sheet.paste(image, (x, y))
        for line, text in enumerate(map(printable, (picture.label, picture.caption, picture.prompt))):
            at = (x, y + image.height + 3 + LINE * line)
            _write(draw, at, text, SOFT if line else INK, width - GAP)
        if difference is not None:
            small = _sized(difference, STRIP_PIXELS)
            sheet.paste(small, (x, y + tallest + below))
            _write(draw, (x, y + tallest + below + small.height + 3), DIFFERENCE, SOFT, width - GAP)
    buffer = io.BytesIO()
    sheet.save(buffer, format="JPEG", quality=92, subsampling=0)
    return buffer.getvalue()


def _difference(picture: Picture) -> "Image | None":
    """Absolute difference of each channel from the reference's image, AMPLIFIED times, on black."""
    from PIL import ImageChops

    image = _read(picture.path, picture)
    reference = None if picture.reference is None else _read(picture.reference, picture)
    if image is None or reference is None or image.size != reference.size:
        return None
    return ImageChops.difference(image, reference).point([min(255, AMPLIFIED * value) for value in range(256)] * 3)


def _write(draw: "ImageDraw", at: tuple[int, int], text: str, colour: str, width: int) -> None:
    """One line, as large as fits into `width` pixels."""
    size = 12.0
    while size > 7 and draw.textlength(text, font=_font(size)) > width:
        size -= 0.5
    draw.text(at, text, fill=colour, font=_font(size))


@cache
def _font(size: float) -> "FreeTypeFont":
    """Matplotlib's own font: Pillow's lacks the multiplication sign."""
    from matplotlib import get_data_path
    from PIL import ImageFont

    return ImageFont.truetype(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def _read(path: Path, picture: Picture) -> "Image | None":
    try:
        return read_picture(path, picture.most_pixels)
    except (OSError, ValueError):
        return None


def _sized(image: "Image", widest: int) -> "Image":
    """At most that wide, and MOST_TALL times as tall: no strip is endless."""
    from PIL import Image

    if image.width <= widest and image.height <= widest * MOST_TALL:
        return image
    scale = min(widest / image.width, widest * MOST_TALL / image.height)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS)


def _uri(image: "Image") -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=92, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
