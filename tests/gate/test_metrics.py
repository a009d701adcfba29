"""The grammar of metrics, and that each reads what its name says."""

import pytest
from factories import complete, trial

from zbench.config import DBCacheConfig
from zbench.errors import ConfigError
from zbench.gate.metrics import FIGURES, parse_metric
from zbench.measurement import Measurement


def measurement(**changes: object) -> Measurement:
    made = complete(trial(DBCacheConfig()), **changes).measurement  # type: ignore[arg-type]
    assert made is not None
    return made


@pytest.mark.parametrize(
    "text", ["latency.median:3%", "memory.peak_device:2%", "quality.ssim:-0.01", "quality.lpips:0.1"]
)
def test_a_metric_reads_as_it_is_written(text: str) -> None:
    assert str(parse_metric(text)) == text


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("latency.median", "NAME:LIMIT"),
        ("latency.median:", "NAME:LIMIT"),
        ("latency.median:fast", "NAME:LIMIT"),
        ("latency.median:0%", "NAME:LIMIT"),
        ("latency:3%", "there are: latency.median"),
        ("quality.ssim:0.01", "worse is less, so its limit is -0.01"),
        ("quality.lpips:-0.1", "worse is more"),
        ("latency.median:-3%", "above 0"),
    ],
)
def test_what_is_no_metric_is_refused_with_the_way_out(text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=f"--metric={text}.*{named}"):
        parse_metric(text)


def test_times_are_samples_and_the_rest_are_values() -> None:
    made = measurement(latency_s=0.5, ssim=0.9)
    latency = parse_metric("latency.median:3%")
    assert latency.timed and len(latency.samples(made)) == len(made.rounds)
    decode = parse_metric("stages.decode.median:5%").samples(made)
    assert [s for _, s in decode] == [r.stages_s["decode"] for r in made.rounds]
    # the worst image has an SSIM of 0.9, the next 0.01 more
    assert parse_metric("quality.ssim:-0.01").value(made) == pytest.approx(0.905)
    assert parse_metric("quality.ssim.worst:-0.01").value(made) == pytest.approx(0.9)
    assert parse_metric("memory.host_peak_rss:2%").value(made) == made.memory.host_peak_rss_bytes


def test_what_a_record_lacks_has_no_value() -> None:
    made = measurement()
    assert parse_metric("memory.peak_device:2%").value(made) is None
    assert parse_metric("quality.lpips:0.1").value(made) is None


def test_every_metric_can_be_read() -> None:
    made = measurement(ssim=0.9)
    for name, figure in FIGURES.items():
        metric = parse_metric(f"{name}:3%")
        assert metric.timed == (figure.read is None)
        metric.samples(made) if metric.timed else metric.value(made)
