"""argparse as zbench words it: a command's parser from its row of the table, and every complaint one line."""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from zbench.cli.command import Command
from zbench.errors import ZbenchError
from zbench.plugins import ALLOW_CODE

FORMATS = ("table", "json", "csv", "markdown")


class OneLineParser(argparse.ArgumentParser):
    """An ArgumentParser that raises ZbenchError where argparse prints its usage and exits."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found wrong, with the way out."""
        raise ZbenchError(f"{message.removeprefix('argument ')}; {self.prog} --help says more")

    def parse_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> Any:
        """As argparse does, but a flag that is not there is named before anything that is lacking."""
        args = list(args or ())
        self._refuse_unknown_flags(args)
        self._refuse_lost_values(args)
        return super().parse_args(args, namespace)

    def parse_intermixed_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> Any:
        """The same where flags may stand between words of one kind."""
        args = list(args or ())
        self._refuse_unknown_flags(args)
        self._refuse_lost_values(args)
        return super().parse_intermixed_args(args, namespace)

    def _refuse_unknown_flags(self, args: Sequence[str]) -> None:
        for arg in args:
            if arg == "--":
                return
            flag = arg.partition("=")[0]
            if self._takes_for_a_flag(arg) and flag not in self._option_string_actions:
                raise ZbenchError(f"{flag}: no such flag; {self.prog} --help lists them")

    def _refuse_lost_values(self, args: Sequence[str]) -> None:
        """Of a flag that takes one value: an empty one, as of an unset variable, and the first of two."""
        given: dict[str, str] = {}
        for place, arg in enumerate(args):
            if arg == "--":
                return
            flag, equals, value = arg.partition("=")
            action = self._option_string_actions.get(flag)
            if not isinstance(action, argparse._StoreAction) or not (equals or place + 1 < len(args)):
                continue
            value = value if equals else args[place + 1]
            if not value and (action.default is None or isinstance(action.default, Path)):
                raise ZbenchError(f"{flag}='': is empty; give it a value, or leave it out")
            if given.setdefault(action.dest, value) != value:
                raise ZbenchError(
                    f"{flag}={value}: {flag} is there twice, before with {given[action.dest]}; give it once"
                )

    @staticmethod
    def _takes_for_a_flag(arg: str) -> bool:
        """As argparse has it: a dash before anything but a number, and no space."""
        if not arg.startswith("-") or arg == "-" or " " in arg:
            return False
        try:
            float(arg)
        except ValueError:
            return True
        return False


def command_parser(command: Command, formats: Sequence[str] = FORMATS) -> OneLineParser:
    """A parser with the command's usage and description, and `--format` where it has formats."""
    parser = OneLineParser(
        prog=f"zbench {command.name}", usage=command.usage, description=command.description, allow_abbrev=False
    )
    if formats:
        parser.add_argument("--format", choices=formats, default=formats[0], help=f"default: {formats[0]}")
    return parser


def run_reader(command: Command, formats: Sequence[str] = FORMATS) -> OneLineParser:
    """The parser of a command that reads runs."""
    parser = command_parser(command, formats)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"), help="where runs are kept (default: runs)")
    return parser


def limit_flags(parser: argparse.ArgumentParser) -> None:
    """A flag for each of `analysis.constraints.Limits`."""
    of_worst = "of the worst image against the reference's"
    told = {
        "max-vram-gib": ("GIB", "peak device memory at most"),
        "min-ssim": ("SSIM", f"{of_worst}, at least"),
        "min-psnr-db": ("DB", f"{of_worst}, at least"),
        "max-lpips": ("LPIPS", f"{of_worst}, at most; needs measure.lpips_weights"),
        "min-prompt-fidelity": (
            "SHARE",
            "mean share (0 to 1) of the attributes asked for that the images show, at least",
        ),
        "min-clip-score": ("SCORE", "mean CLIP score (0 to 100), at least; needs measure.clip_weights"),
        "max-latency-s": ("S", "median seconds a request at most"),
    }
    for name, (metavar, what) in told.items():
        parser.add_argument(f"--{name}", type=float, metavar=metavar, help=what)


def judging(command: Command) -> OneLineParser:
    """The parser of a command that judges runs."""
    from zbench.gate.show import FORMS

    parser = run_reader(command, tuple(FORMS))
    parser.add_argument(
        "--metric",
        action="append",
        metavar="NAME:LIMIT",
        help="such as latency.median:3%%, memory.host_peak_rss:2%%, quality.ssim:-0.01; may be given several times "
        "(default: latency.median:3%%)",
    )
    parser.add_argument("--github", action="store_true", help="annotate, and append to $GITHUB_STEP_SUMMARY")
    return parser


def take_flags(command: Command, args: list[str]) -> tuple[str, bool, list[str]]:
    """zbench's own flags, taken out before Hydra sees the rest: `--format` and `--allow-code`, wherever they stand."""
    parser = OneLineParser(prog=f"zbench {command.name}", add_help=False, allow_abbrev=False)
    parser.add_argument("--format", choices=FORMATS, default=FORMATS[0])
    parser.add_argument(ALLOW_CODE, action="store_true")
    options, rest = parser.parse_known_args(args)
    return options.format, options.allow_code, rest
