"""The commands that read what was measured; heavy imports inside each."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from zbench.cli.command import Command
from zbench.cli.measuring import print_further
from zbench.errors import Exit, ZbenchError
from zbench.streams import talk

if TYPE_CHECKING:
    import argparse

    from zbench.emit import Emission
    from zbench.record import Record


def report(command: Command, args: list[str]) -> int:
    """Write the report of one or more runs."""
    from zbench.analysis.view import view_of
    from zbench.cli.parsers import run_reader
    from zbench.report.page.write import write_report
    from zbench.report.tables.main import render
    from zbench.stored import open_runs

    parser = run_reader(command)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--out", type=Path, help="folder for the report (default: reports/<first run>)")
    options = parser.parse_intermixed_args(args)
    records = open_runs(options.runs, options.runs_dir)
    view = view_of(records)
    out = options.out or Path("reports") / next(iter(records.folders.values())).resolve().name
    written = write_report(view, records.folders, out)
    print(render(view, options.format))
    print_further(view, options.format)
    talk(f"wrote {len(written)} files to {out}; open {out / 'report.html'}")
    return Exit.DONE


def recommend(command: Command, args: list[str]) -> int:
    """The fastest feasible configuration of each piece of work in a run."""
    from dataclasses import fields

    from zbench.analysis.view import view_of
    from zbench.cli.parsers import limit_flags, run_reader
    from zbench.recommend import OBJECTIVES, Goal, Limits
    from zbench.recommend import recommend as choose
    from zbench.stored import open_runs

    parser = run_reader(command, ("text", "json"))
    parser.add_argument("run", metavar="RUN")
    limit_flags(parser)
    parser.add_argument(
        "--objective",
        choices=OBJECTIVES,
        help="choose for each number of devices: the quickest image, the most images/s (one image a device too), or "
        "the fewest joules an image",
    )
    parser.add_argument("--devices", type=int, metavar="N", help="for this number of devices alone")
    parser.add_argument("--allow-proxy", action="store_true", help="judge projected and proxy records too")
    parser.add_argument("--emit", type=Path, metavar="FOLDER", help="write it there for every tool, with its notes")
    _sglang_version(parser)
    options = parser.parse_args(args)
    records = open_runs([options.run], options.runs_dir)
    limits = Limits(**{limit.name: getattr(options, limit.name) for limit in fields(Limits)})
    asked = options.objective is not None or options.devices is not None
    goal = Goal(options.objective or OBJECTIVES[0], options.devices) if asked else None
    if options.sglang_version is not None and options.emit is None:
        raise ZbenchError("--sglang-version: says what is written for SGLang; add --emit FOLDER, or leave it out")
    advice = choose(view_of(records), limits, allow_proxy=options.allow_proxy, goal=goal)
    if options.emit is not None:
        for path in advice.write(options.emit, options.sglang_version):
            talk(f"wrote {path}")
    print(advice.to_json() if options.format == "json" else advice.to_text())
    return Exit.DONE if advice.is_whole else Exit.FAILED


def emit(command: Command, args: list[str]) -> int:
    """A configuration in other tools' words."""
    import json

    from zbench.cli.parsers import command_parser
    from zbench.emit import TOOLS, write
    from zbench.emit import emit as words_of
    from zbench.plugins import ALLOW_CODE, ALLOW_CODE_HELP
    from zbench.sanitize import json_text
    from zbench.sweeper.here import one_trial

    parser = command_parser(command, ("text", "json"))
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="GROUP=CHOICE or key=value, as of zbench run")
    whose = "whose words; all of them need --out; slurm: a job file that runs zbench sweep, and takes its overrides"
    parser.add_argument("--to", choices=(*TOOLS, "all", "slurm"), required=True, help=whose)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write its files there (default: print them)")
    parser.add_argument("--config-dir", help="folder with groups of your own")
    parser.add_argument(ALLOW_CODE, action="store_true", help=ALLOW_CODE_HELP)
    _sglang_version(parser)
    options = parser.parse_intermixed_args(args)
    tools = TOOLS if options.to == "all" else (options.to,)
    if options.sglang_version is not None and "sglang" not in tools:
        raise ZbenchError(f"--sglang-version: has no place with --to {options.to}; leave it out, or take --to sglang")
    if len(tools) > 1 and options.out is None:
        raise ZbenchError("--to all: writes files; add --out FOLDER, or name one tool")
    if options.to == "slurm":
        made, what = [_job_file(options)], "a sweep"
    else:
        trial = one_trial(options.overrides, options.config_dir, allow_code=options.allow_code)
        made, what = [words_of(trial, tool, sglang_version=options.sglang_version) for tool in tools], trial.label
    if options.out is not None:
        for path in write(made, options.out, [f"{what}: nothing here was measured."]):
            print(path)
    elif options.format == "json":
        print(json_text(json.dumps(made[0].to_dict(), ensure_ascii=False, indent=2)))
    else:
        print(made[0].to_text())
    return Exit.DONE


def _job_file(options: "argparse.Namespace") -> "Emission":
    """For Slurm, of a sweep; that is composed, but not planned, as its hardware is elsewhere."""
    from zbench.config import SlurmExecutorConfig
    from zbench.emit import emit_slurm, names_executor
    from zbench.methods.parallel import ParallelDims
    from zbench.sweeper.here import swept_jobs

    words = options.overrides
    chosen = next((word for word in words if names_executor(word)), None)
    asked = words if chosen is not None else [*words, "executor=slurm"]
    jobs = swept_jobs(asked, options.config_dir, allow_code=options.allow_code)
    config = jobs[0].executor
    if not isinstance(config, SlurmExecutorConfig):
        raise ZbenchError(f"--to slurm: {chosen} asks for no job of Slurm; take executor=slurm, or leave it out")
    devices = max(ParallelDims.of(job.parallel).devices if job.hardware.nvml_name else 0 for job in jobs)
    return emit_slurm(words, config, devices, config_dir=options.config_dir, allow_code=options.allow_code)


def _sglang_version(parser: "argparse.ArgumentParser") -> None:
    told = "leave out, and name, the flags that this version lacks: 0.5.12, …, or installed, which asks it"
    parser.add_argument("--sglang-version", metavar="VERSION", help=f"{told} (default: the newest that is known)")


def compare(command: Command, args: list[str]) -> int:
    """Two runs, trial by trial."""
    from zbench.cli.parsers import judging
    from zbench.stored import open_runs

    parser = judging(command)
    parser.add_argument("base", metavar="BASE", help="a run, as the base")
    parser.add_argument("new", metavar="NEW", help="the run that is judged")
    options = parser.parse_args(args)
    base = open_runs([options.base], options.runs_dir)
    new = open_runs([options.new], options.runs_dir)
    return _judge(new.values(), base.values(), options)


def baseline(command: Command, args: list[str]) -> int:
    """Keep a run for later gates."""
    from zbench.cli.parsers import run_reader
    from zbench.gate.baselines import left_out, save_baseline
    from zbench.stored import open_runs

    parser = run_reader(command, formats=())
    parser.add_argument("action", choices=("save",), metavar="save", help="keep the valid trials of a run under a name")
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--name", required=True, help="of the baseline; each machine keeps its own")
    options = parser.parse_args(args)
    records = list(open_runs([options.run], options.runs_dir).values())
    path = save_baseline(records, options.name, options.runs_dir)
    for label, why in left_out(records).items():
        talk(f"note: {label} is left out: {why}")
    print(path)
    return Exit.DONE


def gate(command: Command, args: list[str]) -> int:
    """A run against a kept baseline."""
    from zbench.cli.parsers import judging
    from zbench.gate.baselines import machine_of, read_baseline
    from zbench.stored import open_runs

    parser = judging(command)
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--baseline", required=True, metavar="FILE|NAME", help="what zbench baseline save kept")
    options = parser.parse_args(args)
    new = open_runs([options.run], options.runs_dir)
    baseline = read_baseline(options.baseline, options.runs_dir, machine_of(new.newest.environment))
    return _judge(new.values(), baseline.records, options)


def export(command: Command, args: list[str]) -> int:
    """Records in another tool's format."""
    from zbench.analysis.view import view_of
    from zbench.cli.parsers import run_reader
    from zbench.export import BINARY_FORMATS, find_format, format_names
    from zbench.plugins import ALLOW_CODE, ALLOW_CODE_HELP
    from zbench.stored import open_runs, uncollected

    parser, names = run_reader(command, formats=()), format_names()
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
    data = render(view_of(open_runs([options.run], options.runs_dir)))
    if options.output is None:
        if isinstance(data, bytes):
            raise binary
        for piece in _pieces(data):
            print(piece, end="")
        return Exit.DONE
    try:
        with uncollected():
            _write(options.output, data)
    except OSError as error:
        raise ZbenchError(f"cannot write --out {options.output}: {error.strerror}") from error
    talk(f"wrote {options.output}")
    return Exit.DONE


def published(command: Command, args: list[str]) -> int:
    """What published tables hold."""
    import json
    from dataclasses import asdict

    from zbench.cli.parsers import command_parser
    from zbench.hardware.published import published_figures
    from zbench.report.tables.published import figures_table
    from zbench.report.tables.serving import published_page_table
    from zbench.report.tables.text_table import to_markdown, to_text

    parser = command_parser(command, ("table", "markdown", "json"))
    parser.add_argument("profiles", nargs="*", metavar="HARDWARE", help="choices of hardware=, such as b300")
    options = parser.parse_intermixed_args(args)
    every = published_figures()
    known = sorted({figure.profile for figure in every if figure.profile})
    for unknown in (name for name in options.profiles if name not in known):
        raise ZbenchError(f"hardware {unknown}: nothing is published of it here; there are {', '.join(known)}")
    figures = [figure for figure in every if not options.profiles or figure.profile in options.profiles]
    if options.format == "json":
        print(json.dumps([asdict(figure) for figure in figures], ensure_ascii=False, indent=2))
        return Exit.DONE
    tables = [figures_table(figures)]
    tables += [published_page_table(figures)] if any(figure.serving for figure in figures) else []
    show = to_markdown if options.format == "markdown" else to_text
    print("\n\n".join(show(table).rstrip("\n") for table in tables))
    return Exit.DONE


def _pieces(text: "str | Iterator[str]") -> "Iterator[str]":
    return iter([text]) if isinstance(text, str) else text


def _write(path: Path, data: "str | bytes | Iterator[str]") -> None:
    """A file whole or not at all, unless it is none of a disk, such as /dev/stdout. Raises OSError."""
    partial = path if path.exists() and not path.is_file() else path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as file:
            for piece in [data] if isinstance(data, bytes) else _pieces(data):
                file.write(piece if isinstance(piece, bytes) else piece.encode(errors="backslashreplace"))
        if partial != path:
            os.replace(partial, path)
    except BaseException:
        if partial != path:
            partial.unlink(missing_ok=True)
        raise


def _judge(new: "Iterable[Record]", base: "Iterable[Record]", options: "argparse.Namespace") -> int:
    """Judge, print, and give the verdict's exit code."""
    from zbench.gate.judge import assess
    from zbench.gate.limits import parse_limit
    from zbench.gate.show import publish, render
    from zbench.stored import uncollected

    limits = [parse_limit(text) for text in options.metric or ["latency.median:3%"]]
    with uncollected():
        assessment = assess(new, base, limits)
    print(render(assessment, options.format))
    if options.github:
        publish(assessment)
    return assessment.exit_code
