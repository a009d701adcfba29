"""A cache method from outside: composed, swept, named, pruned and read back by its config alone."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from factories import TINY, TURBO, complete, trial

from zbench.composition import Jobs, expand
from zbench.config import ComputeConfig, CustomCacheConfig, HardwareConfig
from zbench.errors import ConfigError, OverrideError, RecordError
from zbench.methods.cache import method_of
from zbench.record import Record
from zbench.space import constraint
from zbench.trial import Trial, geometry_of

MINE = """\
defaults:
  - /schema/cache@_here_: custom
  - _self_
method: mine
target: zbench_no_such_module:Mine
options: {threshold: 0.3, every: 2}
grid: {options.threshold: "0.1,0.2"}
"""


@pytest.fixture
def folder(tmp_path: Path) -> str:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "mine.yaml").write_text(MINE)
    return str(tmp_path)


def jobs(folder: str | None, *overrides: str, grids: bool = True) -> Jobs:
    return expand(
        ["hardware=cpu", "pipeline=zimage_tiny", *overrides], lambda *_: "cpu", grids=grids, config_dir=folder
    )


def labels(found: Jobs) -> list[str]:
    return [Trial.from_config(job.config, projected=False).label for job in found.jobs]


def test_a_choice_of_ones_own_composes_with_its_grid_and_its_class_is_not_imported(folder: str) -> None:
    assert labels(jobs(folder, "cache=mine")) == ["mine(every=2, threshold=0.1)", "mine(every=2, threshold=0.2)"]
    assert labels(jobs(folder, "cache=mine", grids=False)) == ["mine(every=2, threshold=0.3)"]
    assert "zbench_no_such_module" not in sys.modules


def test_options_are_axes(folder: str) -> None:
    found = jobs(folder, "cache=mine", "cache.options.threshold=0.4,0.5,0.6", "cache.options.every=3")
    assert labels(found) == [f"mine(every=3, threshold={t})" for t in ("0.4", "0.5", "0.6")]
    beside = jobs(folder, "cache=none,mine", "cache.options.threshold=0.4")
    assert labels(beside) == ["none", "mine(every=2, threshold=0.4)"]


def test_it_can_be_told_on_the_command_line_alone() -> None:
    typed = ("cache=custom", "cache.method=mine", "cache.target=a.b:C")
    assert labels(jobs(None, *typed)) == ["mine"]
    with pytest.raises(ConfigError, match=r"cache\.(method|target)=\?\?\?: needs a value"):
        jobs(None, "cache=custom")


def test_a_glob_leaves_out_the_choice_that_says_nothing() -> None:
    assert {job.config.cache.method for job in jobs(None, "cache=glob(*)").jobs} == {"none", "dbcache", "scm"}
    with pytest.raises(OverrideError, match="an empty sweep"):
        jobs(None, "cache=glob(cust*)")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("cache.method=dbcache", "cache.method=dbcache: names a method of zbench's own; give yours another name"),
        ("cache.method='a b'", "cache.method='a b': is part of labels"),
        ("cache.target=''", "cache.target='': must be module:Class or an installed entry point"),
    ],
)
def test_a_name_or_target_that_cannot_be_is_one_clear_error(folder: str, override: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        jobs(folder, "cache=mine", override)
    assert str(raised.value).startswith(said)


def test_a_label_is_the_same_however_options_were_typed() -> None:
    def label(**options: object) -> str:
        return method_of(CustomCacheConfig(method="mine", target="a:B", options=options)).label

    assert label(b=1, a=0.10) == label(a=0.10, b=1) == "mine(a=0.1, b=1)"
    assert label(on=True, how="fast", steps=[1, 2], none=None) == "mine(how=fast, none=null, on=true, steps=[1, 2])"
    assert label() == "mine"


def test_a_record_of_it_reads_back() -> None:
    made = trial(CustomCacheConfig(method="mine", target="a:B", options={"threshold": 0.1}))
    record = Record.from_json(complete(made).to_json())
    assert record.trial == made and record.trial.trial_id == made.trial_id
    assert isinstance(record.trial.cache, CustomCacheConfig)


def test_a_method_that_nobody_knows_and_that_names_no_class_is_an_error() -> None:
    record = complete(trial(CustomCacheConfig(method="mine", target="a:B")))
    config = {**record.config, "cache": {"method": "mine", "options": {}}}
    with pytest.raises(RecordError, match="its config is not one of this zbench"):
        _ = replace(record, config=config).trial


def test_it_is_measured_on_weights_that_mean_something_and_not_projected() -> None:
    def said(of: Trial) -> str:
        return constraint(of, geometry_of(of.pipeline)) or ""

    mine, card = CustomCacheConfig(method="mine", target="a:B"), HardwareConfig(name="b300", title="", datasheet="")
    assert said(trial(mine, pipeline=TINY, compute=ComputeConfig(device="cpu"))) == ""
    assert "mine" in said(trial(mine, pipeline=replace(TURBO, weights="random")))
    assert "on hardware that is not here is not known" in said(trial(mine, pipeline=TURBO, hardware=card))
