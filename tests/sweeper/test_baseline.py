"""`sweep.baseline` names what speed-ups are over, and says what is wrong with what cannot be one."""

import re
from dataclasses import replace
from typing import Any

import pytest
from factories import trial

from zbench.composition.grammar import text_override
from zbench.config import CacheConfig, ComputeConfig, DBCacheConfig, OffloadConfig
from zbench.errors import ConfigError
from zbench.hydra_app import planned
from zbench.space import Placed
from zbench.sweeper.baseline import named_baseline
from zbench.sweeper.here import one_job
from zbench.sweeper.plan import Plan
from zbench.trial import Trial

CAPPED = ("hardware=rtx4090", "pipeline=zimage_turbo", "workload=single", "compute=eager,compiled")
SMALL = ("hardware=cpu", "pipeline=zimage_tiny", "workload=single")
REFERENCE = trial(compute=ComputeConfig(device="cuda"), offload=OffloadConfig(mode="all"))


def of_reference(text: str, reference: Trial = REFERENCE) -> Trial:
    return named_baseline(text, lambda more: one_job(["hardware=cpu", "pipeline=zimage_tiny", *more], None))(reference)


def plan(*args: str) -> Plan:
    made = planned([*SMALL, *args], "sweep")
    assert made is not None
    return made


def role(made: Plan, name: str) -> Trial:
    (placed,) = (p for p in made.trials if getattr(p, f"is_{name}"))
    return placed.trial


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("compute=compiled", {"compute": ComputeConfig(device="cuda", compile=True)}),
        ("compute.compile=true", {"compute": ComputeConfig(device="cuda", compile=True)}),
        ("cache=dbcache", {"cache": DBCacheConfig()}),
        (
            "compute=compiled cache=dbcache cache.residual_diff_threshold=0.12",
            {
                "compute": ComputeConfig(device="cuda", compile=True),
                "cache": DBCacheConfig(residual_diff_threshold=0.12),
            },
        ),
        ("'compute=compiled' \"cache=none\"", {"compute": ComputeConfig(device="cuda", compile=True)}),
        ("offload=none", {"offload": OffloadConfig()}),
        ("compute.dtype=bfloat16", {}),  # a GPU's own
        ("compute.dtype=float32", {"compute": ComputeConfig(device="cuda", dtype="float32")}),
        ("offload.pin_memory=false", {"offload": OffloadConfig(mode="all", pin_memory=False)}),
        ("offload={pin_memory:false}", {"offload": OffloadConfig(mode="all", pin_memory=False)}),
        ("compute={compile:true}", {"compute": ComputeConfig(device="cuda", compile=True)}),
        ("cache=dbcache cache={max_warmup_steps:2}", {"cache": DBCacheConfig(max_warmup_steps=2)}),
    ],
)
def test_it_is_the_references_setting_with_what_is_named_changed(text: str, changes: dict[str, Any]) -> None:
    assert of_reference(text).trial_id == replace(REFERENCE, **changes).trial_id


def test_the_order_of_its_overrides_changes_nothing() -> None:
    assert of_reference("cache=dbcache compute=compiled") == of_reference("compute=compiled cache=dbcache")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("pipeline=zimage", "pipeline=zimage: a baseline is the same work done in another way"),
        ("measure.budget_s=1", "sets choices and values of parallel, offload, cache and compute alone"),
        ("~cache", "sets choices and values of parallel, offload, cache and compute alone"),
        ("cache=dbcache cache.grid.max_warmup_steps=1", "cache.grid.max_warmup_steps=1: a baseline is"),
        ("cache=dbcache cache={grid:{max_warmup_steps:1}}", "cache={grid:{max_warmup_steps:1}}: a baseline is"),
        ("compute.device=cpu", "runs on the device of the trials"),
        ("compute={device:cpu,compile:true}", "runs on the device of the trials"),
        ("offload={}", "offload={}: an empty dict is merged into what is there and changes nothing"),
        ("cache=dbcache,scm", "cache=dbcache,scm: there is one baseline; give one value"),
        ("cache=dbcache cache.max_warmup_steps=range(1,3)", "there is one baseline"),
        ("compute.foo=1", "compute.foo=1: unknown key; compute=eager has: device, dtype"),
        ("cache.max_warmup_steps=1", "cache=none has no such key; these have: cache=dbcache"),
        ("compute=nope", "compute=nope: no such choice; there are: compiled, eager"),
        ("compute.dtype=half", "compute.dtype=half: must be one of auto"),
        ("compute='compiled", "No closing quotation; give Hydra overrides, such as sweep.baseline='compute=compiled"),
        ("compiled", "give Hydra overrides, such as sweep.baseline='compute=compiled"),
        ("  ", "names no setting; such as sweep.baseline='compute=compiled"),
    ],
)
def test_what_cannot_be_a_baseline_is_named_with_the_way_out(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"sweep.baseline={text!r}: ")) as told:
        of_reference(text)
    assert says in str(told.value) and "\n" not in str(told.value)


def test_a_setting_that_cannot_work_is_named_before_anything_runs() -> None:
    with pytest.raises(ConfigError) as told:
        plan("cache=dbcache", "sweep.baseline='offload=sequential'", "pipeline.steps=4,8")
    begins = "sweep.baseline='offload=sequential': cannot work for zimage_tiny 256×256, 4 steps: offload.mode=seq"
    assert str(told.value).startswith(begins)


@pytest.mark.parametrize(
    ("named", "reference", "baseline"),
    [
        ("compute=compiled", "group", "none"),  # none that compiles fits, and the table says so
        ("compute=compiled offload.mode=all", "group", "all"),
        ("compute.compile=true", "group", "none"),
        ("cache=dbcache", "group", "group"),
        ("offload={pin_memory:false,use_stream:false}", "group", "group"),
        ("offload=none", "group", "none"),
    ],
)
def test_a_projected_baseline_has_the_offload_that_it_needs_itself_unless_it_names_one(
    named: str, reference: str, baseline: str
) -> None:
    made = planned([*CAPPED, "hardware.vram_limit_gib=6", f"sweep.baseline={named}"], "sweep")
    assert made is not None
    assert role(made, "reference").offload.mode == reference
    assert role(made, "baseline").offload.mode == baseline


def test_a_projected_baseline_that_fits_with_less_offload_than_its_reference_has_less() -> None:
    """A second card takes half of the transformer."""
    made = planned([*CAPPED, "hardware.vram_limit_gib=20", "sweep.baseline=parallel.tp_size=2"], "sweep")
    assert made is not None
    assert (role(made, "reference").offload.mode, role(made, "baseline").offload.mode) == ("text_encoder", "none")


def test_a_projected_baseline_that_names_an_offload_that_cannot_work_is_refused() -> None:
    says = r"cannot work for zimage_turbo 1024×1024, 8 steps on .*: offload\.mode=group swaps weights"
    with pytest.raises(ConfigError, match=says):
        planned([*CAPPED, "sweep.baseline=compute=compiled offload=group"], "sweep")


@pytest.mark.parametrize(
    "typed",
    [
        "sweep.baseline='compute=compiled cache=dbcache'",  # quoted for Hydra as well as for the shell
        'sweep.baseline="compute=compiled cache=dbcache"',
        "sweep.baseline=compute=compiled cache=dbcache",  # what a shell leaves of sweep.baseline='…'
        "++sweep.baseline=compute=compiled cache=dbcache",
        "sweep.baseline='compute=compiled' cache=dbcache",
        "sweep.baseline=compute=\"compiled\" 'cache=dbcache'",
    ],
)
def test_a_baseline_may_be_quoted_for_the_shell_alone(typed: str) -> None:
    made = plan("cache=scm", typed)
    baseline = role(made, "baseline")
    assert baseline.compute.compile and type(baseline.cache) is DBCacheConfig
    assert role(made, "reference").label == "none"


def test_nothing_else_is_free_text() -> None:
    for word in ("cache=dbcache,scm", "sweep.name=a", "sweep.baseline=null", "sweep.baseline=", "sweep.baseline='a'"):
        assert text_override(word) is None


def test_the_baseline_is_one_of_the_trials_and_so_part_of_the_sweeps_name() -> None:
    plain, named = plan("cache=scm"), plan("cache=scm", "sweep.baseline=cache=dbcache")
    assert plain.name != named.name and len(named.trials) == len(plain.trials) + 1
    assert [p.trial.cache.method for p in named.trials[:2]] == ["none", "dbcache"]
    assert type(role(plain, "baseline").cache) is CacheConfig
    asked = ("cache=scm,dbcache", "cache.max_warmup_steps=4", "cache.residual_diff_threshold=0.24")
    assert plan(*asked).name == plan(*asked, "sweep.baseline=cache=dbcache").name, "it was asked for anyway"


def test_the_command_to_go_on_keeps_the_baseline_as_it_was_typed() -> None:
    command = plan("sweep.baseline=compute=compiled").command
    assert command.endswith("'sweep.baseline=compute=compiled'") or command.endswith("sweep.baseline=compute=compiled")


def test_one_run_may_name_its_baseline() -> None:
    made = planned([*SMALL, "cache=dbcache", "sweep.baseline=compute.dtype=bfloat16"], "run")
    assert made is not None
    labels = [_label(placed) for placed in made.trials]
    assert labels == [("none", "reference"), ("none bfloat16", "baseline"), ("F1B0_W4_MC3_R0.24", "")]


def _label(placed: Placed) -> tuple[str, str]:
    return placed.trial.label, "reference" * placed.is_reference + "baseline" * placed.is_baseline
