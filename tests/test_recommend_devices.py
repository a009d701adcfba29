"""For each number of devices: one image sharded over them for latency, one image on each for throughput."""

import json
from pathlib import Path

import pytest
from several_devices import data_parallel, on, one_device, timed, two_devices

from zbench.analysis.view import view_of
from zbench.cli import main
from zbench.config import ParallelConfig
from zbench.errors import ConfigError, NothingFeasibleError, RecordError
from zbench.recommend import Goal, Limits, NoAnswer, Recommendation, recommend
from zbench.record import Record

U2, TP2 = ParallelConfig(ulysses_size=2), ParallelConfig(tp_size=2)


def advice(records: list[Record], objective: str = "latency", devices: int | None = None, **limits: float):
    return recommend(view_of(records), Limits(**limits), goal=Goal(objective, devices)).answers


def chosen(records: list[Record], objective: str, devices: int, **limits: float) -> Recommendation:
    (only,) = advice(records, objective, devices, **limits)
    return only


def test_latency_shards_one_image():
    made = chosen([one_device(), two_devices(), two_devices(TP2, 0.65), data_parallel()], "latency", 2)
    assert made.chosen.label == "none u2" and made.use.copies == 1 and made.runner_up.label == "none tp2"
    assert "--objective throughput would choose none dp2, 1.961 images/s" in made.notes


def test_throughput_takes_an_image_a_device_as_measured():
    made = chosen([one_device(), two_devices(), data_parallel()], "throughput", 2)
    assert made.chosen.label == "none dp2" and not made.use.is_projection
    assert made.use.images_per_s == pytest.approx(2 / 1.02)
    assert "--objective latency would choose none u2, 0.600 s a request" in made.notes


def test_what_was_not_measured_side_by_side_is_a_projection_and_called_so():
    made = chosen([one_device(), two_devices()], "throughput", 2)
    assert (made.chosen.devices, made.use.copies, made.use.is_projection) == (1, 2, True)
    assert made.use.images_per_s == pytest.approx(2.0)
    assert "2 × 1.000 images/s of one copy; parallel.dp_size=2 has no trusted measurement here" in made.to_text()


def test_a_measured_slow_dp_is_not_projected_over():
    made = chosen([one_device(), two_devices(), data_parallel(1.5)], "throughput", 2)
    assert made.chosen.label == "none u2" and not made.use.is_projection


def test_copies_of_a_sharded_trial_fill_the_devices():
    made = chosen([one_device(), two_devices(U2, 0.45)], "throughput", 4)
    assert (made.chosen.label, made.use.copies) == ("none u2", 2)
    assert made.use.images_per_s == pytest.approx(2 / 0.45)
    assert "no trial to choose from ran on 4 devices" in made.notes


def test_sharding_that_does_not_pay_leaves_devices_idle():
    assert chosen([one_device(), two_devices(U2, 1.2)], "latency", 2).chosen.devices == 1


def test_more_devices_than_asked_for_are_none():
    assert chosen([one_device(), two_devices()], "latency", 1).chosen.devices == 1
    with pytest.raises(RecordError, match="no trial here ran on 1 device or fewer; the fewest are --devices 2"):
        advice([two_devices()], "latency", 1)


def test_without_a_number_each_that_the_records_have_is_answered():
    answers = advice([one_device(), two_devices(), timed(on(ParallelConfig(gather_size=4)), 0.4, {"denoise": 0.2})])
    assert [(a.use.devices, a.chosen.label) for a in answers] == [
        (1, "none"),
        (2, "none u2"),
        (4, "none g4"),
    ]
    assert answers[2].work.endswith(", latency on 4 devices")


def test_limits_still_hold():
    records = [one_device(vram_gib=10.0), two_devices(vram_gib=14.0, ssim=0.9)]
    assert chosen(records, "latency", 2, min_ssim=0.95).chosen.devices == 1
    made = chosen(records, "throughput", 2, min_ssim=0.95)
    assert made.use.is_projection and not made.binding
    with pytest.raises(NothingFeasibleError):
        chosen(records, "latency", 2, max_vram_gib=1.0)


def test_a_number_out_of_range_is_one_line():
    for devices in (0, -1, 5000):
        with pytest.raises(ConfigError, match=f"^--devices={devices}: must be within 1 and 1024$"):
            Goal("latency", devices)


def test_without_an_objective_nothing_changes():
    (only,) = recommend(view_of([one_device(), two_devices()]), Limits()).answers
    assert only.use is None and "use" not in only.to_dict() and not isinstance(only, NoAnswer)


def run_of(folder: Path, *records: Record) -> str:
    folder.mkdir()
    (folder / "records.jsonl").write_text("".join(r.to_json() + "\n" for r in records), encoding="utf-8")
    return str(folder)


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(tmp_path / "run", one_device(), two_devices())
    assert main(["recommend", run, "--objective", "throughput", "--devices", "2", "--format", "json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["use"] == {
        "objective": "throughput",
        "devices": 2,
        "copies": 2,
        "devices_a_copy": 1,
        "images_per_s": pytest.approx(2.0),
        "images_per_s_is_projection": True,
    }
    assert main(["recommend", run, "--devices", "2"]) == 0
    assert "For latency on 2 devices: one copy of it on 2 devices" in capsys.readouterr().out
    assert main(["recommend", run, "--objective", "latency"]) == 0
    assert "latency on 1 device ==" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--objective", "speed"], "--objective: invalid choice: 'speed'"),
        (["--devices", "two"], "--devices: invalid int value: 'two'"),
        (["--devices", "0"], "--devices=0: must be within 1 and 1024"),
    ],
)
def test_bad_goals_are_one_line(arguments, line, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(tmp_path / "run", one_device())
    assert main(["recommend", run, *arguments]) == 2
    err = capsys.readouterr().err.strip()
    assert line in err and "\n" not in err
