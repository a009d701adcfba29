"""What code from outside does wrong is its own fault: one line with key and class, exit 2, and no record lost."""

from pathlib import Path

import pytest
from factories import complete, trial
from outside_code import SMALL, Outside, records, zbench

from zbench.analysis.view import view_of
from zbench.config import DBCacheConfig, EngineConfig, SearchConfig
from zbench.engines import Batching, Resizing, describe
from zbench.errors import ConfigError, HardwareError
from zbench.executors import Executor
from zbench.plugins import load_object
from zbench.search import load_search
from zbench.space import arrange

SYNTHETIC = (*SMALL, "engine.loads_weights=false", "measure.max_warmup_rounds=0", "measure.paired=false")
SICK = """
from dataclasses import replace
from zbench.executors import Done
from zbench.executors.local import LocalExecutor
from zbench.search.grid import GridSearch
from synthetic import SyntheticEngine

class TakesNothing(LocalExecutor):
    def __init__(self): ...
class Full(LocalExecutor):
    capacity = 0
class Words(LocalExecutor):
    capacity = "two"
class Falls(LocalExecutor):
    ended = 0
    def next_done(self, on_event, should_stop):
        self.ended += 1
        if self.ended == 2:
            raise OSError("the cluster\\nis gone")
        return super().next_done(on_event, should_stop)
class Uneven(LocalExecutor):
    def next_done(self, on_event, should_stop):
        done = super().next_done(on_event, should_stop)
        return Done(done.task, (), None)
class Twice(LocalExecutor):
    first = None
    def next_done(self, on_event, should_stop):
        self.first = self.first or super().next_done(on_event, should_stop)
        return self.first

class Unmade(GridSearch):
    def __init__(self, space, config):
        raise RuntimeError("no")
class Stops(GridSearch):
    def ask(self):
        trial = super().ask()
        return trial if trial.cache.method == "none" else {}["next"]
class Deaf(GridSearch):
    def tell(self, record, figures):
        raise SystemExit("enough")
class Places(GridSearch):
    def ask(self):
        return self.space.place(super().ask())
class Again(GridSearch):
    def ask(self):
        return self.space.placed[0].trial
class Silent(GridSearch):
    def ask(self): ...
class Blind(GridSearch):
    def __init__(self, space, config): ...

class Moody(SyntheticEngine):
    def supports(self, trial):
        raise ValueError("not now")
class Vague(SyntheticEngine):
    def residency(self, trial):
        return "all"
class Broken(SyntheticEngine):
    def __init__(self, **options):
        raise ImportError("no paint")
"""


def command(kind: str, name: str) -> tuple[str, ...]:
    engine = () if kind == "engine" else ("engine.target=synthetic",)
    return ("run", *SYNTHETIC, *engine, "cache=dbcache", f"{kind}.target=sick:{name}", "--allow-code")


@pytest.mark.parametrize(
    ("kind", "name", "says", "kept"),
    [
        ("executor", "TakesNothing", "TakesNothing failed: TypeError: TakesNothing.__init__() ", 0),
        ("executor", "Full", "its capacity is 0; it must have room for a task", 0),
        ("executor", "Words", "Words.capacity gave str, not int", 0),
        ("executor", "Falls", "Falls.next_done failed: OSError: the cluster is gone (sick.py, line 19)", 1),
        ("executor", "Uneven", "Uneven.next_done failed: ValueError: 0 results for 1 settings (sick.py, line 24)", 0),
        ("executor", "Twice", "ends a task that it does not hold", 1),
        ("search", "Unmade", "Unmade failed: RuntimeError: no (sick.py, line 33)", 0),
        ("search", "Stops", "Stops.ask failed: KeyError: 'next' (sick.py, line 37)", 1),
        ("search", "Deaf", "Deaf.tell failed: SystemExit: enough (sick.py, line 40)", 1),
        ("search", "Places", "Places.ask gave Placed, not zbench.trial.Trial | zbench.search.OnlyQuality | None", 0),
        ("search", "Again", "asks for none twice; where nothing is left, ask is to give None", 1),
        ("search", "Silent", "asked for no trial", 0),
        ("search", "Blind", "Blind.space failed: AttributeError: 'Blind' object has no attribute 'space'", 0),
        ("engine", "Moody", "Moody.supports failed: ValueError: not now (sick.py, line 54)", 0),
        ("engine", "Vague", "Vague.residency gave str, not Residency", 0),
        ("engine", "Broken", "Broken failed: ImportError: no paint (sick.py, line 60)", 0),
    ],
)
def test_a_fault_from_outside_is_one_line(kind: str, name: str, says: str, kept: int, outside: Outside) -> None:
    outside.module("sick", SICK)
    done = zbench(*command(kind, name))
    assert done.returncode == 2 and done.stdout == "", done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"zbench: error: {kind}.target=sick:{name}: {says}")
    assert "Traceback" not in done.stderr and "fault of zbench" not in done.stderr
    assert len(records() if Path("runs").exists() else []) == kept


def test_what_was_measured_before_is_gone_on_from(outside: Outside) -> None:
    outside.module("sick", SICK)
    assert zbench(*command("executor", "Falls"), "sweep.name=s").returncode == 2
    outside.module("sick", SICK.replace("self.ended == 2", "self.ended == 9"))
    done = zbench(*command("executor", "Falls"), "sweep.name=s")
    assert done.returncode == 0 and done.stderr.count("from the journal") == 1 and len(records()) == 2, done.stderr


def test_an_error_of_zbenchs_own_keeps_its_words(outside: Outside) -> None:
    text = (
        "from zbench.errors import HardwareError\nfrom zbench.executors.local import LocalExecutor\n"
        "class Far(LocalExecutor):\n    def __init__(self):\n        raise HardwareError('no node is free')\n"
    )
    outside.module("far", text)
    with pytest.raises(HardwareError, match=r"^no node is free$"):
        load_object("executor", "executor.target", "far:Far", Executor, lambda found: found(), allow_code=True)


def test_what_its_protocol_does_not_have_is_not_asked(outside: Outside) -> None:
    outside.module("sick", SICK)
    space = arrange([trial(DBCacheConfig())])
    search = load_search(SearchConfig(name="x", target="sick:Deaf"), space, allow_code=True)
    assert search.space is space and search.ask() is space.placed[0].trial and not hasattr(search, "_left")
    with pytest.raises(ConfigError, match=r"search\.target=sick:Deaf: Deaf\.tell failed: SystemExit: enough"):
        search.tell(complete(trial()), view_of([complete(trial())]).trials[0])


def test_what_an_engine_from_outside_may_do_besides_is_asked_too(outside: Outside) -> None:
    text = (
        "from zbench.engines.reference import ReferenceEngine\n"
        "class Sizes:\n"
        "    def __init__(self):\n        self._own = ReferenceEngine()\n"
        "    def supports(self, trial):\n        return None\n"
        "    def residency(self, trial):\n        return self._own.residency(trial)\n"
        "    def engine(self):\n        return self._own.engine()\n"
        "    def resizes(self, trial):\n        return 'perhaps'\n"
    )
    outside.module("sizes", text)
    engine = describe(EngineConfig(name="sizes", target="sizes:Sizes"), allow_code=True)
    assert isinstance(engine, Resizing) and not isinstance(engine, Batching)
    with pytest.raises(ConfigError, match=r"engine\.target=sizes:Sizes: Sizes\.resizes gave str, not bool"):
        engine.resizes(trial())
