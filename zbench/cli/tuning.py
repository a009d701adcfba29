"""`zbench tune`: composes the choices, runs the search as a sweep, and says what it found; heavy imports inside."""

from typing import TYPE_CHECKING

from zbench.cli.command import Command
from zbench.errors import ConfigError, Exit, ZbenchError
from zbench.streams import talk

if TYPE_CHECKING:
    import argparse

    from zbench.analysis.view import View
    from zbench.recommend import Goal
    from zbench.search.tune.search import TuneOptions, TuneSearch
    from zbench.sweeper.plan import Plan

FORMATS = ("text", "json")


def tune(command: Command, args: list[str]) -> int:
    """The best configuration within limits, found in few trials, and the path to it."""
    from dataclasses import fields

    from zbench.analysis.constraints import constraints_of
    from zbench.hydra_app import planned
    from zbench.recommend import Limits
    from zbench.search.tune.budget import parse_budget

    parser = _parser(command)
    options, rest = parser.parse_known_args(args)
    given = {limit.name: getattr(options, limit.name) for limit in fields(Limits)}
    constraints_of(Limits(**given))
    parse_budget(options.budget, "--budget")
    asked = {**given, "objective": options.objective, "budget": options.budget}
    overrides = [f"search.options.{key}={value}" for key, value in asked.items() if value is not None]
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in asked.items() if value is not None]
    flags += ["--allow-proxy"] if options.allow_proxy else []
    flags += ["--allow-code"] if options.allow_code else []
    again = [arg for arg in rest if not arg.startswith("sweep.fresh=")]
    about = f"usage: {command.usage}\n\n{command.description}\n\n{_flags_help(parser)}\n"
    made = planned(
        [*rest, "search=tune", *overrides],
        command.name,
        about,
        allow_code=options.allow_code,
        typed=[*again, *flags],
    )
    if made is None:
        return Exit.DONE
    return execute(made, options.format, allow_proxy=options.allow_proxy)


def _parser(command: Command) -> "argparse.ArgumentParser":
    import argparse

    from zbench.cli.parsers import OneLineParser, limit_flags
    from zbench.plugins import ALLOW_CODE, ALLOW_CODE_HELP
    from zbench.recommend import OBJECTIVES

    parser = OneLineParser(prog="zbench tune", add_help=False, allow_abbrev=False, usage=argparse.SUPPRESS)
    limit_flags(parser)
    parser.add_argument(
        "--budget", metavar="SPEND", help="10min, 600s, 1h, or 30 for so many trials (default: no limit)"
    )
    parser.add_argument("--objective", choices=OBJECTIVES, help=f"default: {OBJECTIVES[0]}")
    parser.add_argument("--allow-proxy", action="store_true", help="judge projected and proxy records too")
    parser.add_argument("--format", choices=FORMATS, default=FORMATS[0], help=f"default: {FORMATS[0]}")
    parser.add_argument(ALLOW_CODE, action="store_true", help=ALLOW_CODE_HELP)
    return parser


def _flags_help(parser: "argparse.ArgumentParser") -> str:
    """The flags as Hydra's help shows them: a dollar or brace would be read as an interpolation, and there is none."""
    return parser.format_help().strip()


def _refuse_unjudgeable(made: "Plan", told: "TuneOptions", *, allow_proxy: bool) -> None:
    """Raise ConfigError for a limit or objective that no trial can be judged by: better before measuring than after."""
    if made.measure.quality_only:
        raise ConfigError("measure.quality_only", "true", "tune chooses by what it measured of time; leave it out")
    trials = [placed.trial for placed in made.space.placed]
    projected = [trial.hardware for trial in trials if trial.hardware is not None]
    if projected and not allow_proxy:
        raise ZbenchError(
            f"hardware={projected[0].name}: is not here, so its figures would be projections; add --allow-proxy, or "
            "leave it out"
        )
    on_cpu = all(t.compute.device == "cpu" and t.hardware is None and t.engine.name == "reference" for t in trials)
    no_scene = not any(prompt.scene for trial in trials for prompt in trial.workload.prompts)
    unlike = all(trial.pipeline.weights == "random" and trial.hardware is None for trial in trials)
    lacking = (
        ("max_vram_gib", on_cpu, "there is no GPU here, so there is no device memory to limit; leave it out"),
        ("max_lpips", made.measure.lpips_weights is None, "needs a judge; give measure.lpips_weights="),
        ("min_clip_score", made.measure.clip_weights is None, "needs a judge; give measure.clip_weights="),
        ("min_prompt_fidelity", no_scene, "no prompt here names its scene; leave it out, or take workload=scenes"),
        *(
            (name, unlike, "weights are random, so images say nothing; leave it out, or give pipeline.weights")
            for name in ("min_ssim", "min_psnr_db")
        ),
    )
    if on_cpu and told.objective == "energy":
        raise ConfigError("--objective", "energy", "there is no GPU here, so nobody knows joules; leave it out")
    for name, is_so, why in lacking:
        if is_so and (limit := getattr(told, name)) is not None:
            raise ConfigError(f"--{name.replace('_', '-')}", f"{limit:g}", why)


def _goal(made: "Plan", told: "TuneOptions") -> "Goal | None":
    """What a recommendation is asked for: an objective on the devices there may be; None: the quickest on one."""
    from zbench.methods.parallel import ParallelDims
    from zbench.recommend import OBJECTIVES, Goal

    most = max(ParallelDims.of(placed.trial.parallel).devices for placed in made.space.placed)
    return None if told.objective == OBJECTIVES[0] and most == 1 else Goal(told.objective, most)


def decides(made: "Plan") -> bool:
    """Whether a plan is searched by tune, whatever command it came from."""
    from zbench.search.question import ASKS_NOTHING_OF_ITS_OWN

    return made.search.target == ASKS_NOTHING_OF_ITS_OWN


def execute(made: "Plan", out: str, *, allow_proxy: bool = False) -> int:
    """Run a plan that tune searches, write its report, print its answer.

    `out` is one of FORMATS, or of a sweep's: those for people have its table before the answer; of `csv` the table
    alone is data, and the answer is told.
    """
    import threading

    from rich.console import Console

    from zbench.analysis.view import view_of
    from zbench.cli.measuring import print_further, tell_end
    from zbench.report.page.write import preload, write_report
    from zbench.search.options import options_of
    from zbench.search.tune.search import TuneOptions, TuneSearch
    from zbench.sweeper.conduct import conduct

    told = options_of(made.search, TuneOptions)  # search.options.min_ssim= may be typed instead of the flag
    _refuse_unjudgeable(made, told, allow_proxy=allow_proxy)
    threading.Thread(target=preload, name="zbench-preload", daemon=True).start()  # while the worker loads
    search = TuneSearch(made.space, made.search)
    outcome = conduct(made, Console(stderr=True, emoji=False), search)
    if outcome.interrupted:
        talk(f"stopped; finished trials are in {made.run_folder}. To go on: {made.command}")
        return Exit.INTERRUPTED
    view = view_of(outcome.records)
    write_report(view, {made.name: made.run_folder}, made.report_folder)
    tell_end(made, outcome)
    if out not in FORMATS:
        from zbench.report.tables.main import render

        print(render(view, out))
        print_further(view, out)
        print(end="" if out == "csv" else "\n")
    return _answer(made, out, search, view, allow_proxy=allow_proxy)


def _answer(made: "Plan", out: str, search: "TuneSearch", view: "View", *, allow_proxy: bool) -> int:
    """Print the recommendation and the path; where nothing is feasible the path says what was tried."""
    import json

    from zbench.recommend import recommend
    from zbench.recommend.tuned import path_dict, path_text
    from zbench.sanitize import json_text

    text = path_text(search)
    try:
        advice = recommend(view, search.options, allow_proxy=allow_proxy, goal=_goal(made, search.options))
    except ZbenchError:
        _tell(text)
        raise
    if out == "json":
        answer = {"answer": json.loads(advice.to_json()), **path_dict(search)}
        print(json_text(json.dumps(answer, ensure_ascii=False, allow_nan=False, indent=2)))
    elif out == "csv":
        _tell(f"{advice.to_text()}\n\n{text}")
    else:
        print(f"{advice.to_text()}\n\n{text}")
    return Exit.DONE if advice.is_whole else Exit.FAILED


def _tell(text: str) -> None:
    for line in text.splitlines():
        talk(line)
