"""Ceilings are kept a file a device, found again by the same device, and a broken file is named."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from ceilings import CEILINGS

from zbench.environment import DeviceInfo, capture
from zbench.errors import RecordError, StoreError
from zbench.hardware import detect
from zbench.hardware.ceilings import ceilings_path, device_name, store_ceilings, stored_ceilings

H100 = DeviceInfo("NVIDIA H100 80GB HBM3", 80 * 2**30, "580.65")


CARRIED = {key: value for key, value in CEILINGS.items() if key != "samples_s"}
"""Samples stay in the file."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZBENCH_CEILINGS_DIR", str(tmp_path / "ceilings"))
    return tmp_path / "ceilings"


def test_what_was_stored_is_found_by_its_own_device_alone(folder: Path) -> None:
    assert stored_ceilings([H100]) is None
    assert store_ceilings(CEILINGS) == folder / "nvidia-h100-80gb-hbm3.json"
    assert stored_ceilings([H100, replace(H100, name="NVIDIA L4")]) == CARRIED
    assert stored_ceilings([replace(H100, name="NVIDIA L4")]) is None
    assert stored_ceilings([]) is None
    assert [path.name for path in folder.iterdir()] == ["nvidia-h100-80gb-hbm3.json"]  # no half file is left


def test_a_cpu_of_fewer_cores_is_another_device() -> None:
    assert device_name([]).endswith(" cores")


def test_without_a_folder_of_ones_own_it_is_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ZBENCH_CEILINGS_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert ceilings_path("a B/c") == tmp_path / "zbench" / "ceilings" / "a-b-c.json"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the specification has it ignored
    assert ceilings_path("a") == Path.home() / ".cache" / "zbench" / "ceilings" / "a.json"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("[]", "no figures"),
        (json.dumps({**CEILINGS, "schema_version": 9}), "schema_version is 9"),
        (json.dumps({**CEILINGS, "kind": "abacus"}), "whose ceilings"),
        (json.dumps({**CEILINGS, "figures": {"copy_gb_s": -1}}), "copy_gb_s=-1"),
        (json.dumps({**CEILINGS, "figures": {"copy_gb_s": float("nan")}}), "NaN is not allowed"),
        (json.dumps({**CEILINGS, "figures": {"copy_gb_s": "fast"}}), "copy_gb_s='fast'"),
    ],
)
def test_a_broken_file_is_one_line_that_names_it(text: str, says: str) -> None:
    path = store_ceilings(CEILINGS)
    path.write_text(text)
    with pytest.raises(RecordError) as caught:
        stored_ceilings([H100])
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and says in message and "zbench doctor --measure" in message
    assert "\n" not in message


def test_a_folder_that_cannot_be_made_is_named(folder: Path) -> None:
    folder.write_text("a file")
    with pytest.raises(StoreError, match="ZBENCH_CEILINGS_DIR"):
        store_ceilings(CEILINGS)


def test_the_captured_environment_carries_them_without_being_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "present_devices", lambda: [H100])
    assert detect.present_environment().ceilings is None
    store_ceilings(CEILINGS)
    here = detect.present_environment()
    assert here.to_dict()["ceilings"] == CARRIED
    assert here.fingerprint == capture([H100]).fingerprint


def test_reading_them_needs_no_torch() -> None:
    code = (
        "import sys, zbench.hardware.ceiling_bench; from zbench.hardware.detect import present_environment;"
        "present_environment(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
