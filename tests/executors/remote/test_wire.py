"""What a pool and its nodes say arrives as it was meant, and what is none is one line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from factories import ENVIRONMENT, measurement, trial

from zbench.config import DBCacheConfig, MeasureConfig, ParallelConfig
from zbench.executors import Completed, Disrupted, Done, Failed, Setting, Stopped, Task
from zbench.executors.remote import freight, wire
from zbench.record import Reason


def test_a_task_arrives_whole_with_the_nodes_own_folders(tmp_path: Path) -> None:
    cached, sharded = trial(DBCacheConfig()), trial(parallel=ParallelConfig(ulysses_size=2))
    task = Task(
        (
            Setting(cached, tmp_path / "here", tmp_path / "reference", role="trial", of_other_weights=True),
            Setting(sharded, tmp_path / "there", None, is_reference=True, role="baseline"),
        ),
        MeasureConfig(min_rounds=3, paired=False),
        "process",
        trial(),
    )
    told = json.loads(json.dumps(wire.task_out(task, {tmp_path / "reference": "r1"})))
    found = wire.task_in(told, Path("/a"), Path("/r"))
    assert found == replace(
        task,
        settings=(
            replace(task.settings[0], artifacts=Path("/a/0"), reference=Path("/r/r1")),
            replace(task.settings[1], artifacts=Path("/a/1")),
        ),
    )
    assert [s.trial.trial_id for s in found.settings] == [cached.trial_id, sharded.trial_id]


def test_what_came_of_it_arrives_whole(tmp_path: Path) -> None:
    trials = [trial(DBCacheConfig(residual_diff_threshold=t)) for t in (0.1, 0.2, 0.3, 0.4)]
    reason = Reason("out_of_memory", "no more", ("a", "b"), "denoise", {"allocated": 7}, "vae")
    results = (Completed(measurement(trials[0])), Failed(reason), Stopped(), Disrupted())
    task = Task(tuple(Setting(each, tmp_path) for each in trials), MeasureConfig())
    assert wire.results_in(json.loads(json.dumps(wire.results_out(Done(task, results, None))))) == results


def test_a_message_carries_files_of_any_bytes() -> None:
    files = {"0/a.png": b"\n\x00{}", "0/b.png": b"", "1/c.png": bytes(range(256)) * 300}
    head, found = wire.unpacked(wire.packed({"say": "done", "n": 1}, files))
    assert (head, {name: bytes(data) for name, data in found.items()}) == ({"say": "done", "n": 1}, files)


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"", "not JSON"),
        (b"no json\n", "not JSON"),
        (b"[]\n", "not a message"),
        (b'{"files": []}\n', "not a message"),
        (b'{"say": "done", "files": [["a", 3]]}\nab', "has 3 bytes, and 2 are there"),
        (b'{"say": "done", "files": [["a", -1]]}\nab', "has -1 bytes"),
        (b'{"say": "done", "files": ["a"]}\nab', "no name with a size"),
    ],
)
def test_what_is_no_message_is_refused(message: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        wire.unpacked(message)


@pytest.mark.parametrize("said", [{}, {"unmeasured": "perhaps"}, {"measurement": {}}, {"reason": {"code": 1}}])
def test_a_result_that_no_record_could_hold_is_refused(said: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        wire.results_in([said])


def test_an_environment_that_readers_could_not_read_is_refused() -> None:
    assert wire.environment_in(ENVIRONMENT) == ENVIRONMENT
    for environment in ([], {"cores": "many"}, {"devices": [{}]}):
        with pytest.raises(ValueError, match="environment"):
            wire.environment_in(environment)


def test_images_travel_and_links_do_not(tmp_path: Path) -> None:
    left, put = tmp_path / "left", tmp_path / "put"
    left.mkdir()
    for name in ("a-0.png", "latents.safetensors", "made_by.json", "secret.txt"):
        (left / name).write_bytes(name.encode())
    (left / "b-0.png").symlink_to(left / "secret.txt")
    freight.unloaded(freight.collected(left), put)
    assert {path.name: path.read_bytes().decode() for path in put.iterdir()} == {
        name: name for name in ("a-0.png", "latents.safetensors", "made_by.json")
    }
    assert freight.collected(tmp_path / "nowhere") == {}


def test_a_folder_is_another_one_for_the_nodes_once_its_images_are_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "reference"
    folder.mkdir()
    (folder / "made_by.json").write_text("{}")
    before = freight.content_key(folder)
    assert freight.content_key(folder) == before
    (folder / "made_by.json").write_text('{"images": []}')
    assert freight.content_key(folder) != before
