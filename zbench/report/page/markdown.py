"""A report as GitHub's Markdown, its pictures as files beside it; writes nothing."""

from collections.abc import Mapping, Sequence

from zbench.report.page.content import Page
from zbench.report.page.parallel import ParallelSection
from zbench.report.page.serving import ServingSection
from zbench.report.tables.text_table import markdown_code, markdown_text, to_markdown
from zbench.sanitize import printable_lines


def render_markdown(page: Page, strip_files: Mapping[str, str]) -> str:
    """`strip_files`: title of a strip to the relative path of its picture, in the order to be shown."""
    parts = [f"# {markdown_text(page.title)}", markdown_text(" ".join(page.findings))]
    parts += [
        "## Test environment",
        _bullets([f"**{name}**: {markdown_text(text)}" for name, text in page.environment]),
    ]
    parts += ["## Results", to_markdown(page.table).strip()]
    if page.published is not None:
        parts += ["### Published figures", to_markdown(page.published).strip()]
    if page.assumptions:
        parts += ["### What the projection assumes", _bullets(map(markdown_text, page.assumptions))]
    if page.serving is not None:
        parts += _serving(page.serving)
    if page.parallel is not None:
        parts += _parallel(page.parallel)
    for title, table in page.tables:
        parts += [f"## {title}", to_markdown(table).strip()]
    for plot in page.plots:
        parts += [f"## {plot.title}", f"![{plot.alt}]({plot.file_name})"]
    parts += [markdown_text(text) for text in page.missing_plots]
    if page.knobs:
        parts += ["## Knobs without effect", _bullets(map(markdown_text, page.knobs))]
    if strip_files:
        parts.append("## Images")
        for title, path in strip_files.items():
            parts += [markdown_text(title), f"![{markdown_text(title)}]({path})"]
    if page.not_as_asked:
        lines = [f"{markdown_text(label)}: {markdown_text('; '.join(said))}" for label, said in page.not_as_asked]
        parts += ["## Took effect otherwise than asked", _bullets(lines)]
    for state, title in (("FAILED", "Failed"), ("PRUNED", "Pruned before launch")):
        rows = [u for u in page.unmeasured if u.state == state]
        if rows:
            lines = [f"{markdown_text(u.label)}: {markdown_code(u.code)}, {markdown_text(u.message)}" for u in rows]
            parts += [f"## {title}", _bullets(lines)]
    parts += ["## How to read this", _bullets(map(markdown_text, page.how_to_read))]
    return "\n\n".join(parts) + "\n"


def _parallel(section: ParallelSection) -> list[str]:
    parts = ["## Parallel", *map(markdown_text, section.sentences), to_markdown(section.topologies).strip()]
    for title, table in section.tables:
        parts += [f"### {title}", to_markdown(table).strip()]
    if section.pruned:
        parts += ["### Topologies that do not run", _bullets(map(markdown_text, section.pruned))]
    return parts


def _serving(section: ServingSection) -> list[str]:
    parts = ["## Load"]
    for title, table in section.tables:
        parts += [f"### {markdown_text(title)}", to_markdown(table).strip()]
    if section.blocks:
        parts.append("### As SGLang's bench_serving prints it")
    for label, block in section.blocks:
        parts += [markdown_text(label), f"```text\n{printable_lines(block).replace('`', chr(39))}\n```"]
    return parts


def _bullets(lines: "Sequence[str] | map[str]") -> str:
    return "\n".join(f"- {line}" for line in lines)
