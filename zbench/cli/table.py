"""The commands, once: from this table come `zbench --help`, each command's own help, errors and completion."""

import textwrap

from zbench.cli import looking, measuring, reading, serving, tuning
from zbench.cli.command import Command
from zbench.errors import Exit

MEASURE = "measure"
READ = "read"
LOOK = "look"
SERVE = "serve"

GROUPS = {  # name, what is said beside it
    MEASURE: "(OVERRIDE is GROUP=CHOICE or key=value; run, sweep, plan take Hydra's flags too: --cfg job, --info, …)",
    READ: "(RUN is a sweep's name under runs/, a run folder, or a records.jsonl)",
    LOOK: "",
    SERVE: "(OVERRIDE as above; on 127.0.0.1:30000 unless --host and --port say otherwise)",
}

TABLE = (
    Command("run", MEASURE, "[OVERRIDE …]", "one trial, and what it is compared with", measuring.run, is_hydra=True),
    Command(
        "sweep",
        MEASURE,
        "[OVERRIDE …]",
        "many trials: each choice brings its grid, key=1,2 or key=range(1,4) replaces an axis",
        measuring.sweep,
        is_hydra=True,
    ),
    Command(
        "plan",
        MEASURE,
        "[OVERRIDE …]",
        "the trials of a sweep, those pruned and why, time and memory expected; runs nothing",
        measuring.plan,
        is_hydra=True,
    ),
    Command(
        "tune",
        MEASURE,
        "[OVERRIDE …] [LIMIT …]",
        "the best configuration within your limits, in few trials, and what each decision bought",
        tuning.tune,
        is_hydra=True,
    ),
    Command(
        "ab",
        MEASURE,
        "--a … --b … [OVERRIDE …]",
        "two configurations, revisions or installations, measured interleaved, for a verdict",
        measuring.ab,
        is_verdict=True,
    ),
    Command("report", READ, "RUN …", "Markdown, HTML, plots and CSV from records", reading.report),
    Command(
        "recommend",
        READ,
        "RUN",
        "the fastest configuration within your limits, and its launch lines",
        reading.recommend,
    ),
    Command(
        "emit",
        READ,
        "OVERRIDE … --to TOOL",
        "a configuration in the words of zbench, SGLang, cache-dit or diffusers; a sweep as a Slurm job; runs nothing",
        reading.emit,
    ),
    Command(
        "compare",
        READ,
        "BASE NEW",
        "what changed between two runs of one machine, trial by trial",
        reading.compare,
        is_verdict=True,
    ),
    Command("baseline", READ, "save RUN --name N", "keep a run for later gates", reading.baseline),
    Command(
        "gate",
        READ,
        "RUN --baseline N",
        "exit 1 if something got slower, larger or worse than the margin allows",
        reading.gate,
        is_verdict=True,
    ),
    Command(
        "export",
        READ,
        "RUN",
        "records as CSV, Parquet, or for pytest-benchmark, Bencher, github-action-benchmark",
        reading.export,
    ),
    Command(
        "published",
        READ,
        "[HARDWARE …]",
        "what published tables say of Z-Image-Turbo, of every device or of these profiles; needs no run",
        reading.published,
    ),
    Command(
        "doctor",
        LOOK,
        "[--noise | --measure]",
        "what hardware and software is here and what it can do; --noise: how steady it is; "
        "--measure: the rates this device reaches, which reports hold their figures against",
        looking.doctor,
    ),
    Command(
        "serve",
        SERVE,
        "[OVERRIDE …]",
        "one configuration's pipeline behind OpenAI's images endpoint",
        serving.serve,
        is_hydra=True,
    ),
)

WIDTH = 118  # columns
EXAMPLES = """\
  zbench sweep cache=dbcache
  zbench sweep hardware=b300 cache=dbcache
  zbench recommend sweep-1a2b3c4d --min-ssim 0.95

zbench COMMAND --help says more; zbench --version. Completion: eval "$(zbench --shell-completion install=bash)"
"""


def help_text() -> str:
    """What `zbench --help` prints."""
    parts = [
        "usage: zbench COMMAND [OPTION …] [OVERRIDE …]\n",
        "Which configuration runs Z-Image fastest on this hardware without spoiling the images?\n",
    ]
    for group, note in GROUPS.items():
        rows = [_row(command) for command in TABLE if command.group == group]
        parts.append("\n".join([f"{group} {note}".rstrip(), *rows, ""]))
    codes = ", ".join(f"{code:d} {code.meaning}" for code in Exit)
    parts.append(EXAMPLES + textwrap.fill(f"Exit codes: {codes}.", WIDTH))
    return "\n".join(parts) + "\n"


def _row(command: Command) -> str:
    """Its call, and its summary beside it on as many lines as it needs."""
    indent = 4 + max(len(each.call) for each in TABLE)
    start = f"  {command.call}".ljust(indent)
    return textwrap.fill(
        command.summary, WIDTH, initial_indent=start, subsequent_indent=" " * indent, break_on_hyphens=False
    )
