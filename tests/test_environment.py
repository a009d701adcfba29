"""The environment says where a measurement was made, and two of them say what differs."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from zbench import environment
from zbench.environment import (
    DeviceInfo,
    capture,
    clock_policy,
    differences,
    fingerprint,
    installed_version,
    source_revision,
)

H100 = DeviceInfo("NVIDIA H100 80GB HBM3", 80 * 2**30, "580.95")


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with a tracked package, a tracked config and a tracked README."""
    for name in ("zbench/__init__.py", "conf/config.yaml", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("first\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path


def test_it_is_json_and_complete_on_this_machine() -> None:
    here = capture()
    written = json.loads(json.dumps(here.to_dict(), allow_nan=False))
    assert written["cores"] >= 1
    assert written["host_memory_bytes"] > 2**28
    assert written["cpu"] and written["os"] and written["python"]
    assert set(written["versions"]) == {"torch", "diffusers", "transformers", "cache-dit", "zbench"}
    assert written["versions"]["zbench"]


def test_it_does_not_import_torch() -> None:
    """The parent process never does; the version comes from installed metadata."""
    code = "import sys; from zbench.environment import capture; capture(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_is_not_installed_has_no_version() -> None:
    assert installed_version("no-such-distribution-as-this") is None


def test_devices_and_their_driver_are_kept() -> None:
    here = capture([H100])
    assert here.devices == (H100,)
    assert here.driver == "580.95"


def test_the_clock_policy_is_the_governor_and_the_power_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    governor = tmp_path / "scaling_governor"
    monkeypatch.setattr(environment, "GOVERNOR", governor)
    assert clock_policy() is None and clock_policy([H100]) is None
    governor.write_text("performance\n")
    limited = replace(H100, power_limit_w=700.0)
    assert clock_policy([limited, limited]) == "governor performance, power limit 700 W"


def test_the_fingerprint_is_stable_and_survives_a_record() -> None:
    """A record's environment is plain JSON; its fingerprint can be computed again from it."""
    here = capture([H100])
    written = json.loads(json.dumps(here.to_dict()))
    assert here.fingerprint == capture([H100]).fingerprint == fingerprint(written)
    assert len(here.fingerprint) == 12


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"versions": {"torch": "2.12.0"}}, "torch 2.12.0 → 2.13.0"),
        ({"driver": "570.1"}, "driver 570.1 → 580.95"),
        ({"devices": (replace(H100, name="NVIDIA H200"),)}, "device NVIDIA H200 → NVIDIA H100 80GB HBM3"),
        ({"clock_policy": "power limit 500 W"}, "clock policy power limit 500 W → power limit 700 W"),
        ({"git_revision": "a" * 40}, "git revision aaaaaaaaaa → bbbbbbbbbb"),
        ({"git_changes": "0123456789ab"}, "uncommitted changes 0123456789ab → none"),
    ],
)
def test_what_differs_is_said_and_changes_the_fingerprint(changed: dict[str, object], said: str) -> None:
    now = replace(capture([H100]), git_revision="b" * 40, git_changes=None, clock_policy="power limit 700 W")
    now = replace(now, versions={**now.versions, "torch": "2.13.0"})
    if "versions" in changed:
        changed = {"versions": {**now.versions, **changed["versions"]}}
    before = replace(now, **changed)
    assert differences(before.to_dict(), now.to_dict()) == [said]
    assert fingerprint(before.to_dict()) != fingerprint(now.to_dict())


def test_equal_environments_differ_in_nothing() -> None:
    assert differences(capture().to_dict(), capture().to_dict()) == []


def test_without_a_gpu_the_device_is_the_cpu() -> None:
    here = capture()
    other = replace(here, cpu="Another CPU")
    assert "Another CPU" in differences(here.to_dict(), other.to_dict())[0]


def test_what_does_not_change_a_measurement_does_not_change_the_fingerprint() -> None:
    here = capture([H100])
    assert fingerprint(replace(here, os="Another OS", host_memory_bytes=1).to_dict()) == here.fingerprint


def test_a_checkout_has_its_commit_and_is_clean(checkout: Path) -> None:
    assert source_revision(checkout / "zbench") == (git(checkout, "rev-parse", "HEAD"), None)


@pytest.mark.parametrize(
    ("file", "dirty"), [("zbench/__init__.py", True), ("conf/config.yaml", True), ("README.md", False)]
)
def test_dirty_means_changes_to_what_runs(checkout: Path, file: str, dirty: bool) -> None:
    (checkout / file).write_text("second\n")
    assert (source_revision(checkout / "zbench")[1] is not None) == dirty


def test_another_edit_and_a_new_file_are_other_changes(checkout: Path) -> None:
    seen = set()
    for text in ("second\n", "third\n"):
        (checkout / "zbench" / "__init__.py").write_text(text)
        seen.add(source_revision(checkout / "zbench")[1])
    (checkout / "zbench" / "new.py").write_text("")
    seen.add(source_revision(checkout / "zbench")[1])
    assert len(seen) == 3


def test_an_installed_wheel_inside_somebody_elses_repository_has_no_revision(checkout: Path) -> None:
    installed = checkout / ".venv" / "site-packages" / "zbench"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert source_revision(installed) == (None, None)


def test_outside_any_repository_there_is_no_revision(tmp_path: Path) -> None:
    assert source_revision(tmp_path / "zbench") == (None, None)


def test_a_git_hooks_variables_do_not_lead_astray(checkout: Path, tmp_path_factory, monkeypatch) -> None:
    """Inside a hook GIT_DIR names the hook's repository, and git would answer for that one."""
    other = tmp_path_factory.mktemp("other")
    git(other, "init", "-q")
    revision = git(checkout, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert source_revision(checkout / "zbench")[0] == revision


def test_without_git_there_is_no_revision(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert source_revision(checkout / "zbench") == (None, None)
