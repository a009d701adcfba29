"""The password of a study's database is the search's alone: nothing that is kept or printed has it."""

from pathlib import Path

import pytest

from zbench.cli import main
from zbench.errors import ConfigError
from zbench.hydra_app import planned
from zbench.sanitize import without_password
from zbench.search import load_search

URL = "postgresql://ann:s3cret@nowhere:5432/studies"
SHOWN = "postgresql://ann:***@nowhere:5432/studies"
SMALL = ["hardware=cpu", "pipeline=zimage_tiny", "cache=dbcache", "search=optuna", "search.n_trials=3"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (URL, SHOWN),
        ("search.storage=mysql+pymysql://ann:a/b@c@h/db", "search.storage=mysql+pymysql://ann:***@h/db"),
        ("postgresql://h/db?user=ann&password=s3cret&x=1", "postgresql://h/db?user=ann&password=***&x=1"),
        ("search.storage=ann:s3cret@h", "search.storage=ann:***@h"),
        ("sqlite:////tmp/study.db", "sqlite:////tmp/study.db"),
        ("postgresql://ann@h/db", "postgresql://ann@h/db"),
        (f"{URL}: cannot be used", f"{SHOWN}: cannot be used"),
    ],
)
def test_a_password_is_hidden_however_it_is_written(text: str, shown: str) -> None:
    assert without_password(text) == shown


@pytest.mark.parametrize("typed", [f"search.storage={URL}", f"++search.storage={URL}"])
def test_a_record_keeps_the_command_without_it_and_the_search_has_it(typed: str) -> None:
    made = planned([*SMALL, typed], "sweep")
    assert made is not None and "s3cret" not in made.command and SHOWN in made.command
    assert made.search.storage == URL


def test_a_run_is_the_same_with_another_password_and_with_none() -> None:
    names = {
        made.name
        for more in ([], [f"search.storage={URL}"], [f"search.storage={SHOWN}"])
        if (made := planned([*SMALL, *more], "sweep")) is not None
    }
    assert len(names) == 1


@pytest.mark.parametrize(
    "args",
    [
        [*SMALL[:3], f"search.storage={URL}"],
        [*SMALL, f"search.storages={URL}"],
        [*SMALL, f"search.storage={URL}", f"search.storage={URL}x"],
        [*SMALL, f"search.storage={URL}", "cache=nothing"],
        [*SMALL, f"search.storage={URL}", "--cfg", "job"],
        [*SMALL, f"search.storage={URL}"],
    ],
)
def test_nothing_that_is_printed_has_it(args: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    main(["plan", *args])
    told = "".join(capfd.readouterr())
    assert told and "s3cret" not in told


def test_an_url_that_no_driver_reads_is_named_without_it() -> None:
    made = planned([*SMALL, "search.storage=ann:s3cret@h"], "sweep")
    assert made is not None
    with pytest.raises(ConfigError, match=r"search\.storage=ann:\*\*\*@h: cannot be used") as caught:
        load_search(made.search, made.space).ask()
    assert "s3cret" not in str(caught.value)


def test_it_may_come_from_the_environment_and_only_its_name_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STUDY", URL)
    made = planned([*SMALL, "search.storage=${oc.env:STUDY}"], "sweep")
    assert made is not None and made.search.storage == URL and "${oc.env:STUDY}" in made.command
