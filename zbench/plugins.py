"""Classes that configs name: where they are, whether they may be run, and whether they fit; it knows none of them.

A target is `module:Class` or the name of an installed entry point. zbench's own classes are always permitted. Code from
outside is imported only if an entry point of an installed package names it, or if the user allowed it. What it then
does wrong is its own fault: one error that names the key and the class.
"""

import importlib
import inspect
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from zbench.errors import ConfigError, ZbenchError, one_line

Kind = Literal["engine", "executor", "search", "cache", "export"]

ENTRY_POINTS: dict[Kind, str] = {
    "engine": "zbench.engines",
    "executor": "zbench.executors",
    "search": "zbench.searches",
    "cache": "zbench.cache_methods",
    "export": "zbench.exports",
}
"""The group of entry points in which an installed package names its classes of a kind."""

IN_CONFIGS: tuple[Kind, ...] = ("engine", "cache", "search", "executor")
"""Kinds that are groups of a config too, and whose class is that group's `target`."""

ALLOW_CODE = "--allow-code"
ALLOW_CODE_HELP = "run classes from outside zbench that no installed package names as an entry point"

_TARGET = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*)")


@dataclass(frozen=True)
class ClassPlace:
    """Where a class is, before anything of it is imported."""

    module: str
    name: str
    package: str | None = None  # the installed one whose entry point names it

    @property
    def is_own(self) -> bool:
        """Whether zbench itself has it."""
        return self.module.partition(".")[0] == "zbench"


def installed(kind: Kind) -> list[EntryPoint]:
    """What installed packages offer of a kind, by name; nothing of it is imported."""
    return sorted(entry_points(group=ENTRY_POINTS[kind]), key=lambda entry: (entry.name, entry.value))


def check_permitted(kind: Kind, key: str, target: str, *, allow_code: bool = False) -> ClassPlace:
    """Where the class is that `target` names; nothing is imported for it.

    Raises ConfigError naming `key` where `target` is neither `module:Class` nor an entry point's name, and where it is
    code from outside that is not permitted.
    """
    group = ENTRY_POINTS[kind]
    if ":" not in target:
        return _named(kind, key, target)
    place = _place(target)
    if place is None:
        raise ConfigError(key, repr(target), f"must be module:Class, or the name of an entry point in {group}")
    if place.is_own:
        return place
    package = next((_package(entry) for entry in installed(kind) if _value(entry) == target), None)
    if package is None and not allow_code:
        raise ConfigError(
            key,
            target,
            f"is code from outside zbench, which runs with your rights; permit it with {ALLOW_CODE}, or install a "
            f"package that names it as an entry point in {group}",
        )
    return ClassPlace(place.module, place.name, package)


def load_class(kind: Kind, key: str, target: str, protocol: type[Any], *, allow_code: bool = False) -> type[Any]:
    """The class that `target` names, with every method of `protocol`; it is neither called nor made.

    Raises ConfigError naming `key` as `check_permitted` does, before anything is imported; then where the import fails,
    where there is no such class, and where it lacks a method.
    """
    place = check_permitted(kind, key, target, allow_code=allow_code)
    try:
        found = getattr(importlib.import_module(place.module), place.name, None)
    except (Exception, SystemExit) as error:  # whatever somebody's module does when it is imported
        raise ConfigError(key, target, _import_problem(place, error)) from error
    if found is None:
        raise ConfigError(key, target, f"{place.module} has no {place.name}{_of_package(place)}")
    names = _method_names(protocol)
    wanted = f"must be a class with {', '.join(names)}"
    if not isinstance(found, type):
        raise ConfigError(key, target, f"is no class but a {type(found).__name__}; it {wanted}")
    if getattr(found, "_is_protocol", False):
        raise ConfigError(key, target, f"only says what such a class has; it {wanted}")
    lacking = [name for name in names if not _has(found, name, protocol)]
    if lacking:
        raise ConfigError(key, target, f"lacks {', '.join(lacking)}{_of_package(place)}; it {wanted}")
    return found


def load_object(
    kind: Kind,
    key: str,
    target: str,
    protocol: type[Any],
    make: Callable[[type[Any]], Any],
    *,
    optional: Sequence[type[Any]] = (),
    allow_code: bool = False,
) -> Any:
    """An object of the class that `target` names, as `make` makes it.

    Raises ConfigError as `load_class` does. Where the class is from outside, so does whatever it raises when it is made
    or asked, and what it answers that is not of the type that `protocol` says. `optional` are further protocols, of
    methods alone or of properties alone, that an object may fit; one that does not fit it at all is not asked for.
    """
    found = load_class(kind, key, target, protocol, allow_code=allow_code)
    if check_permitted(kind, key, target, allow_code=allow_code).is_own:
        return make(found)
    with _answerable(found, key, target, found.__name__):
        made = make(found)
    return FromOutside(made, key, target, protocol, optional)


class FromOutside:
    """An object from outside zbench, which answers for what it does: see `load_object`."""

    def __init__(
        self, made: object, key: str, target: str, protocol: type[Any], optional: Sequence[type[Any]] = ()
    ) -> None:
        self._made, self._key, self._target, self._protocol = made, key, target, protocol
        self._told: dict[str, property] = {}  # what it has of further protocols to be read
        for further in optional:
            told = {name: each for name, each in vars(further).items() if isinstance(each, property)}
            if told:
                self._told |= {n: each for n, each in told.items() if inspect.getattr_static(made, n, None) is not None}
            elif isinstance(made, further):  # as attributes of its own, so that it fits the protocol too
                own = {name: each for name, each in vars(further).items() if inspect.isfunction(each)}
                vars(self).update({n: self._asked(n, each) for n, each in own.items() if not n.startswith("_")})

    def __getattr__(self, name: str) -> Any:
        declared: Any = self._told.get(name)
        if declared is None:
            declared = inspect.getattr_static(self._protocol, name)  # AttributeError, where it is not asked for that
        if isinstance(declared, property):
            return self._answer(name, declared.fget, lambda: getattr(self._made, name))
        return self._asked(name, declared)

    def _asked(self, name: str, declared: Any) -> Callable[..., Any]:
        """One of its methods."""
        return lambda *arguments, **named: self._answer(
            name, declared, lambda: getattr(self._made, name)(*arguments, **named)
        )

    def _answer(self, name: str, declared: Any, ask: Callable[[], Any]) -> Any:
        """What the object answers, if that is of the type declared; who is to answer nothing may answer anything."""
        what = f"{type(self._made).__name__}.{name}"
        with _answerable(type(self._made), self._key, self._target, what):
            answer = ask()
        wanted = get_type_hints(declared)["return"]
        if wanted is not NoneType and not _is_a(answer, wanted):
            said = wanted.__name__ if isinstance(wanted, type) else str(wanted)
            raise ConfigError(self._key, self._target, f"{what} gave {type(answer).__name__}, not {said}")
        return answer


def check_targets(configs: Iterable[object], *, allow_code: bool = False) -> list[str]:
    """Check every class that `configs` (or trials) name, importing none; `key=target` of those from outside.

    Raises ConfigError as `check_permitted` does.
    """
    outside: dict[tuple[Kind, str], bool] = {}
    for config in configs:
        for kind in IN_CONFIGS:
            target = getattr(getattr(config, kind, None), "target", None)
            if target is not None and (kind, target) not in outside:
                place = check_permitted(kind, f"{kind}.target", target, allow_code=allow_code)
                outside[kind, target] = not place.is_own
    return [f"{kind}.target={target}" for (kind, target), is_outside in outside.items() if is_outside]


@contextmanager
def _answerable(found: type[Any], key: str, target: str, what: str) -> Iterator[None]:
    """What a class from outside raises inside becomes a ConfigError that says where; zbench's own errors stay."""
    try:
        yield
    except ZbenchError:
        raise
    except (Exception, SystemExit) as error:
        home = getattr(inspect.getmodule(found), "__file__", None)
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == home]
        where = f" ({Path(home).name}, line {lines[-1]})" if home and lines else ""
        said = f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")
        raise ConfigError(key, target, f"{what} failed: {said}{where}") from error


def _named(kind: Kind, key: str, name: str) -> ClassPlace:
    """The place that an installed entry point of this name gives."""
    group, offered = ENTRY_POINTS[kind], installed(kind)
    found = {_value(entry): entry for entry in offered if entry.name == name}
    if not found:
        names = ", ".join(dict.fromkeys(entry.name for entry in offered)) or "none"
        problem = f"must be module:Class, or the name of an entry point in {group} (installed: {names})"
        raise ConfigError(key, name or "''", problem)
    if len(found) > 1:
        said = " and ".join(f"{_package(entry)} ({value})" for value, entry in found.items())
        raise ConfigError(key, name, f"is named in {group} by {said}; give module:Class")
    ((value, entry),) = found.items()
    place = _place(value)
    if place is None:
        raise ConfigError(key, name, f"{_package(entry)} names {value!r} in {group}, which is not module:Class")
    return ClassPlace(place.module, place.name, _package(entry))


def _place(target: str) -> ClassPlace | None:
    match = _TARGET.fullmatch(target)
    return None if match is None else ClassPlace(match[1], match[2])


def _value(entry: EntryPoint) -> str:
    """What an entry point names, without the extras that it may ask for."""
    return entry.value.partition("[")[0].replace(" ", "")


def _package(entry: EntryPoint) -> str:
    return "an unnamed package" if entry.dist is None else f"package {entry.dist.name} {entry.dist.version}"


def _of_package(place: ClassPlace) -> str:
    return "" if place.package is None else f" ({place.package})"


def _import_problem(place: ClassPlace, error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name and f"{place.module}.".startswith(f"{error.name}."):
        return f"there is no module {error.name}{_of_package(place)}; install it, or put its folder on PYTHONPATH"
    said = one_line(error)
    return f"{place.module} cannot be imported{_of_package(place)}: {type(error).__name__}: {said}"


def _method_names(protocol: type[Any]) -> list[str]:
    """What `protocol` declares to be called, in order."""
    bases = [base for base in reversed(protocol.__mro__) if getattr(base, "_is_protocol", False)]
    names = dict.fromkeys(name for base in bases for name in vars(base) if not name.startswith("_"))
    return [name for name in names if callable(getattr(protocol, name))]


def _has(found: type[Any], name: str, protocol: type[Any]) -> bool:
    """Whether a class has a method of its own, not the protocol's empty one that it inherits."""
    method = getattr(found, name, None)
    return callable(method) and method is not getattr(protocol, name)


def _is_a(answer: object, wanted: Any) -> bool:
    """Whether an answer is of a declared type or has a protocol's methods; of what it holds only a sequence's is seen,
    and a text is no sequence of texts."""
    if isinstance(wanted, UnionType):
        return any(_is_a(answer, one) for one in get_args(wanted))
    kind = get_origin(wanted) or wanted
    if kind is Sequence:
        held = get_args(wanted)
        return isinstance(answer, Sequence) and not isinstance(answer, str) and all(_is_a(x, *held) for x in answer)
    if getattr(kind, "_is_protocol", False):
        return all(callable(getattr(answer, name, None)) for name in _method_names(kind))
    return isinstance(answer, kind)
