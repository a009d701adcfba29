"""The command line: one short function a command, heavy imports inside it. stdout is data, stderr is talk."""

import argparse
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from zbench import __version__
from zbench.errors import Exit, WeightsUnavailableError, ZbenchError

if TYPE_CHECKING:
    from zbench.record import Record
    from zbench.sweeper.plan import Plan

FORMATS = ("table", "json", "csv", "markdown")

HELP = """\
usage: zbench COMMAND [OPTION …] [OVERRIDE …]

Which configuration runs Z-Image fastest on this hardware without spoiling the images?

measure (Hydra applications: GROUP=CHOICE, key=value, --cfg job, --info, --config-dir, --help;
         --allow-code runs classes from outside zbench that configs name)
  run        one trial, and what it is compared with
  sweep      many: every choice brings its own grid, key=1,2 or key=range(1,4) replaces an axis
  plan       the trials of a sweep, those pruned and why, time and memory expected; runs nothing
  ab         two configurations or revisions, measured interleaved, for a verdict

read
  report     RUN …   Markdown, HTML, plots and CSV from records
  recommend  RUN     the fastest configuration within your limits, and its launch lines
  compare    BASE NEW  what changed between two runs
  baseline   save RUN --name N   keep a run for later gates
  gate       RUN --baseline N    exit 1 if something got slower, larger or worse than the margin allows
  export     RUN     records as CSV, Parquet, or for pytest-benchmark, Bencher, github-action-benchmark

look
  doctor             what hardware and software is here and what it can do; --noise: how steady it is;
                     --measure: the rates this device reaches, which reports then hold their figures against

RUN is a sweep's name under runs/, a run folder, or a records.jsonl.

  zbench sweep cache=dbcache
  zbench sweep hardware=b300 cache=dbcache
  zbench recommend sweep-1a2b3c4d --min-ssim 0.95

zbench COMMAND --help says more; zbench --version. Completion: eval "$(zbench --shell-completion install=bash)"
Exit codes: 0 done, 1 a regression, 2 bad input, 3 inconclusive, 4 failed trials or nothing feasible,
70 a fault of zbench, 130 interrupted.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return Exit.DONE if args else Exit.BAD_INPUT
    if args[0] == "--version":
        print(f"zbench {__version__}")
        return Exit.DONE
    try:
        if args[0] in ("--shell-completion", "-sc"):
            from zbench.hydra_app import complete

            return complete(args, list(COMMANDS))
        command = COMMANDS.get(args[0])
        if command is None:
            raise ZbenchError(f"no command {args[0]!r}; there are: {', '.join(COMMANDS)}")
        return command(args[1:])
    except ZbenchError as error:
        print(f"zbench: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("zbench: interrupted", file=sys.stderr)
        return Exit.INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.DONE
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else Exit.BAD_INPUT
    except Exception:
        import traceback

        traceback.print_exc()
        print(
            f"zbench: a fault of zbench {__version__} itself; please report the lines above with the command you gave",
            file=sys.stderr,
        )
        return Exit.FAULT


def run(args: list[str]) -> int:
    """One trial and what it is compared with."""
    return _measure(args, "run")


def sweep(args: list[str]) -> int:
    """Every trial of a grid."""
    return _measure(args, "sweep")


def plan(args: list[str]) -> int:
    """What a sweep would do."""
    from zbench.hydra_app import planned
    from zbench.report.tables.plan import render_plan
    from zbench.sweeper.conduct import check_weights

    out, allow_code, args = _take_flags(args, "plan")
    made = planned(args, "plan", allow_code=allow_code)
    if made is not None:
        print(render_plan(made, out))
        try:
            check_weights(placed.trial for placed in made.trials)
        except WeightsUnavailableError as error:
            _talk(f"note: zbench sweep would refuse this: {error}")
    return Exit.DONE


def report(args: list[str]) -> int:
    """Write the report of one or more runs."""
    from zbench.analysis.view import view_of
    from zbench.report.page.write import sweep_folders, write_report
    from zbench.report.tables.main import render
    from zbench.store import read_run

    parser = _run_reader("report", "Write the report of one or more runs, and print the main table.")
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--out", type=Path, help="folder for the report (default: reports/<first run>)")
    options = parser.parse_args(args)
    runs = [read_run(name, options.runs_dir) for name in options.runs]
    view = view_of(record for _, found in runs for record in found)
    out = options.out or Path("reports") / runs[0][0].resolve().parent.name
    written = write_report(view, sweep_folders(runs), out)
    print(render(view, options.format))
    _talk(f"wrote {len(written)} files to {out}; open {out / 'report.html'}")
    return Exit.DONE


def recommend(args: list[str]) -> int:
    """The fastest feasible configuration of each piece of work in a run."""
    from zbench.analysis.view import view_of
    from zbench.recommend import Limits
    from zbench.recommend import recommend as choose
    from zbench.store import read_run

    parser = _run_reader("recommend", "The fastest configuration within your limits.", formats=("text", "json"))
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--max-vram-gib", type=float, help="peak device memory at most")
    parser.add_argument("--min-ssim", type=float, help="of the worst image against the reference's, at least")
    parser.add_argument("--min-psnr-db", type=float, help="of the worst image against the reference's, at least")
    parser.add_argument(
        "--min-prompt-fidelity",
        type=float,
        metavar="SHARE",
        help="mean share (0 to 1) of the attributes asked for that the images show, at least",
    )
    parser.add_argument("--allow-proxy", action="store_true", help="judge projected and proxy records too")
    options = parser.parse_args(args)
    _, records = read_run(options.run, options.runs_dir)
    limits = Limits(options.max_vram_gib, options.min_ssim, options.min_psnr_db, options.min_prompt_fidelity)
    advice = choose(view_of(records), limits, allow_proxy=options.allow_proxy)
    print(advice.to_json() if options.format == "json" else advice.to_text())
    return Exit.DONE if advice.is_whole else Exit.FAILED


def export(args: list[str]) -> int:
    """Records in another tool's format."""
    from zbench.analysis.view import view_of
    from zbench.export import BINARY_FORMATS, find_format, format_names
    from zbench.plugins import ALLOW_CODE, ALLOW_CODE_HELP
    from zbench.store import read_run

    names = format_names()
    parser = _run_reader("export", "Records in another tool's format, on stdout or into a file.", formats=None)
    every = ", ".join(names).replace("%", "%%")
    named = f"{every}, or module:Class with {ALLOW_CODE} (default: {names[0]})"
    parser.add_argument("--format", default=names[0], metavar="NAME", help=named)
    parser.add_argument(ALLOW_CODE, action="store_true", help=ALLOW_CODE_HELP)
    parser.add_argument("run", metavar="RUN")
    parser.add_argument(
        "--out",
        "--output",
        dest="output",
        type=Path,
        metavar="FILE",
        help=f"file to write (default: stdout; {', '.join(BINARY_FORMATS)}: required)",
    )
    options = parser.parse_args(args)
    render = find_format(options.format, allow_code=options.allow_code)
    binary = ZbenchError(f"--format {options.format} is binary: give it a file with --out FILE")
    if options.format in BINARY_FORMATS and options.output is None:
        raise binary
    data = render(view_of(read_run(options.run, options.runs_dir)[1]))
    if options.output is None:
        if isinstance(data, bytes):
            raise binary
        print(data, end="")
        return Exit.DONE
    try:
        options.output.write_bytes(data if isinstance(data, bytes) else data.encode())
    except OSError as error:
        raise ZbenchError(f"cannot write --out {options.output}: {error.strerror}") from error
    _talk(f"wrote {options.output}")
    return Exit.DONE


def doctor(args: list[str]) -> int:
    """What is here."""
    from zbench.composition import profile_patterns
    from zbench.hardware.doctor import findings, gather
    from zbench.plugins import ALLOW_CODE, ALLOW_CODE_HELP
    from zbench.report.tables.doctor import render_findings

    parser = _parser("doctor", "What hardware and software is here and what it can do.", formats=("table", "json"))
    measured = parser.add_mutually_exclusive_group()
    measured.add_argument("--noise", action="store_true", help="measure how many rounds a verdict needs here")
    measured.add_argument("--measure", action="store_true", help="measure and keep the rates this device reaches")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="with --noise: of the trial to be measured")
    parser.add_argument("--config-dir", help="with --noise: folder with groups of your own")
    parser.add_argument(ALLOW_CODE, action="store_true", help=f"with --noise: {ALLOW_CODE_HELP}")
    options = parser.parse_intermixed_args(args)
    if options.noise:
        from zbench.ab.noise import doctor_noise

        print(doctor_noise(options.overrides, options.config_dir, options.format, allow_code=options.allow_code))
        return Exit.DONE
    given = [*options.overrides, *filter(None, [options.config_dir]), *([ALLOW_CODE] if options.allow_code else [])]
    if given:
        raise ZbenchError(f"doctor takes nothing to be measured without --noise: {' '.join(given)}")
    if options.measure:
        return _measure_ceilings(options.format)
    print(render_findings(findings(gather(profile_patterns())), options.format))
    return Exit.DONE


def ab(args: list[str]) -> int:
    """Two configurations or revisions, measured interleaved."""
    from zbench.ab.command import ab as measure_both

    return measure_both(args)


def compare(args: list[str]) -> int:
    """Two runs, trial by trial."""
    from zbench.store import read_run

    parser = _judging("compare", "What changed between two runs of the same machine, trial by trial.")
    parser.add_argument("base", metavar="BASE", help="a run, as the base")
    parser.add_argument("new", metavar="NEW", help="the run that is judged")
    options = parser.parse_args(args)
    _, base = read_run(options.base, options.runs_dir)
    _, new = read_run(options.new, options.runs_dir)
    return _judge(new, base, options)


def gate(args: list[str]) -> int:
    """A run against a kept baseline."""
    from zbench.gate.baselines import machine_of, read_baseline
    from zbench.store import read_run

    parser = _judging("gate", "Whether a run is no slower than a kept baseline of this machine.")
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--baseline", required=True, metavar="FILE|NAME", help="what zbench baseline save kept")
    options = parser.parse_args(args)
    _, new = read_run(options.run, options.runs_dir)
    baseline = read_baseline(options.baseline, options.runs_dir, machine_of(new[-1].environment))
    return _judge(new, baseline.records, options)


def baseline(args: list[str]) -> int:
    """Keep a run for later gates."""
    from zbench.gate.baselines import save_baseline
    from zbench.store import latest_records, read_run

    parser = argparse.ArgumentParser(prog="zbench baseline", description="Keep a run for later gates.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    save = commands.add_parser("save", help="keep the COMPLETE trials of a run under a name")
    save.add_argument("run", metavar="RUN")
    save.add_argument("--name", required=True, help="of the baseline; each machine keeps its own")
    save.add_argument("--runs-dir", type=Path, default=Path("runs"), help="where runs are kept (default: runs)")
    options = parser.parse_args(args)
    _, records = read_run(options.run, options.runs_dir)
    print(save_baseline(latest_records(records), options.name, options.runs_dir))
    return Exit.DONE


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "run": run,
    "sweep": sweep,
    "plan": plan,
    "ab": ab,
    "report": report,
    "compare": compare,
    "gate": gate,
    "baseline": baseline,
    "recommend": recommend,
    "export": export,
    "doctor": doctor,
}


def _measure_ceilings(form: str) -> int:
    """What this machine's device reaches, measured, kept and printed."""
    from zbench.hardware.ceiling_bench import measure_ceilings
    from zbench.hardware.ceilings import store_ceilings
    from zbench.hardware.detect import present_devices
    from zbench.report.tables.ceilings import render_ceilings

    ceilings = measure_ceilings(present_devices(), _talk)
    path = store_ceilings(ceilings)
    print(render_ceilings(ceilings, form))
    _talk(f"kept in {path}; what is measured from now on carries them")
    return Exit.DONE


def _measure(args: list[str], command: str) -> int:
    from zbench.hydra_app import planned

    out, allow_code, args = _take_flags(args, command)
    made = planned(args, command, allow_code=allow_code)
    return Exit.DONE if made is None else _execute(made, out)


def _execute(made: "Plan", out: str) -> int:
    """Run a plan, print its table, write its report."""
    from rich.console import Console

    from zbench.analysis.view import view_of
    from zbench.report.page.write import preload, write_report
    from zbench.report.tables.main import render
    from zbench.sweeper.conduct import conduct

    threading.Thread(target=preload, name="zbench-preload", daemon=True).start()  # while the worker loads
    outcome = conduct(made, Console(stderr=True, emoji=False))
    if outcome.interrupted:
        _talk(f"stopped; finished trials are in {made.run_folder}. To go on: {made.command}")
        return Exit.INTERRUPTED
    view = view_of(outcome.records)
    print(render(view, out))
    write_report(view, {made.name: made.run_folder}, made.report_folder)
    _talk(f"records: {made.run_folder}  report: {made.report_folder / 'report.html'}")
    if outcome.failed:
        _talk(f"{outcome.failed} of {len(outcome.records)} trials FAILED; sweep.retry_failed=true runs them again")
        return Exit.FAILED
    return Exit.DONE


def _take_flags(args: list[str], command: str) -> tuple[str, bool, list[str]]:
    """zbench's own flags, taken out before Hydra sees the rest; they may stand anywhere."""
    parser = argparse.ArgumentParser(prog=f"zbench {command}", add_help=False, allow_abbrev=False)
    parser.add_argument("--format", choices=FORMATS, default="table")
    parser.add_argument("--allow-code", action="store_true")
    options, rest = parser.parse_known_args(args)
    return options.format, options.allow_code, rest


def _parser(command: str, description: str, formats: tuple[str, ...] | None = FORMATS) -> argparse.ArgumentParser:
    """`formats` are the choices of `--format`, the default first; None: the command has a `--format` of its own."""
    parser = argparse.ArgumentParser(prog=f"zbench {command}", description=description, allow_abbrev=False)
    if formats is not None:
        parser.add_argument("--format", choices=formats, default=formats[0])
    return parser


def _run_reader(command: str, description: str, formats: tuple[str, ...] | None = FORMATS) -> argparse.ArgumentParser:
    parser = _parser(command, description, formats)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"), help="where runs are kept (default: runs)")
    return parser


def _judging(command: str, description: str) -> argparse.ArgumentParser:
    from zbench.gate.show import FORMS

    parser = _run_reader(command, description, formats=tuple(FORMS))
    parser.add_argument(
        "--metric",
        action="append",
        metavar="NAME:LIMIT",
        help="such as latency.median:3%%, memory.host_peak_rss:2%%, quality.ssim:-0.01; may be given several times "
        "(default: latency.median:3%%)",
    )
    parser.add_argument("--github", action="store_true", help="annotate, and append to $GITHUB_STEP_SUMMARY")
    return parser


def _judge(new: "Sequence[Record]", base: "Sequence[Record]", options: argparse.Namespace) -> int:
    """Judge, print, and give the verdict's exit code."""
    from zbench.gate.judge import assess
    from zbench.gate.limits import parse_limit
    from zbench.gate.show import publish, render
    from zbench.store import latest_records

    limits = [parse_limit(text) for text in options.metric or ["latency.median:3%"]]
    assessment = assess(latest_records(new), latest_records(base), limits)
    print(render(assessment, options.format))
    if options.github:
        publish(assessment)
    return assessment.exit_code


def _talk(text: str) -> None:
    print(text, file=sys.stderr)


def entry() -> NoReturn:
    """The console script."""
    sys.exit(main())
