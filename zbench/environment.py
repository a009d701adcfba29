"""Where a measurement was made: machine, software and zbench's own revision, and a fingerprint to compare by.

It refuses to look for devices itself (`hardware` hands them in) and never imports torch: versions come
from installed metadata.
"""

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Required, TypedDict

import msgspec
import psutil

from zbench.decode import Count, Figure, typed

PACKAGES = ("torch", "diffusers", "transformers", "cache-dit", "zbench")
"""Whose versions decide whether two measurements may be taken for the same."""

OF_A_CHECKOUT = ("git revision", "uncommitted changes")
"""What `identity` has of zbench's own checkout."""

GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")

SOURCES = ("zbench", "conf")
"""Folders of the checkout in which an uncommitted change makes a measurement another one."""


Rate = Annotated[float, msgspec.Meta(gt=0, le=1e12)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class DeviceLike(Protocol):
    """What a device has to tell."""

    @property
    def name(self) -> str: ...
    @property
    def memory_bytes(self) -> int | None: ...
    @property
    def driver(self) -> str | None: ...
    @property
    def power_limit_w(self) -> float | None: ...


@dataclass(frozen=True)
class DeviceInfo:
    """One accelerator, as it is written into a record."""

    name: str
    memory_bytes: int | None
    driver: str | None
    power_limit_w: float | None = None


@dataclass(frozen=True)
class Environment:
    """Everything about the machine and the software that a record keeps."""

    os: str
    python: str
    cpu: str
    cores: int
    """Cores this process may run on, which can be fewer than the machine has."""
    host_memory_bytes: int
    devices: tuple[DeviceInfo, ...]
    driver: str | None
    clock_policy: str | None
    """What besides load decides the clocks: the CPU's governor, the devices' power limits. None where nobody says."""
    versions: dict[str, str | None]
    """Installed version of each of PACKAGES; None where it is not installed."""
    git_revision: str | None
    """Commit of zbench's own checkout; None for an installed wheel."""
    git_dirty: bool | None
    """Whether files of SOURCES differ from that commit, new files included."""
    git_changes: str | None
    """12 hex digits over those differences, so that one edit is not taken for another; None where there are none."""
    fingerprint: str
    """12 hex digits over `identity`."""
    ceilings: dict[str, Any] | None = None
    """What `zbench doctor --measure` found the device here to reach, without samples; None where it was not run."""

    noise: dict[str, Any] | None = None
    """By how much processes of the same code differ here, by `cpu` and `cuda`, as `zbench doctor --noise` found: a
    `share`, None where that is of another machine or software, and what is `told` of it. None: not measured."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        data = asdict(self)
        data["devices"] = list(data["devices"])
        return data


class DeviceEntry(TypedDict, total=False):
    """What readers ask of a device in a record's environment."""

    name: Required[str]
    memory_bytes: Count | None
    driver: str | None
    power_limit_w: Figure | None


class CeilingsEntry(TypedDict, total=False):
    """What readers ask of measured ceilings: rates by name, in 1e12 FLOP/s or 1e9 bytes/s."""

    kind: Literal["cuda", "cpu"]
    device: str
    torch: str | None
    driver: str | None
    measured_at: str
    figures: dict[str, Rate | None]
    attention_backend: dict[str, str | None]


class NoiseEntry(TypedDict, total=False):
    """What readers ask of measured noise."""

    share: Share | None
    told: str


class EnvironmentEntry(TypedDict, total=False):
    """What readers ask of a record's environment; records of older versions lack some of it, and may have more."""

    os: str | None
    python: str | None
    cpu: str | None
    cores: Count | None
    host_memory_bytes: Count | None
    devices: list[DeviceEntry] | None
    driver: str | None
    clock_policy: str | None
    versions: dict[str, str | None] | None
    git_revision: str | None
    git_dirty: bool | None
    git_changes: str | None
    fingerprint: str | None
    ceilings: CeilingsEntry | None
    equal_workers: Share | None  # of records before there was `noise`
    noise: dict[str, NoiseEntry] | None
    node: str | None  # the machine of a cluster


def check_environment(environment: Mapping[str, Any]) -> None:
    """Raise ValueError naming what in a record's environment no reader could read."""
    try:
        typed(EnvironmentEntry, environment)
    except ValueError as error:
        raise ValueError(f"environment.{error}") from error


def capture(devices: Sequence[DeviceLike] = ()) -> Environment:
    """The environment of this process. `devices` are the accelerators that `hardware` found."""
    revision, changes = source_revision(Path(__file__).resolve().parent)
    facts: dict[str, Any] = {
        "os": platform.platform(),
        "python": platform.python_version(),
        "cpu": cpu_model(),
        "cores": cores_available(),
        "host_memory_bytes": psutil.virtual_memory().total,
        "devices": tuple(DeviceInfo(d.name, d.memory_bytes, d.driver, d.power_limit_w) for d in devices),
        "driver": next((d.driver for d in devices), None),
        "clock_policy": clock_policy(devices),
        "versions": {package: installed_version(package) for package in PACKAGES},
        "git_revision": revision,
        "git_dirty": None if revision is None else changes is not None,
        "git_changes": changes,
    }
    return Environment(**facts, fingerprint=fingerprint(facts))


def identity(environment: Mapping[str, Any]) -> dict[str, Any]:
    """What two environments must agree in for their measurements to be comparable, by the name a user reads.

    Takes `Environment.to_dict()` or the `environment` of a record; without an accelerator the device is the
    CPU.
    """
    names = [d["name"] if isinstance(d, Mapping) else d.name for d in environment.get("devices") or ()]
    cpu = f"{environment.get('cpu')}, {environment.get('cores')} cores"
    versions = environment.get("versions") or {}
    return {
        "device": " + ".join(names) or cpu,
        "driver": environment.get("driver"),
        "clock policy": environment.get("clock_policy"),
        **{package: versions.get(package) for package in PACKAGES},
        "git revision": environment.get("git_revision"),
        "uncommitted changes": environment.get("git_changes"),
    }


def software_differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """As `differences`, of what does not depend on the device. Where git was not at hand before, it says nothing."""
    keys = list(PACKAGES) if before.get("git_revision") is None else [*PACKAGES, *OF_A_CHECKOUT]
    return differences(before, after, keys)


def device_of(environment: Mapping[str, Any]) -> str:
    """What kind of device was measured on, however many of it: the GPU's name, or the CPU's with its cores."""
    names = [d["name"] if isinstance(d, Mapping) else d.name for d in environment.get("devices") or ()]
    return " and ".join(sorted(set(names))) or str(identity(environment)["device"])


def comparable(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether the two agree in all that decides a measurement, but in how many devices of a kind their workers saw."""
    first, second = ({**identity(each), "device": device_of(each)} for each in (one, other))
    return first == second


def cpu_governor() -> str | None:
    """Linux's policy for the CPU's clock, such as powersave; None where the machine has none or hides it."""
    return GOVERNOR.read_text(encoding="utf-8").strip() if GOVERNOR.is_file() else None


def clock_policy(devices: Sequence[DeviceLike] = ()) -> str | None:
    """What decides clocks besides load, as far as it can be read (a locked clock cannot): `governor performance, power
    limit 700 W`."""
    governor = cpu_governor()
    limits = dict.fromkeys(f"{d.power_limit_w:g} W" for d in devices if d.power_limit_w is not None)
    parts = [f"governor {governor}"] if governor else []
    parts += [f"power limit {' + '.join(limits)}"] if limits else []
    return ", ".join(parts) or None


def fingerprint(environment: Mapping[str, Any]) -> str:
    """12 hex digits of a sha256 over the canonical JSON of `identity`."""
    canonical = json.dumps(identity(environment), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def differences(before: Mapping[str, Any], after: Mapping[str, Any], keys: Sequence[str] | None = None) -> list[str]:
    """What changed between two environments, such as `torch 2.12.0 → 2.13.0`; empty where the fingerprints
    agree. `keys` of `identity` that count; None: all."""
    old, new = identity(before), identity(after)
    return [f"{key} {_words(old[key])} → {_words(new[key])}" for key in keys or new if old[key] != new[key]]


def _words(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = str(value)
    is_commit = len(text) == 40 and not set(text) - set("0123456789abcdef")
    return text[:10] if is_commit else text


def installed_version(package: str) -> str | None:
    """Version of an installed distribution, or None; the package is not imported."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        if package != "zbench":
            return None
    from zbench import __version__

    return __version__  # run from a checkout that is not installed


def cpu_model() -> str:
    """The processor's name as the operating system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def cores_available() -> int:
    """Cores this process may run on (its affinity)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def source_revision(package: Path) -> tuple[str | None, str | None]:
    """Commit of the checkout that holds `package` and a hash of what is uncommitted there; None where there is none.

    Only a checkout in which git tracks the package counts: a wheel installed into a virtual environment
    inside somebody else's repository has no revision of its own.
    """
    root = package.parent
    if _git(root, "ls-files", "--error-unmatch", f"{package.name}/__init__.py") is None:
        return None, None
    revision = _git(root, "rev-parse", "HEAD")
    if revision is None:
        return None, None
    edits = _git(root, "diff", "HEAD", "--binary", "--", *SOURCES) or ""
    new_files = (_git(root, "ls-files", "--others", "--exclude-standard", "--", *SOURCES) or "").splitlines()
    if not edits and not new_files:
        return revision, None
    digest = hashlib.sha256(edits.encode())
    for name in new_files:
        digest.update(name.encode() + b"\0" + (root / name).read_bytes())
    return revision, digest.hexdigest()[:12]


def _git(folder: Path, *arguments: str) -> str | None:
    """Output of a git command in `folder`; None where git is missing, fails or takes too long.

    Variables such as GIT_DIR are removed: inside somebody's git hook they point at another repository.
    """
    variables = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            env=variables,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
