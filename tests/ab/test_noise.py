"""`zbench doctor --noise` over the torch-free engine."""

import json
from pathlib import Path

from commands import SYNTHETIC, zbench


def test_noise_says_how_many_rounds_a_change_needs(tmp_path: Path) -> None:
    done = zbench(tmp_path, "doctor", "--noise", "--format", "json", *SYNTHETIC)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert [need["change"] for need in said["needs"]] == [0.01, 0.02, 0.05]
    rounds = [need["rounds"] or 10**6 for need in said["needs"]]
    assert rounds == sorted(rounds, reverse=True)
    assert len(said["latencies_s"]) == 64 * said["rounds_a_turn"] == 64 * 8 and 0.01 <= said["median_s"] < 0.1
    assert not list(tmp_path.iterdir())


def test_the_table_names_the_changes(tmp_path: Path) -> None:
    done = zbench(tmp_path, "doctor", "--noise", *SYNTHETIC)
    assert done.returncode == 0, done.stderr
    assert "scatters by" in done.stdout and all(f" {change}%" in done.stdout for change in (1, 2, 5))


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    for args, named in (
        (["doctor", "pipeline.steps=3"], "without --noise: pipeline.steps=3"),
        (["doctor", "--noise", *SYNTHETIC, "pipeline.stepz=3"], "pipeline.stepz"),
        (["doctor", "--noise", *SYNTHETIC[:-1], "hardware=b300"], "--noise: hardware=b300 is not here"),
    ):
        done = zbench(tmp_path, *args)
        assert done.returncode == 2 and done.stdout == ""
        assert named in done.stderr and len(done.stderr.strip().splitlines()) == 1
