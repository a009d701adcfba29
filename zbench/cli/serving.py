"""The command that serves; heavy imports inside it."""

from zbench.cli.command import Command
from zbench.errors import Exit, ZbenchError

PORT = 30000
"""SGLang's, so that its clients find it."""

QUEUE = 64
MOST_QUEUED = 100_000

MOST_BATCHED = 64
MOST_DELAY_MS = 10_000.0

NEEDED = ("fastapi", "prometheus_client", "pydantic", "uvicorn")


def serve(command: Command, args: list[str]) -> int:
    """The pipeline behind an images API."""
    from zbench.cli.parsers import OneLineParser
    from zbench.plugins import ALLOW_CODE, ALLOW_CODE_HELP

    parser = OneLineParser(prog=f"zbench {command.name}", add_help=False, allow_abbrev=False)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--queue", type=int, default=QUEUE)
    parser.add_argument("--batching-max-size", type=int, default=1)
    parser.add_argument("--batching-delay-ms", type=float, default=0.0)
    parser.add_argument("--model-name", action="append", default=[])
    parser.add_argument(ALLOW_CODE, action="store_true")
    options, rest = parser.parse_known_args(args)
    _check("--port", options.port, 0, 65535)
    _check("--queue", options.queue, 1, MOST_QUEUED)
    _check("--batching-max-size", options.batching_max_size, 1, MOST_BATCHED)
    _check("--batching-delay-ms", options.batching_delay_ms, 0.0, MOST_DELAY_MS)
    if options.batching_delay_ms and options.batching_max_size == 1:
        delay = f"--batching-delay-ms {options.batching_delay_ms:g}"
        raise ZbenchError(f"{delay}: nothing is waited for with --batching-max-size 1; give a larger one")
    if not all(name.strip() for name in options.model_name):
        raise ZbenchError("--model-name '': is empty; give a name, or leave it out")
    about = (
        f"usage: {command.usage}\n\n{command.description}\n"
        "An OVERRIDE is GROUP=CHOICE or key=value, as of zbench run; one configuration is served.\n"
        "--host ADDRESS (default: 127.0.0.1, which this machine alone can reach; there are no keys).\n"
        f"--port N (default: {PORT}; 0: one that is free). --queue N: requests that may wait (default: {QUEUE}).\n"
        "--batching-max-size N: images that one call may make of several requests (default: 1).\n"
        "--batching-delay-ms MS: how long a call that is not full waits for more requests (default: 0).\n"
        "--model-name NAME: another name that requests may call the model by; may be given several times.\n"
        f"{ALLOW_CODE}: {ALLOW_CODE_HELP}.\n"
    )
    from zbench.hydra_app import served

    trial = served(rest, command.name, about, allow_code=options.allow_code)
    if trial is None:
        return Exit.DONE
    _check_packages()
    from zbench.engines import describe
    from zbench.serving.orders import CallSharing, Menu, check_servable
    from zbench.serving.server import ImageServer, bound

    check_servable(trial)
    description = describe(trial.engine, allow_code=options.allow_code)
    batching = CallSharing(options.batching_max_size, options.batching_delay_ms / 1000)
    menu = Menu(trial, description, tuple(options.model_name), batching)
    ImageServer(menu, bound(options.host, options.port), queue=options.queue).run()
    return Exit.DONE


def _check(flag: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise ZbenchError(f"{flag} {value:.10g}: must be {least:g} to {most:g}")


def _check_packages() -> None:
    from importlib.util import find_spec

    lacking = [name for name in NEEDED if find_spec(name) is None]
    if lacking:
        raise ZbenchError(f"zbench serve needs {', '.join(lacking)}; pip install 'zbench[serve]' brings them")
