"""The grammar of limits."""

import pytest

from zbench.analysis.metrics import GATED
from zbench.errors import ConfigError
from zbench.gate.limits import parse_limit


@pytest.mark.parametrize(
    "text", ["latency.median:3%", "memory.peak_device:2%", "quality.ssim:-0.01", "quality.lpips:0.1"]
)
def test_a_metric_reads_as_it_is_written(text: str) -> None:
    assert str(parse_limit(text)) == text


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("latency.median", "NAME:LIMIT"),
        ("latency.median:", "NAME:LIMIT"),
        ("latency.median:fast", "NAME:LIMIT"),
        ("latency.median:0%", "NAME:LIMIT"),
        ("latency.median:٣%", "NAME:LIMIT"),
        ("latencies:3%", "there are: latency.median"),
        ("quality.ssim:0.01", "worse is less, so its limit is -0.01"),
        ("quality.lpips:-0.1", "worse is more"),
        ("latency.median:-3%", "above 0"),
    ],
)
def test_what_is_no_metric_is_refused_with_the_way_out(text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=f"--metric={text}.*{named}"):
        parse_limit(text)


def test_every_metric_that_is_judged_can_be_named() -> None:
    for name, metric in GATED.items():
        assert parse_limit(f"{name}:3%").metric is metric
        ways = [metric.samples is not None, metric.exact, metric.once]
        assert ways.count(True) == 1, "an interval from samples, a figure without chance, or one sample a run"


@pytest.mark.parametrize(
    ("typed", "metric"), [("prompt_fidelity:-0.1", "quality.prompt"), ("energy:5%", "energy.per_image")]
)
def test_a_metric_is_known_by_the_name_that_people_type(typed: str, metric: str) -> None:
    assert parse_limit(typed).metric.name == metric
