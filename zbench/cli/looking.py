"""The command that looks at this machine; heavy imports inside it."""

from zbench.cli.command import Command
from zbench.errors import Exit, ZbenchError
from zbench.streams import talk


def doctor(command: Command, args: list[str]) -> int:
    """What is here."""
    from zbench.cli.parsers import command_parser
    from zbench.composition import profile_patterns
    from zbench.hardware.doctor import findings, gather
    from zbench.plugins import ALLOW_CODE, ALLOW_CODE_HELP
    from zbench.report.tables.doctor import render_findings

    parser = command_parser(command, ("table", "json"))
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


def _measure_ceilings(form: str) -> int:
    """What this machine's device reaches, measured, kept and printed."""
    from zbench.hardware.ceiling_bench import measure_ceilings
    from zbench.hardware.ceilings import store_ceilings
    from zbench.hardware.detect import present_devices
    from zbench.hardware.turns import CPU, TurnOnDevices
    from zbench.report.tables.ceilings import render_ceilings

    devices = present_devices()
    with TurnOnDevices([devices[0].place if devices else CPU], "doctor --measure").taken(talk):
        ceilings = measure_ceilings(devices, talk)
    path = store_ceilings(ceilings)
    print(render_ceilings(ceilings, form))
    talk(f"kept in {path}; what is measured from now on carries them")
    return Exit.DONE
