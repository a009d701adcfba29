"""When requests come is typed, checked with its kind, and part of a trial; a file of times is read and forgotten."""

from pathlib import Path

import pytest
from composing import jobs
from factories import trial

from zbench.config import WorkloadConfig
from zbench.config.arrivals import OF_KINDS
from zbench.errors import ZbenchError
from zbench.trial import Trial

SMALL = ("pipeline=zimage_tiny", "hardware=cpu", "workload=single")


def workload(*overrides: str) -> WorkloadConfig:
    (job,) = jobs(*SMALL, *overrides).jobs
    return job.config.workload


def refusal(*overrides: str) -> str:
    with pytest.raises(ZbenchError) as raised:
        jobs(*SMALL, *overrides)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_without_load_a_trial_is_what_it_always_was() -> None:
    assert not {"arrivals", *OF_KINDS} & trial().to_dict()["workload"].keys()


def test_a_load_is_part_of_what_a_trial_is_called() -> None:
    (job,) = jobs(*SMALL, "workload.arrivals=poisson", "workload.rate_per_s=2.5", "compute.device=cpu").jobs
    made = Trial.from_config(job.config, projected=False)
    assert made.to_dict()["workload"]["rate_per_s"] == 2.5 and made.label == "none poisson:2.5/s"
    assert Trial.from_dict(made.to_dict()) == made


def test_a_trial_holds_the_times_of_a_file_and_not_where_it_lay(tmp_path: Path) -> None:
    times = tmp_path / "times.txt"
    times.write_text("0\n0.25\n\n1e0\r\n")
    made = workload("workload.arrivals=replay", f"workload.arrivals_file={times}")
    assert (made.arrival_times_s, made.arrivals_file) == ([0.0, 0.25, 1.0], None)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0\nsoon\n", "line 2: 'soon' is no number; write seconds, one a line"),
        ("0\n2\n1\n", "line 3: 1 s comes after 2 s; times must not fall"),
        ("-1\n", "line 1: -1 s; must lie within 0 and"),
        ("nan\n", "line 1: nan s"),
        ("\n", "holds no time"),
    ],
)
def test_a_file_that_holds_no_times_is_named_with_its_line(text: str, told: str, tmp_path: Path) -> None:
    times = tmp_path / "times.txt"
    times.write_text(text)
    said = refusal("workload.arrivals=replay", f"workload.arrivals_file={times}")
    assert told in said and str(times) in said


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    said = refusal("workload.arrivals=replay", f"workload.arrivals_file={tmp_path}/no.txt")
    assert said.startswith("workload.arrivals_file=") and "cannot be read" in said


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (
            ["workload.arrivals=often"],
            "workload.arrivals=often: must be one of sequential, concurrent, poisson, replay",
        ),
        (["workload.rate_per_s=2"], "means nothing with workload.arrivals=sequential; add workload.arrivals=poisson"),
        (["workload.concurrency=1"], "workload.concurrency=1: means nothing with workload.arrivals=sequential"),
        (["workload.warm_up=false"], "workload.warm_up=false: means nothing with workload.arrivals=sequential"),
        (["workload.arrivals=concurrent"], "is needed by workload.arrivals=concurrent"),
        (["workload.arrivals=poisson"], "name a rate, or workload.latency_objective_s="),
        (["workload.arrivals=poisson", "workload.rate_per_s=0"], "workload.rate_per_s=0.0: must be above 0"),
        (["workload.arrivals=replay"], "workload.arrivals_file=null: is needed by workload.arrivals=replay"),
        (
            ["workload.arrivals=replay", "workload.arrival_times_s=[0,2,1]"],
            "workload.arrival_times_s=1.0: comes after 2.0; times must not fall",
        ),
        (
            ["workload.arrivals=replay", "workload.arrival_times_s=[0,2]", "workload.requests=3"],
            "workload.requests=3: there are 2 times",
        ),
    ],
)
def test_what_means_nothing_together_is_refused(overrides: list[str], told: str) -> None:
    assert told in refusal(*overrides)
