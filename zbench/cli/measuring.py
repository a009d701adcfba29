"""The commands that measure, and the plan of what they would; heavy imports inside each."""

import threading
from typing import TYPE_CHECKING

from zbench.cli import tuning
from zbench.cli.command import Command
from zbench.errors import Exit, ZbenchError
from zbench.streams import talk

if TYPE_CHECKING:
    from zbench.analysis.view import View
    from zbench.sweeper.outcome import SweepResult
    from zbench.sweeper.plan import Plan


def run(command: Command, args: list[str]) -> int:
    """One trial and what it is compared with."""
    return _measure(command, args)


def sweep(command: Command, args: list[str]) -> int:
    """Every trial of a grid."""
    return _measure(command, args)


def plan(command: Command, args: list[str]) -> int:
    """What a sweep would do."""
    from zbench.report.tables.plan import render_plan
    from zbench.sweeper.conduct import check_before

    made, out = _planned(command, args)
    if made is not None:
        print(render_plan(made, out))
        try:
            check_before(made)
        except ZbenchError as error:
            raise ZbenchError(f"zbench sweep would refuse this: {error}") from error
    return Exit.DONE


def ab(command: Command, args: list[str]) -> int:
    """Two configurations or revisions, measured interleaved."""
    from zbench.ab.command import ab as measure_both
    from zbench.ab.show import FORMATS
    from zbench.cli.parsers import command_parser

    return measure_both(command_parser(command, FORMATS), args)


def _measure(command: Command, args: list[str]) -> int:
    made, out = _planned(command, args)
    return Exit.DONE if made is None else _execute(made, out)


def _planned(command: Command, args: list[str]) -> "tuple[Plan | None, str]":
    """The plan, or None if Hydra was only to show something; and the format of the table."""
    from zbench.cli.parsers import FORMATS, take_flags
    from zbench.hydra_app import planned
    from zbench.plugins import ALLOW_CODE, ALLOW_CODE_HELP

    out, allow_code, args = take_flags(command, args)
    about = (
        f"usage: {command.usage}\n\n{command.description}\n"
        f"An OVERRIDE is GROUP=CHOICE or key=value. --format {'|'.join(FORMATS)} says how the table is printed.\n"
        f"{ALLOW_CODE}: {ALLOW_CODE_HELP}.\n"
    )
    return planned(args, command.name, about, allow_code=allow_code), out


def print_further(view: "View", out: str) -> None:
    """What each knob did, and what trials did under load, below a table that people read."""
    from zbench.report.page.serving import in_terminal
    from zbench.report.tables.effects import effects_table
    from zbench.report.tables.text_table import to_markdown, to_text

    if out in ("table", "markdown") and (effects := effects_table(view)) is not None:
        print(f"\n{(to_text if out == 'table' else to_markdown)(effects).rstrip()}")
    if out in ("table", "markdown") and (told := in_terminal(view, out)):
        print(f"\n{told}")


def tell_end(made: "Plan", outcome: "SweepResult") -> None:
    """Where everything is, and what turns cost."""
    from zbench.report.text.turns import cost_of

    talk(f"records: {made.run_folder}  report: {made.report_folder / 'report.html'}")
    if (turns := cost_of(outcome.records)) is not None:
        talk(turns)


def _execute(made: "Plan", out: str) -> int:
    """Run a plan, write its report, print its table: in this order, for the table's reader may go away."""
    from rich.console import Console

    from zbench.analysis.view import view_of
    from zbench.report.page.write import preload, write_report
    from zbench.report.tables.main import render
    from zbench.sweeper.conduct import conduct

    if tuning.decides(made):
        return tuning.execute(made, out)
    threading.Thread(target=preload, name="zbench-preload", daemon=True).start()  # while the worker loads
    outcome = conduct(made, Console(stderr=True, emoji=False))
    if outcome.interrupted:
        secret = ", with the password in place of ***" if "***" in made.command else ""
        talk(f"stopped; finished trials are in {made.run_folder}. To go on{secret}: {made.command}")
        return Exit.INTERRUPTED
    view = view_of(outcome.records)
    write_report(view, {made.name: made.run_folder}, made.report_folder)
    print(render(view, out))
    print_further(view, out)
    tell_end(made, outcome)
    if outcome.failed:
        talk(f"{outcome.failed} of {len(outcome.records)} trials FAILED; sweep.retry_failed=true runs them again")
        return Exit.FAILED
    return Exit.DONE
