"""A report as one self-contained HTML page: pictures inside it, no script, nothing fetched from anywhere."""

import base64
from collections.abc import Sequence

from zbench.report.page.content import Page
from zbench.report.page.images import Picture, Strip
from zbench.report.page.pixels import DIFFERENCE, data_uri, difference_uri
from zbench.report.tables.text_table import RIGHT
from zbench.sanitize import printable_lines


def render_html(page: Page) -> str:
    """Everything that came from a record is escaped, and every character of it can be seen."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("zbench.report.page", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: printable_lines(value) if type(value) is str else value,  # not what a macro made
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    template = environment.get_template("template.html.j2")
    figures = [(plot, f"data:image/png;base64,{base64.b64encode(plot.png).decode()}") for plot in page.plots]
    return template.render(
        page=page, figures=figures, strips=_embedded(page.strips), right=RIGHT, difference=DIFFERENCE
    )


def _embedded(strips: Sequence[Strip]) -> list[tuple[str, list[tuple[Picture, str, str | None]]]]:
    """Title of each strip to its pictures that can be read: image and difference as `data:` URIs."""
    shown = []
    for strip in strips:
        uris = [(picture, data_uri(picture), difference_uri(picture)) for picture in strip.pictures]
        shown.append((strip.title, [(picture, uri, below) for picture, uri, below in uris if uri is not None]))
    return shown
