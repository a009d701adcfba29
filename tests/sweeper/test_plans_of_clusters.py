"""A plan for other machines asks which devices they have, and refuses nothing for those of this one."""

from dataclasses import replace
from functools import partial

import pytest
from composing import jobs

from zbench.composition import expand
from zbench.config import Config, ExecutorConfig, RayExecutorConfig, SlurmExecutorConfig
from zbench.errors import ConfigError, HardwareError, OverrideError, WeightsUnavailableError
from zbench.hardware.nvml import Device
from zbench.report.tables.plan import render_plan
from zbench.sweeper.conduct import check_weights_of
from zbench.sweeper.devices import landed_elsewhere
from zbench.sweeper.expectation import expected_sweep_s, turns_share
from zbench.sweeper.here import auto_resolver, chosen_executor, fill_grid
from zbench.sweeper.plan import Plan, make_plan

FULL = ("pipeline=zimage_turbo", "workload=single", "pipeline.weights=random")
H100 = "NVIDIA H100 80GB HBM3"


def gpus(number: int, name: str = H100) -> list[Device]:
    return [Device(i, name, None, None, None) for i in range(number)]


def plan(*overrides: str, devices: list[Device] | None, at_once: int = 1) -> Plan:
    def stand_in() -> Config:
        return jobs("hardware=cpu", "pipeline=zimage_tiny", grids=False).jobs[0].config

    filled = partial(fill_grid, devices=lambda: devices)
    made = expand(list(overrides), auto_resolver(None, lambda: devices), fill_grid=filled)
    return replace(make_plan(made, stand_in, devices, command="zbench sweep", prefix="sweep"), at_once=at_once)


def test_auto_is_what_the_cluster_has_most_of_and_it_is_measured() -> None:
    devices = [*gpus(4), *gpus(2, "NVIDIA H200")]
    made = plan(*FULL, "hardware=auto", "parallel=all", devices=devices)
    assert {placed.trial.hardware for placed in made.trials} == {None}
    assert {made.profiles[placed.trial.trial_id].name for placed in made.trials} == {"h100"}
    assert "none g4 vae:split" in {placed.trial.label for placed in made.trials}
    projected = plan(*FULL, "hardware=b300", devices=devices)
    assert {p.trial.hardware.name for p in projected.trials if p.trial.hardware is not None} == {"b300"}


def test_where_nobody_knows_the_devices_whatever_is_named_is_there_in_any_number() -> None:
    made = plan(*FULL, "hardware=h100", "parallel=gather", "parallel.gather_size=8", devices=None)
    assert {placed.trial.hardware for placed in made.trials} == {None} and not made.pruned
    few = plan(
        *FULL, "hardware=h100", "parallel=gather", "parallel.gather_size=2,8", "hardware.num_devices=4", devices=None
    )
    assert ["hardware.num_devices=4 allows no more" in reason for _, reason in few.pruned] == [True]


def test_where_nobody_knows_the_devices_auto_is_a_gpu_of_any_kind_and_the_trials_are_the_same() -> None:
    """So what a job measures is the trial that was planned, whatever it lands on, and the run keeps its name."""
    words = ("workload=single", "pipeline.weights=random", "cache=none,dbcache", "pipeline=auto")
    made, named = (plan(*words, f"hardware={name}", devices=None) for name in ("auto", "h100"))
    assert made.name == named.name
    assert [p.trial.trial_id for p in made.trials] == [p.trial.trial_id for p in named.trials]
    assert {(p.trial.compute.device, p.trial.pipeline.name) for p in made.trials} == {("cuda", "zimage_turbo")}
    assert expected_sweep_s(made) is None, "who knows how fast it is"
    hardware = made.profiles[made.trials[0].trial.trial_id]
    for kind in (H100, "NVIDIA A100-SXM4-80GB", "a GPU that no profile names"):
        there = {"devices": [{"name": kind}]}
        assert landed_elsewhere(made.trials[0].trial, hardware, there) is None


def test_a_gpu_of_any_kind_is_not_projected_and_splits_over_a_number_that_is_typed() -> None:
    with pytest.raises(HardwareError, match="execution=project with hardware=auto: only GPUs that are named"):
        plan(*FULL, "hardware=auto", "execution=project", devices=None)
    with pytest.raises(ConfigError, match=r"hardware.num_devices=None: is needed by parallel=all, as nobody knows"):
        plan(*FULL, "hardware=auto", "parallel=all", devices=None)
    made = plan(*FULL, "hardware=auto", "parallel=all", "hardware.num_devices=4", devices=None)
    assert "none g4 vae:split" in {placed.trial.label for placed in made.trials}


def test_only_words_about_executors_and_experiments_choose_one() -> None:
    assert chosen_executor(["cache=dbcache", "hardware=h100", "+sweep.name=executor"], None) is None
    found = chosen_executor(["cache=dbcache,none", "executor=ray", "executor.address=n1:6379"], None)
    assert found is not None and (found.name, found.concurrent_trials) == ("ray", None)
    assert found.address == "n1:6379"  # type: ignore[attr-defined]
    of_experiment = chosen_executor(["experiment=demo"], None)
    assert of_experiment is not None and of_experiment.name == "local"
    with pytest.raises(OverrideError, match="executor"):
        chosen_executor(["executor=nowhere"], None)


def test_trials_side_by_side_take_less_time_together() -> None:
    words = (*FULL, "hardware=h100", "cache=none", "pipeline.steps=20,40,60")
    one, four = (expected_sweep_s(plan(*words, devices=gpus(4), at_once=n)) for n in (1, 4))
    assert one is not None and four is not None and one > 2 * four


SLURM = SlurmExecutorConfig(name="slurm", target="zbench.executors.slurm:SlurmExecutor", concurrent_trials=4)
RAY = RayExecutorConfig(name="ray", target="zbench.executors.remote.ray:RayExecutor", concurrent_trials=4)


def expected_s(executor: ExecutorConfig, at_once: int, *words: str) -> float:
    made = plan(*FULL, *words, "cache=none", "pipeline.steps=20,40,60", devices=None)
    seconds = expected_sweep_s(replace(made, executor=executor, at_once=at_once))
    assert seconds is not None
    return seconds


def test_a_job_of_slurm_is_one_of_any_size() -> None:
    """Four workers of Ray are four GPUs, which a trial of eight has alone; of four jobs it is one."""
    large = "hardware=h100", "parallel=gather", "parallel.gather_size=8"
    assert expected_s(SLURM, 4, *large) < expected_s(RAY, 4, *large) < expected_s(RAY, 1, *large)


@pytest.mark.parametrize("executor", [SLURM, RAY], ids=lambda executor: executor.name)
def test_trials_on_the_cpus_of_other_machines_run_side_by_side(executor: ExecutorConfig) -> None:
    assert expected_s(executor, 1, "hardware=cpu") > 2 * expected_s(executor, 4, "hardware=cpu")


def test_a_plan_says_how_many_run_at_a_time() -> None:
    made = plan(*FULL, "hardware=h100", devices=gpus(4), at_once=4)
    assert ", 4 at a time; nothing was run" in render_plan(made, "table")


def test_one_gpu_is_one_task_at_a_time_whether_that_was_typed_or_not() -> None:
    """So a baseline begins a block with executor.concurrent_trials=null too, in the plan as in the sweep."""
    settings = "cache=none,dbcache", "cache.max_warmup_steps=2", "cache.residual_diff_threshold=0.1,0.2,0.3"
    made = plan(*FULL[:2], "hardware=h100", *settings, devices=gpus(1))
    local = replace(made, executor=replace(made.executor, concurrent_trials=None))
    assert turns_share(local) == turns_share(made) != turns_share(replace(made, at_once=2))
    assert not replace(made, executor=RAY).begins_blocks(1)


def test_weights_that_are_not_here_are_the_nodes_to_look_for(capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        "pipeline=zimage_turbo",
        "workload=single",
        "hardware=h100",
        "cache=none",
        "pipeline.weights=/nowhere/at/all",
    )
    here = plan(*words, devices=gpus(1))
    with pytest.raises(WeightsUnavailableError, match="/nowhere/at/all"):
        check_weights_of(here, here.trials)
    away = RayExecutorConfig(name="ray", target="zbench.executors.remote.ray:RayExecutor")
    check_weights_of(replace(here, executor=away), here.trials)
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("note: here pipeline.weights=/nowhere/at/all")
    assert said.endswith("the nodes of executor=ray look for it themselves")
