"""`parallel=all` is every split of the devices, and no trial has more of them than there are."""

import json
from collections import Counter

import pytest
from composing import jobs
from factories import trial

from zbench.cli import main
from zbench.composition import expand
from zbench.config import Config, HardwareConfig, ParallelConfig
from zbench.errors import ConfigError, HardwareError
from zbench.hardware.nvml import Device
from zbench.methods.parallel import ParallelDims
from zbench.sweeper import here
from zbench.sweeper.devices import too_many
from zbench.sweeper.plan import Plan, make_plan

TINY = ("pipeline=zimage_tiny", "workload=single")
FULL = ("pipeline=zimage_turbo", "workload=single", "pipeline.weights=random")


def gpus(number: int) -> tuple[Device, ...]:
    return tuple(Device(i, "NVIDIA H100 80GB HBM3", f"GPU-{i}", 80 * 2**30, "580", 700.0) for i in range(number))


def plan(*overrides: str, devices: tuple[Device, ...] = ()) -> Plan:
    def stand_in() -> Config:
        return jobs("hardware=cpu", "pipeline=zimage_tiny", grids=False).jobs[0].config

    return make_plan(jobs(*overrides), stand_in, devices, command="zbench sweep", prefix="sweep")


def reasons(made: Plan) -> dict[str, str]:
    """By label without the cache's."""
    return {placed.trial.label.partition(" ")[2]: reason for placed, reason in made.pruned}


def test_all_is_every_split_of_the_devices_and_one_device_is_the_baseline() -> None:
    made = plan(*TINY, "hardware=cpu", "parallel=all", "hardware.num_devices=4")
    assert Counter(ParallelDims.of(p.trial.parallel).devices for p in made.trials) == {1: 1, 2: 5, 4: 14}
    assert made.trials[0].is_baseline and made.trials[0].trial.parallel == ParallelConfig()
    said = reasons(made)
    assert len(said) == 8 and len(set(said.values())) == 3, "one reason rules out many"
    assert "both" not in said["r2 g2 vae:split"] and said["cfg2 vae:split"] == said["cfg2 tp2 vae:split"]


def test_three_devices_are_gathered_or_side_by_side() -> None:
    made = plan(*FULL, "hardware=b300", "parallel=all", "hardware.num_devices=3")
    assert [p.trial.label for p in made.trials] == ["none", "none g3 vae:split", "none dp3"]
    said = reasons(made)
    assert "4,096 image tokens" in said["r3 vae:split"] and "4,096 image tokens" in said["u3 vae:split"]
    assert "10,240 columns" in said["tp3 vae:split"] and "two passes" in said["cfg3 vae:split"]


def test_guidance_on_two_devices_is_there_with_guidance() -> None:
    guided = ("pipeline=zimage", "workload=single", "pipeline.weights=random", "hardware=b300")
    made = plan(*guided, "parallel=all", "hardware.num_devices=2")
    labels = [p.trial.label for p in made.trials]
    assert "none cfg2 vae:split" in labels and "none r2 vae:split" not in labels
    assert "parallel.cfg_size=2 parts them" in reasons(made)["r2 vae:split"]


def test_without_a_number_it_is_what_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan(*TINY, "hardware=cpu", "parallel=all")
    assert [p.trial.parallel for p in made.trials] == [ParallelConfig()] and not made.pruned
    monkeypatch.setattr(here, "present_devices", lambda: list(gpus(2)))
    two = plan(*FULL, "hardware=h100", "parallel=all", devices=gpus(2))
    assert {ParallelDims.of(p.trial.parallel).devices for p in two.trials} == {1, 2}


def test_of_hardware_that_is_not_here_somebody_must_say_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(here, "present_devices", list)
    with pytest.raises(ConfigError, match=r"hardware.num_devices=None: is needed by parallel=all"):
        jobs(*FULL, "hardware=b300", "parallel=all")


def test_a_typed_key_takes_its_place_in_every_split() -> None:
    made = plan(*TINY, "hardware=cpu", "parallel=all", "hardware.num_devices=2", "parallel.vae=whole")
    assert {p.trial.parallel.vae for p in made.trials} == {"whole"} and len(made.trials) == 6
    fixed = plan(*TINY, "hardware=cpu", "parallel=all", "hardware.num_devices=2", "parallel.tp_size=2")
    assert {ParallelDims.of(p.trial.parallel).tp for p in fixed.trials[1:]} == {2}
    assert "4 devices: hardware.num_devices=2 allows no more" in reasons(fixed)["tp2 g2 vae:split"]


def test_the_largest_of_several_numbers_counts_and_each_hardware_has_its_own() -> None:
    both = plan(*TINY, "hardware=cpu", "parallel=all", "hardware.num_devices=1,2")
    assert {ParallelDims.of(p.trial.parallel).devices for p in both.trials} == {1, 2}
    other = jobs(*TINY, "hardware=h100,b300", "parallel=all", "hardware.num_devices=2").jobs
    assert Counter(job.config.hardware.name for job in other) == {"h100": 7, "b300": 7}


def test_one_run_has_no_splits() -> None:
    (only,) = jobs(*TINY, "hardware=cpu", "parallel=all", grids=False).jobs
    assert only.config.parallel == ParallelConfig(grid={"degrees": "auto"})


def test_who_composes_without_looking_for_devices_is_told() -> None:
    with pytest.raises(ConfigError, match=r"parallel.grid=auto: depends on the devices there are"):
        expand(["hardware=cpu", "pipeline=zimage_tiny", "parallel=all"], lambda *_: "cpu")


def test_more_devices_than_are_here_are_an_error_where_they_are_measured_and_named() -> None:
    with pytest.raises(
        HardwareError, match=r"hardware.num_devices=4: of hardware=h100 2 are here .* ask for 2 or fewer"
    ):
        plan(*FULL, "hardware=h100", "parallel=gather", "hardware.num_devices=4", devices=gpus(2))
    made = plan(
        *FULL, "hardware=h100", "parallel=gather", "hardware.num_devices=4", "execution=project", devices=gpus(2)
    )
    assert len(made.trials) == 4 and "8 devices: hardware.num_devices=4" in reasons(made)["g8 vae:split"]


def test_degrees_that_take_more_devices_than_are_here_are_pruned() -> None:
    made = plan(*FULL, "hardware=h100", "parallel=gather", "parallel.gather_size=2,3", devices=gpus(2))
    assert [p.trial.label for p in made.trials] == ["none", "none g2 vae:split"]
    said = "3 devices: of hardware=h100 2 are here; lower a degree, or project with execution=project"
    assert reasons(made) == {"g3 vae:split": said}


def test_a_cpu_has_as_many_ranks_as_are_asked_for_unless_a_number_is_typed() -> None:
    sharded = trial(parallel=ParallelConfig(gather_size=8))
    cpu = HardwareConfig(name="cpu")
    assert too_many([(sharded, cpu)], ())(sharded) is None
    assert "8 devices" in (too_many([(sharded, HardwareConfig(name="cpu", num_devices=4))], ())(sharded) or "")
    twice = [(sharded, HardwareConfig(name="cpu", num_devices=n)) for n in (2, 8)]
    assert too_many(twice, ())(sharded) is None


def test_choices_of_conf_offer_what_works() -> None:
    made = plan(*FULL, "hardware=b300", "parallel=single,tp,ulysses,ring,gather,dp")
    assert not made.pruned and len(made.trials) == 16


def test_plan_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *TINY, "hardware=cpu", "parallel=all", "hardware.num_devices=4", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)["trials"]
    assert len(rows) == 28 and all(row["expected_latency_s"] for row in rows if row["reason"] is None)
