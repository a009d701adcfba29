"""`zbench ab`: from a command line to an exit code."""

import argparse
import hashlib
import os
import re
import shlex
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType

from rich.console import Console

from zbench.ab.interleave import SideName
from zbench.ab.run import ABResult, Bounds, compare
from zbench.ab.show import ABProgress, assessed, exit_code, failed, render, render_failed, undecided
from zbench.ab.side import ImagesInvalid, RoundCompiled, Side, SideFailed, present_trial, turn_of
from zbench.ab.worktree import worktree
from zbench.composition import NO_AXES, overlay
from zbench.engines import Descriptions
from zbench.errors import ConfigError, Exit
from zbench.gate import show as gate
from zbench.gate.judge import Assessment
from zbench.plugins import ALLOW_CODE, ALLOW_CODE_HELP
from zbench.streams import talk, talk_from_handler
from zbench.sweeper.conduct import check_weights
from zbench.sweeper.here import one_job
from zbench.sweeper.signals import on_interrupt

EPILOG = """\
Other overrides hold for both sides. Both are measured by turns on this machine, in resident workers, until the
verdict is clear. Exit codes: 0 no regression, 1 b is SLOWER, crashes or makes images that are no longer valid,
2 bad input, 3 INCONCLUSIVE, a whose images are not valid included.

  zbench ab --a pipeline.steps=8 --b pipeline.steps=9
  zbench ab --a cache=none --b 'cache=dbcache cache.max_warmup_steps=2' workload=single
  zbench ab --a-rev main --b-rev HEAD --margin 3%
"""


def ab(parser: argparse.ArgumentParser, args: list[str]) -> int:
    """Measure, print the verdict, return the exit code. `parser` knows the command's usage and `--format`."""
    options = _parse(parser, args)
    common: list[str] = options.overrides
    bounds = Bounds(_margin(options.margin), _budget_s(options.budget))
    with ExitStack() as stack:
        sides = [_side(name, options, common, stack) for name in ("a", "b")]
        if sides[0].trial.workload != sides[1].trial.workload:
            raise ConfigError("workload", sides[1].trial.workload.name, "must be the same on both sides")
        check_weights(side.trial for side in sides)
        config = one_job(common, options.config_dir, allow_code=options.allow_code)
        if config.measure.quality_only:
            raise ConfigError("measure.quality_only", "true", "an A/B compares times; leave it out")
        name = config.sweep.name or f"ab-{_digest(sides, options)}"
        folder = Path(os.path.expanduser(config.sweep.runs_dir)) / name
        progress = ABProgress(Console(stderr=True, emoji=False))
        try:
            share = config.executor.share_device
            turn = turn_of(sides, str(folder.resolve()), share=share)
            with _stop_on_interrupt() as asked_to_stop, turn.taken(partial(_tell_of_turn, progress, folder)):
                if share:
                    progress.note("others may measure on the device meanwhile (executor.share_device=true)")
                outcome = compare(sides, bounds, folder, config.measure, progress, asked_to_stop, turn)
        except SideFailed as failure:
            if failure.side == "b" and failure.broken:  # a new side that crashes is no pass
                return _report_failed(failure, sides[0], sides[1], options)
            if not isinstance(failure, ImagesInvalid | RoundCompiled):
                raise
            outcome = undecided(failure)
        finally:
            progress.close()
    return _report(outcome, sides, folder, bounds.margin, options)


def _tell_of_turn(progress: ABProgress, folder: Path, text: str) -> None:
    """For whom it waits, also in a log."""
    progress.note(text)
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "turns.log").open("a", encoding="utf-8", errors="replace") as log:
            log.write(f"{text}\n")


def _report(outcome: ABResult, sides: list[Side], folder: Path, margin: float, options: argparse.Namespace) -> int:
    a, b = sides
    if options.format != "junit":
        print(render(outcome, a, b, options.format))
    _tell_ci(assessed(outcome, a, b, margin), options)
    talk(f"rounds: {folder / 'blocks.jsonl'}")
    if outcome.ended == "interrupted":
        talk("interrupted; the same command begins anew")
        return Exit.INTERRUPTED
    return exit_code(outcome)


def _report_failed(failure: SideFailed, a: Side, b: Side, options: argparse.Namespace) -> int:
    """Of a new side that cannot make images; as text it is a line on stderr."""
    talk(f"zbench: FAILED {failure}")
    if options.format in ("json", "markdown"):
        print(render_failed(failure, a, b, options.format))
    _tell_ci(failed(failure, b), options)
    return Exit.REGRESSION


def _tell_ci(assessment: Assessment, options: argparse.Namespace) -> None:
    """What a CI reads: JUnit's XML on stdout, GitHub's annotations on stderr and its step summary."""
    if options.format == "junit":
        print(gate.render(assessment, "junit"))
    if options.github:
        gate.publish(assessment)


def _parse(parser: argparse.ArgumentParser, args: list[str]) -> argparse.Namespace:
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    for name, role in (("a", "the base"), ("b", "the new one")):
        parser.add_argument(f"--{name}", default="", metavar="OVERRIDES", help=f"of {role}: one quoted string")
        parser.add_argument(f"--{name}-rev", metavar="REV", help=f"git revision of zbench that {role} runs")
        parser.add_argument(
            f"--{name}-python", metavar="PYTHON", help=f"interpreter whose installed zbench {role} runs"
        )
    parser.add_argument("--margin", default="1%", help="by how much b may be slower (default: 1%%)")
    parser.add_argument(
        "--budget",
        default="15min",
        help="no block begins that would end later, such as 90s, 10min or 1h (default: 15min)",
    )
    parser.add_argument("--config-dir", help="folder with groups of your own")
    parser.add_argument(ALLOW_CODE, action="store_true", help=ALLOW_CODE_HELP)
    parser.add_argument("--github", action="store_true", help="annotate, and append to $GITHUB_STEP_SUMMARY")
    parser.add_argument("overrides", nargs="*", help=argparse.SUPPRESS)
    return parser.parse_intermixed_args(_joined(args))


def _joined(args: list[str]) -> list[str]:
    """A margin or budget that begins with a dash is a value, and not the next flag."""
    joined: list[str] = []
    for arg in args:
        if joined and joined[-1] in ("--margin", "--budget"):
            joined[-1] += f"={arg}"
        else:
            joined.append(arg)
    return joined


def _margin(text: str) -> float:
    margin = float(text[:-1]) / 100 if re.fullmatch(r"[0-9]*\.?[0-9]+%", text) else 0.0
    if not 0 < margin < 1:
        raise ConfigError("--margin", text or "''", "must be a per cent above 0 and below 100, such as 3%")
    return margin


def _budget_s(text: str) -> float:
    found = re.fullmatch(r"([0-9]*\.?[0-9]+)(s|min|h)", text)
    seconds = float(found[1]) * {"s": 1, "min": 60, "h": 3600}[found[2]] if found else 0.0
    if seconds <= 0:
        raise ConfigError("--budget", text or "''", "must be a time above 0, such as 90s, 10min or 1h")
    return seconds


def _side(name: SideName, options: argparse.Namespace, common: list[str], stack: ExitStack) -> Side:
    own = getattr(options, name)
    try:
        overrides = shlex.split(own)
    except ValueError as error:
        raise ConfigError(f"--{name}", own, f"is not one shell-quoted string ({error})") from error
    for override in overrides:
        if override.lstrip("+~").split("=")[0].split(".")[0] in NO_AXES:
            raise ConfigError(f"--{name}", override, "says how both are measured; give it once, outside --a and --b")
    given = overlay(common, overrides)  # a side's own say takes the place of what holds for both
    revision, python = getattr(options, f"{name}_rev"), getattr(options, f"{name}_python")
    engines = Descriptions(outside=not (revision or python), allow_code=options.allow_code)  # theirs may be others
    config = one_job(given, options.config_dir, allow_code=options.allow_code)
    trial = present_trial(f"--{name}", config, given, engines)
    if revision and python:
        raise ConfigError(f"--{name}-rev", revision, f"give it or --{name}-python, not both")
    if python:
        if not os.access(python, os.X_OK) or Path(python).is_dir():
            raise ConfigError(f"--{name}-python", python, "is no program that can be run")
        return Side(name, trial, python=python, home=None, allow_code=options.allow_code)
    if revision:
        checkout = stack.enter_context(worktree(f"--{name}-rev", revision))
        at = f"{revision} ({checkout.commit[:10]})"
        return Side(name, trial, home=checkout.folder, revision=at, allow_code=options.allow_code)
    return Side(name, trial, allow_code=options.allow_code)


def _digest(sides: list[Side], options: argparse.Namespace) -> str:
    what = [[s.trial.trial_id, s.revision or "", s.python] for s in sides] + [[options.margin]]
    return hashlib.sha256(repr(what).encode()).hexdigest()[:8]


class _Interrupt:
    """While blocks are measured the first signal asks for a stop after the current one; else it stops at once."""

    def __init__(self) -> None:
        self._asked = False
        self._measuring = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._asked or not self._measuring or number == signal.SIGQUIT:
            raise KeyboardInterrupt
        self._asked = True
        talk_from_handler("stopping after the current block; Ctrl-C again stops at once")

    def asked(self) -> bool:
        """Whether to stop; who asks is measuring."""
        self._measuring = True
        return self._asked


@contextmanager
def _stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    interrupt = _Interrupt()
    with on_interrupt(interrupt):
        yield interrupt.asked
