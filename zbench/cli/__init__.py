"""The command line: `table` names the commands, `measuring`, `reading` and `looking` do them. stdout is data, stderr is
talk.

Nothing heavy is imported before a command needs it, so that `zbench --help` answers at once.
"""

import sys
from collections.abc import Sequence
from typing import NoReturn

from zbench import __version__
from zbench.cli.table import TABLE, help_text
from zbench.errors import Exit, MachineError, StoreError, ZbenchError, machine_fault, path_fault, with_causes
from zbench.sanitize import printable_lines, without_password
from zbench.streams import guarded, talk
from zbench.sweeper.terminal import end_as_ctrl_c_does

COMMANDS = {command.name: command for command in TABLE}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code, which no failure to print turns into another verdict."""
    args = list(sys.argv[1:] if argv is None else argv)
    with guarded() as streams:
        return streams.exit_code(_answered(args), is_verdict=any(c.is_verdict for c in TABLE if c.name in args[:1]))


def _answered(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help", "help"):
        print(help_text(), end="")
        return Exit.DONE if args else Exit.BAD_INPUT
    if args[0] == "--version":
        print(f"zbench {__version__}")
        return Exit.DONE
    try:
        if args[0] in ("--shell-completion", "-sc"):
            from zbench.hydra_app import complete

            return complete(args, list(COMMANDS), [c.name for c in COMMANDS.values() if c.is_hydra])
        command = COMMANDS.get(args[0])
        if command is None:
            raise ZbenchError(f"no command {args[0]!r}; there are: {', '.join(COMMANDS)}")
        code = command.function(command, args[1:])
        sys.stdout.flush()  # a reader may keep it waiting, and Ctrl-C ends that
        return code
    except KeyboardInterrupt:
        return _interrupted()
    except SystemExit as stop:  # of argparse and Hydra, once they have shown something
        return Exit.DONE if stop.code in (None, 0) else Exit.BAD_INPUT
    except Exception as error:
        return _failed(error)


def _failed(error: Exception) -> int:
    """Say what went wrong in a line; what is no user's and no machine's fault with its traceback."""
    if _tells_of_an_interrupt(error):
        return _interrupted()
    if isinstance(error, ZbenchError):
        said = str(error)
        talk(f"zbench: error: {without_password(said) if 'search.storage' in said else said}")
        return error.exit_code
    if isinstance(error, OSError) and (fault := path_fault(error)) is not None:
        talk(f"zbench: error: {fault}")
        return Exit.BAD_INPUT
    way_out = machine_fault(str(error)) if isinstance(error, OSError) else None
    if way_out is not None:
        talk(f"zbench: error: {error}; {way_out}")
        return Exit.BAD_INPUT
    import traceback

    print(printable_lines(traceback.format_exc().rstrip("\n")), file=sys.stderr)
    talk(f"zbench: a fault of zbench {__version__} itself; please report the lines above with the command you gave")
    return Exit.FAULT


def _tells_of_an_interrupt(error: Exception) -> bool:
    """Whether a library made an error of its own out of Ctrl-C, which comes at any instruction of it.

    What could not be saved because of the disk is still said.
    """
    if isinstance(error, StoreError | MachineError):
        return False
    return any(isinstance(cause, KeyboardInterrupt) for cause in with_causes(error))


def _interrupted() -> Exit:
    talk("zbench: interrupted")
    return Exit.INTERRUPTED


def entry() -> NoReturn:
    """The console script."""
    end_as_ctrl_c_does()
    sys.exit(main())
