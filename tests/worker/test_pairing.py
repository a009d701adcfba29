"""Trials that take turns with their uncached one: order, pairing, and what each keeps of a shared window."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factories import complete, trial
from fake_allocator import on_gpu
from fake_nvml import GIB, FakeGpu, FakeNvml
from scripted import ScriptedEngine

from zbench.analysis.speedup import companion_id, neighbours_s
from zbench.config import CacheConfig, DBCacheConfig, MeasureConfig
from zbench.engines import Generation
from zbench.hardware.nvml import Nvml
from zbench.measurement import Measurement
from zbench.probes.watched import Watched
from zbench.record import Record
from zbench.stats import speedup_by_turns
from zbench.trial import Trial
from zbench.worker.gauges import Gauges
from zbench.worker.job import TrialJob
from zbench.worker.measuring import measure_trials
from zbench.worker.rounds import turns_of

UNCACHED_S = 1.0


class Skipping(ScriptedEngine):
    """Says that a call took as long as its threshold, 1 s without one; a call of a list 50 times that, and all from
    some call on half as long again. On a GPU each setting holds and draws its own."""

    def __init__(
        self,
        slow: int | None = None,
        slower_from: int | None = None,
        gpu: FakeGpu | None = None,
        black: Sequence[int] = (),
    ) -> None:
        super().__init__(black=black)
        self._slow, self._slower_from, self._gpu = slow, slower_from, gpu
        self.takes_s = UNCACHED_S
        self.order: list[float] = []

    def configure(self, trial: Trial) -> None:
        cache = trial.cache
        self.takes_s = cache.residual_diff_threshold if isinstance(cache, DBCacheConfig) else UNCACHED_S

    def generate(self, prompt_text: str, seed: int) -> Generation:
        call = len(self.order)
        self.order.append(self.takes_s)
        latency_s = self.takes_s * (1.5 if self._slower_from is not None and call >= self._slower_from else 1.0)
        latency_s *= 50 if call == self._slow else 1
        if self._gpu is not None:
            self._gpu.energy_mj += round(1000 * 100 * self.takes_s)
            self._gpu.compute = {os.getpid(): round(self.takes_s * 10) * GIB}
        made = super().generate(prompt_text, seed)
        return Generation(made.image, made.latents, latency_s, stages_s={}, steps_s=[])

    def watch(self) -> Watched:
        return super().watch() if self._gpu is None else on_gpu()


def with_baseline(
    folder: Path, engine: ScriptedEngine, reference: Path | None = None, **measure: Any
) -> list[Measurement]:
    """Their baseline, which is their reference too, and settings of 0.8 and 0.5 s; one warm-up each. With another
    `reference` they have another baseline too, and the first is their uncached trial alone."""
    wanted = MeasureConfig(**{"max_warmup_rounds": 1, **measure})
    caches = [CacheConfig(), *(DBCacheConfig(residual_diff_threshold=t) for t in (0.8, 0.5))]
    jobs = [
        TrialJob(
            trial(cache),
            wanted,
            folder / str(index),
            reference or (None if index == 0 else folder / "0"),
            lambda event: None,
            lambda: False,
            is_reference=index == 0 and reference is None,
            role="trial" if index or reference else "baseline",
            shares=True,
            is_beside=index == 0,
        )
        for index, cache in enumerate(caches)
    ]
    return measure_trials(engine, jobs, Gauges(Nvml(FakeNvml())), None)


def test_a_baseline_among_them_has_a_record_of_its_own_and_its_images_are_the_others_reference(tmp_path: Path) -> None:
    engine = Skipping()
    baseline, *others = with_baseline(tmp_path, engine, min_rounds=4, max_rounds=4)
    assert engine.order[3:] == [1.0, 0.8, 0.5, 0.5, 0.8, 1.0] * 2, "after one warm-up each"
    assert companion_id(baseline) is None and baseline.noise_floor and baseline.memory.host_peak_rss_bytes
    assert {r.role for r in baseline.window.requests} == {"baseline"} and len(baseline.requests) == 4
    for each in others:
        assert [r for r in each.window.requests if r.role == "baseline"] == baseline.requests
        assert each.quality is not None and companion_id(each) == baseline.trial_id
    assert speedups(others) == pytest.approx([1 / 0.8, 2.0])


def test_an_uncached_trial_that_is_not_their_baseline_is_one_of_them_in_its_record_and_is_judged_as_they_are(
    tmp_path: Path,
) -> None:
    engine, reference = Skipping(), tmp_path / "0"
    with_baseline(tmp_path, engine, min_rounds=2, max_rounds=2)
    engine.order.clear()
    uncached, *others = with_baseline(tmp_path / "other", engine, reference, min_rounds=4, max_rounds=4)
    assert engine.order[3:] == [1.0, 0.8, 0.5, 0.5, 0.8, 1.0] * 2, "after one warm-up each"
    assert {r.role for r in uncached.window.requests} == {"trial"} and companion_id(uncached) is None
    assert uncached.quality is not None and uncached.noise_floor is None
    for each in others:
        beside = [r for r in each.window.requests if r.role == "baseline"]
        assert [replace(r, role="trial") for r in beside] == uncached.requests
        assert companion_id(each) == uncached.trial_id and each.quality is not None
    assert speedups(others) == pytest.approx([1 / 0.8, 2.0])


def test_a_baseline_among_them_warms_up_until_it_has_settled(tmp_path: Path) -> None:
    made = with_baseline(tmp_path, Skipping(), min_rounds=2, max_rounds=2, max_warmup_rounds=6)
    assert len({len(each.warmup_latencies_s) for each in made}) == 1 and len(made[0].warmup_latencies_s) > 2


def test_a_baseline_that_has_enough_has_turns_while_another_has_not(tmp_path: Path) -> None:
    class Unsteady(Skipping):
        """The setting of 0.5 s takes 0.5 and 1.0 s by turns."""

        def generate(self, prompt_text: str, seed: int) -> Generation:
            made = super().generate(prompt_text, seed)
            again = made.latency_s * (2 if self.takes_s == 0.5 and self.order.count(0.5) % 2 else 1)
            return Generation(made.image, made.latents, again, stages_s={}, steps_s=[])

    made = with_baseline(tmp_path, Unsteady(), min_rounds=6, max_rounds=12)
    assert [(len(each.requests), each.window.stop_reason) for each in made] == [
        (12, "interval"),
        (6, "interval"),
        (12, "max_rounds"),
    ]


def test_where_a_baselines_images_are_none_the_others_are_measured_and_have_no_reference(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()  # of an earlier measurement
    baseline, *others = with_baseline(tmp_path, Skipping(black=[3]), min_rounds=4, max_rounds=8, target_rel_ci=10.0)
    assert baseline.window.stop_reason == "invalid_images"
    for each in others:
        assert each.window.stop_reason == "interval" and each.reasons["quality"] == "no_reference"


class Leaking(Skipping):
    """Once a setting that skips steps was configured, images are others, though none skips any more."""

    leaks = False

    def configure(self, trial: Trial) -> None:
        super().configure(trial)
        self.leaks = self.leaks or isinstance(trial.cache, DBCacheConfig)

    def generate(self, prompt_text: str, seed: int) -> Generation:
        made = super().generate(prompt_text, seed)
        return replace(made, image=made.image + self.leaks) if self.leaks else made


@pytest.mark.parametrize(("engine", "doubted"), [(Leaking, True), (Skipping, False)])
@pytest.mark.parametrize("is_reference", [True, False])
def test_one_whose_image_is_another_since_others_had_turns_is_doubted(
    engine: type[ScriptedEngine], doubted: bool, is_reference: bool, tmp_path: Path
) -> None:
    if not is_reference:
        with_baseline(tmp_path, Skipping(), min_rounds=2, max_rounds=2)
    of = tmp_path if is_reference else tmp_path / "other"
    first, *others = with_baseline(of, engine(), None if is_reference else tmp_path / "0", min_rounds=4, max_rounds=4)
    said = "has another image since others had turns: measure.paired=false"
    assert any(said in each for each in first.validity) == doubted
    assert not any(said in each for made in others for each in made.validity)


def paired(folder: Path, engine: ScriptedEngine, gauges: Gauges | None = None, **measure: Any) -> list[Measurement]:
    """Three settings of 0.8, 0.5 and 0.4 s and the uncached trial; one warm-up each."""
    wanted = MeasureConfig(max_warmup_rounds=1, **measure)
    caches = [*(DBCacheConfig(residual_diff_threshold=t) for t in (0.8, 0.5, 0.4)), CacheConfig()]
    jobs = [
        TrialJob(
            trial(cache),
            wanted,
            folder / str(index),
            None,
            lambda event: None,
            lambda: False,
            role="trial" if index < 3 else "baseline",
            shares=True,
            is_beside=index == 3,
            companion=index == 3,
        )
        for index, cache in enumerate(caches)
    ]
    return measure_trials(engine, jobs, gauges or Gauges(Nvml(FakeNvml())), None)


def speedups(made: list[Measurement]) -> list[float]:
    found = [speedup_by_turns(neighbours_s(each)) for each in made]
    return [each.ratio for each in found if each is not None]


def test_the_uncached_trial_has_the_first_turn_and_then_the_last(tmp_path: Path) -> None:
    engine = Skipping()
    made = paired(tmp_path, engine, min_rounds=4, max_rounds=4)
    assert engine.order[4:] == [1.0, 0.8, 0.5, 0.4, 0.4, 0.5, 0.8, 1.0] * 2, "after one warm-up each"
    assert len(made) == 3, "the uncached trial has a record of its own elsewhere"
    for each in made:
        assert [r.role for r in each.window.requests if r.trial_id != each.trial_id] == ["baseline"] * 4
        assert len(each.requests) == 4 and companion_id(each) == trial().trial_id
    assert speedups(made) == pytest.approx([1 / 0.8, 2.0, 2.5])


def test_its_images_are_not_kept(tmp_path: Path) -> None:
    paired(tmp_path, Skipping(), min_rounds=2, max_rounds=2)
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["0", "1", "2"]


@pytest.mark.parametrize("slow", range(4, 4 + 4 * 8))
def test_one_slow_request_anywhere_in_the_window_decides_nothing(slow: int, tmp_path: Path) -> None:
    made = paired(tmp_path, Skipping(slow=slow), min_rounds=8, max_rounds=8)
    assert speedups(made) == pytest.approx([1 / 0.8, 2.0, 2.5], rel=0.05)


@pytest.mark.parametrize("slower_from", range(4, 4 + 4 * 8, 3))
def test_a_machine_that_becomes_slower_moves_no_speed_up(slower_from: int, tmp_path: Path) -> None:
    made = paired(tmp_path, Skipping(slower_from=slower_from), min_rounds=8, max_rounds=8)
    assert speedups(made) == pytest.approx([1 / 0.8, 2.0, 2.5], rel=0.02)


def test_each_has_the_memory_and_energy_of_its_own_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zbench.probes.device.ENERGY_BLOCK_S", 0.0)
    gpu = FakeGpu(energy_mj=0)
    made = paired(tmp_path, Skipping(gpu=gpu), Gauges(Nvml(FakeNvml(gpu))), min_rounds=4, max_rounds=4)
    for each, takes_s in zip(made, (0.8, 0.5, 0.4), strict=True):
        assert each.memory.peak_device_bytes == round(takes_s * 10) * GIB, "the uncached one's 10 GiB are not its own"
        assert each.memory.peak_reserved_bytes == 4 * GIB and (each.memory.host_peak_rss_bytes or 0) > 2**20
        assert each.energy is not None and each.energy.joules == pytest.approx(4 * 100 * takes_s)
        assert (each.energy.requests, each.energy.method) == (4, "counter")
        assert each.telemetry.samples and each.telemetry.power_w_mean == 300


def test_power_is_integrated_over_own_turns_where_there_is_no_counter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zbench.probes.device.ENERGY_BLOCK_S", 0.0)
    gpu = FakeGpu()
    nvml = Nvml(FakeNvml(gpu, without=("nvmlDeviceGetTotalEnergyConsumption",)))
    for each in paired(tmp_path, Skipping(gpu=gpu), Gauges(nvml), min_rounds=2, max_rounds=2):
        assert each.energy is not None and each.energy.method == "integrated power"
        assert 0 < each.energy.joules < 300 * (each.window.wall_s or 0)


def test_turns_too_short_for_the_counter_have_no_energy_and_say_so(tmp_path: Path) -> None:
    gpu = FakeGpu()
    for each in paired(tmp_path, Skipping(gpu=gpu), Gauges(Nvml(FakeNvml(gpu))), min_rounds=2, max_rounds=2):
        assert each.energy is None and each.reasons["energy"] == "block_under_10_s"


def test_a_trial_that_has_enough_has_no_more_turns(tmp_path: Path) -> None:
    class Unsteady(Skipping):
        """The setting of 0.5 s takes 0.5 and 1.0 s by turns."""

        def generate(self, prompt_text: str, seed: int) -> Generation:
            made = super().generate(prompt_text, seed)
            count = self.order.count(0.5)
            again = made.latency_s * (2 if self.takes_s == 0.5 and count % 2 else 1)
            return Generation(made.image, made.latents, again, stages_s={}, steps_s=[])

    made = paired(tmp_path, Unsteady(), min_rounds=6, max_rounds=12)
    assert [(len(each.requests), each.window.stop_reason) for each in made] == [
        (6, "interval"),
        (12, "max_rounds"),
        (6, "interval"),
    ]
    assert len([r for r in made[1].window.requests if r.role == "baseline"]) == 12


@pytest.mark.parametrize(
    ("n_pairs", "least", "rounds_s", "cycles", "rounds"),
    [
        (4, 12, [1.0, 0.4], 1, 1),
        (4, 12, [0.2, 0.4], 1, 2),
        (4, 12, [0.001], 1, 2),
        (4, 24, [0.001], 2, 4),
        (1, 8, [0.001, None], 2, 2),
        (1, 2, [0.001], 1, 1),
        (2, 6, [None], 1, 1),
    ],
)
def test_short_rounds_have_turns_of_several_and_a_trial_has_four_turns(
    n_pairs: int, least: int, rounds_s: list[float | None], cycles: int, rounds: int
) -> None:
    assert turns_of(n_pairs, least, rounds_s) == (cycles, rounds)


@pytest.mark.parametrize(("most", "made"), [(4, 4), (5, 6), (40, 6)])
def test_each_image_is_made_three_times_where_there_is_room(most: int, made: int, tmp_path: Path) -> None:
    found = paired(tmp_path, Skipping(), min_rounds=2, max_rounds=most)
    assert [len(each.requests) for each in found] == [made] * 3


def test_a_record_with_its_neighbours_is_read_back_as_it_was(tmp_path: Path) -> None:
    made, *_ = paired(tmp_path, Skipping(), min_rounds=2, max_rounds=2)
    of = trial(DBCacheConfig(residual_diff_threshold=0.8))
    written = replace(complete(of), measurement=made, source=made.source)
    read = Record.from_json(written.to_json())
    assert of.trial_id == made.trial_id
    assert read.measurement is not None and neighbours_s(read.measurement) == neighbours_s(made)


class Jittering(Skipping):
    """Each call of a cached setting takes up to `by` more or less, in turns of five."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self._by = by

    def generate(self, prompt_text: str, seed: int) -> Generation:
        made = super().generate(prompt_text, seed)
        moved = 1.0 if self.takes_s == UNCACHED_S else 1 + self._by * (len(self.order) // 4 % 5 - 2) / 2
        return Generation(made.image, made.latents, made.latency_s * moved, stages_s={}, steps_s=[])


@pytest.mark.parametrize(
    ("by", "rounds", "why"), [(0.005, 8, "interval"), (0.035, 16, "interval"), (0.3, 24, "max_rounds")]
)
def test_rounds_go_on_until_the_speed_up_is_known_too(by: float, rounds: int, why: str, tmp_path: Path) -> None:
    made = paired(tmp_path, Jittering(by), min_rounds=8, max_rounds=24, target_rel_ci=10.0, budget_s=1000.0)
    assert {each.window.stop_reason for each in made} == {why}
    counts = [len(each.requests) for each in made]
    assert all(count == rounds for count in counts) if why == "max_rounds" or rounds == 8 else min(counts) > 8
    if why == "interval":
        for each in made:
            speedup = speedup_by_turns(neighbours_s(each))
            assert speedup is not None and speedup.interval is not None
            assert speedup.interval[1] / speedup.ratio <= 1.0152
