"""`run`, `sweep`, `plan` and `serve` as Hydra applications: Hydra's own flags, help and completion on zbench's configs.

What only shows something (`--cfg`, `--info`, `--help`, completion) is left to Hydra; what measures is
composed by `composition` and planned here.
"""

import os
import re
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from typing import NoReturn

import hydra
from hydra._internal.utils import get_args_parser  # the parser hydra.main itself uses; there is no public one
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from zbench.composition import CONFIG_NAME, Jobs, conf_dir, expand
from zbench.composition.aliases import meant
from zbench.composition.grammar import text_override
from zbench.composition.session import check_search_path, read_configs_as_text, readable
from zbench.config import Config, register_schemas
from zbench.engines import Descriptions
from zbench.environment import DeviceLike
from zbench.errors import Exit, HardwareError, OverrideError, ZbenchError, one_line
from zbench.executors import trials_at_once
from zbench.hardware.detect import describe_present, present_devices
from zbench.methods import lora, quantization
from zbench.plugins import ALLOW_CODE, check_targets
from zbench.sanitize import shell_line, without_password
from zbench.space import constraint
from zbench.streams import talk
from zbench.sweeper.baseline import named_baseline
from zbench.sweeper.conduct import check_weights
from zbench.sweeper.devices import too_many
from zbench.sweeper.here import auto_resolver, chosen_executor, devices_there, fill_grid, one_job
from zbench.sweeper.plan import Plan, make_plan, trial_of
from zbench.sweeper.tuning import tuning_jobs
from zbench.trial import Trial, geometry_of

STAND_IN = ("pipeline=zimage_tiny", "hardware=cpu")
"""What proxies of projected trials run on."""


def planned(
    args: list[str], command: str, about: str = "", *, allow_code: bool = False, typed: Sequence[str] | None = None
) -> Plan | None:
    """The plan of a command line, or None if it only asked Hydra to show something.

    A `plan` imports no class from outside zbench; `run` and `sweep` ask the engines and the search that the user named.

    `command` is run, sweep, plan or tune, `about` what its help begins with, `typed` what to type to go on, where that
    is not `args`. Raises OverrideError and its like for what does not compose, and ConfigError for code from outside
    that neither an entry point nor `allow_code` permits.
    """
    asked = _asked(args, command, about)
    if asked is None:
        return None
    overrides, config_dir, jobs, devices = asked
    outside = check_targets((job.config for job in jobs.jobs), allow_code=allow_code)
    if outside and command == "plan":
        talk(f"note: from outside zbench, which a plan does not run: {', '.join(outside)}")
    named = dict(o.lstrip("+").split("=", 1) for o in overrides if "=" in o)
    again = [arg for arg in args if not arg.startswith("sweep.fresh=")]  # to go on is not to begin afresh
    allowed = [ALLOW_CODE] if allow_code else []
    again = [_without_secrets(arg) for arg in ([*allowed, *again] if typed is None else typed)]
    goes_on = shell_line(["zbench", "sweep" if command == "plan" else command, *again])
    experiment = named.get("experiment", "sweep")
    prefix = command if command in ("run", "tune") else experiment if re.fullmatch(r"[\w-]+", experiment) else "sweep"
    named_setting = jobs.jobs[0].config.sweep.baseline
    baseline_of = None
    if named_setting is not None:
        baseline_of = named_baseline(
            named_setting, lambda more: one_job([*STAND_IN, *more], config_dir, allow_code=allow_code)
        )

    def stand_in() -> Config:
        return one_job(list(STAND_IN), config_dir)

    made = make_plan(
        jobs,
        stand_in,
        devices,
        command=goes_on,
        prefix=prefix,
        baseline_of=baseline_of,
        runs=command != "plan",
        allow_code=allow_code,
    )
    return replace(made, at_once=trials_at_once(made.executor))


def served(args: list[str], command: str, about: str = "", *, allow_code: bool = False) -> Trial | None:
    """The one trial of a command line that serves it, or None if it only asked Hydra to show something.

    Raises as `planned` does, HardwareError for hardware that is not here, and
    ZbenchError for what cannot work.
    """
    asked = _asked(args, command, about)
    if asked is None:
        return None
    jobs = asked[2]
    config = jobs.jobs[0].config
    check_targets([config], allow_code=allow_code)
    devices = present_devices()
    trial = trial_of(config, devices)
    if trial.hardware is not None:
        raise HardwareError(f"hardware={trial.hardware.name}: is not here ({describe_present(devices)}); leave it out")
    lora.check_used([trial.pipeline])
    quantization.check_used([config.compute])
    problem = constraint(trial, geometry_of(trial.pipeline)) or too_many([(trial, config.hardware)], devices)(trial)
    problem = problem or Descriptions(allow_code=allow_code).supports(trial)
    if problem is not None:
        raise ZbenchError(problem)
    check_weights([trial])
    return trial


def _asked(
    args: list[str], command: str, about: str
) -> tuple[list[str], str | None, Jobs, Sequence[DeviceLike] | None] | None:
    """The overrides of a command line, its folder of configs, its jobs and the devices that each may have; None if
    Hydra was only to show something."""
    options, unknown = _parsed(args, command)
    shows = options.cfg or options.info or options.help or options.hydra_help or options.shell_completion
    overrides = [*options.overrides, *unknown]  # argparse takes the words before the first flag and leaves the others
    check_search_path(overrides)
    flags = [arg for arg in args if arg not in overrides]

    executor = None if shows and not (options.cfg or options.info) else chosen_executor(overrides, options.config_dir)

    @cache
    def devices() -> Sequence[DeviceLike] | None:
        return devices_there(executor)

    def expanded() -> Jobs:
        resolve_auto, filled = auto_resolver(options.config_dir, devices), partial(fill_grid, devices=devices)
        if command == "tune":
            return tuning_jobs(overrides, resolve_auto, filled, len(devices() or ()), options.config_dir)
        grids = command in ("sweep", "plan")
        return expand(overrides, resolve_auto, config_dir=options.config_dir, grids=grids, fill_grid=filled)

    if shows and (options.cfg or options.info):
        jobs = expanded()
        if len(jobs.jobs) > 1:
            talk(f"showing the first of {len(jobs.jobs)} jobs")
        show(
            [*map(_without_secrets, jobs.jobs[0].overrides), *flags], command
        )  # last, a bare --info takes no override for its value
        return None
    if shows:
        shown = [_without_secrets(word) for word in overrides if not text_override(word)]
        show([*shown, *_help_header(about), *flags], command)
        return None
    return overrides, options.config_dir, expanded(), devices()


def _without_secrets(word: str) -> str:
    """What was typed, as it may be kept and shown: the study's URL without its password."""
    return without_password(word) if "storage" in word else word


def _parsed(args: list[str], command: str) -> tuple[Namespace, list[str]]:
    """By Hydra's own parser. Raises OverrideError where that prints its usage and exits, and for flags that have no
    place here."""

    def refuse(message: str) -> NoReturn:
        raise OverrideError(f"{message.removeprefix('argument ')}; zbench {command} --help says more")

    for arg in args:
        readable(arg)
        if arg in ("--version", "-V"):
            raise OverrideError(f"{arg}: is no flag of zbench {command}; zbench --version says which it is")
    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    options, unknown = parser.parse_known_args(args)
    for flag in [arg.partition("=")[0] for arg in unknown if arg.startswith("-")]:
        known_as = meant(flag) if flag.startswith("--") else None
        way = f"zbench {command} --help lists them" if known_as is None else f"did you mean {known_as}?"
        raise OverrideError(f"{flag}: no such flag; {way}")
    if options.shell_completion and any(word.startswith("query=") for word in [*options.overrides, *unknown]):
        raise OverrideError("--shell-completion query=: is a shell's to ask; zbench --help says how it is installed")
    if options.config_dir == "":
        raise OverrideError("--config-dir: names no folder; leave it out, or give . for this one")
    for flag in ("multirun", "run"):
        if getattr(options, flag):
            tells = "zbench sweep tries every point and zbench run one"
            raise OverrideError(f"--{flag}: has no place here, {tells}; leave it out")
    for flag in ("resolve", "package"):
        if getattr(options, flag) and not options.cfg:
            raise OverrideError(f"--{flag}: says how --cfg shows a config; add --cfg job, or leave it out")
    for flag in ("config_name", "config_path", "experimental_rerun"):
        if getattr(options, flag) is not None:
            raise OverrideError(
                f"--{flag.replace('_', '-')}: zbench has one root config; use --config-dir to add groups"
            )
    return options, unknown


def show(args: list[str], command: str) -> None:
    """Let Hydra answer flags that only show something."""

    @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=CONFIG_NAME)
    def application(_: object) -> None:
        """Never runs: every flag that gets here shows something and ends."""

    register_schemas()
    read_configs_as_text()
    before, sys.argv = sys.argv, [f"zbench {command}", *args]
    try:
        with _hydra_raises():
            application()
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # ValueError: flags that exclude each other
        raise OverrideError(one_line(error)) from error
    finally:
        sys.argv = before


def complete(args: list[str], commands: Sequence[str], hydras: Sequence[str]) -> int:
    """Answer Hydra's shell completion, which knows no subcommands: complete `commands` here, the words of `hydras`
    there."""
    query = next((a for a in args if a.startswith(("query=", "install=", "uninstall="))), "")
    if not query.startswith("query="):
        show(["--shell-completion", query or "install=bash"], "")
        return Exit.DONE
    words = os.environ.get("COMP_LINE", "").split()
    typing_command = len(words) < 2 or (len(words) == 2 and not os.environ["COMP_LINE"].endswith(" "))
    if typing_command:
        print(" ".join(command for command in commands if command.startswith((words[1:] or [""])[0])))
    elif words[1] in hydras:
        os.environ["COMP_LINE"] = os.environ["COMP_LINE"].replace(f"{words[0]} {words[1]}", "zbench", 1)
        show(["--shell-completion", query], words[1])
    return Exit.DONE


def _help_header(about: str) -> list[str]:
    """The override that makes Hydra's help begin with `about`."""
    quoted = about.replace("\\", "\\\\").replace("'", "\\'")
    return [f"hydra.help.header='{quoted}'"] if about else []


@contextmanager
def _hydra_raises() -> Iterator[None]:
    """Hydra prints its errors and exits unless this variable is set; zbench wants to word them itself."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before
