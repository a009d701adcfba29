"""The command line: `table` names the commands, `measuring`, `reading` and `looking` do them. stdout is data, stderr is
talk.

Nothing heavy is imported before a command needs it, so that `zbench --help` answers at once.
"""

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from zbench import __version__
from zbench.cli.table import TABLE, help_text
from zbench.errors import Exit, ZbenchError, machine_fault
from zbench.sweeper.terminal import end_as_ctrl_c_does

COMMANDS = {command.name: command for command in TABLE}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
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
        return command.function(command, args[1:])
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
    except Exception as error:
        way_out = machine_fault(str(error)) if isinstance(error, OSError) else None
        if way_out is not None:
            print(f"zbench: error: {error}; {way_out}", file=sys.stderr)
            return Exit.BAD_INPUT
        import traceback

        traceback.print_exc()
        print(
            f"zbench: a fault of zbench {__version__} itself; please report the lines above with the command you gave",
            file=sys.stderr,
        )
        return Exit.FAULT


def entry() -> NoReturn:
    """The console script."""
    end_as_ctrl_c_does()
    sys.exit(main())
