"""One checksum for all weights: it follows names and bytes, and no file is read twice."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from zbench.zimage import checksum
from zbench.zimage.checksum import weights_sha256


@pytest.fixture
def files(tmp_path: Path) -> dict[str, list[Path]]:
    made = {"vae": [tmp_path / "a.safetensors"], "transformer": [tmp_path / "b-1.safetensors", tmp_path / "b-2"]}
    for number, path in enumerate(path for paths in made.values() for path in paths):
        path.write_bytes(bytes([number]) * 1000)
    return made


def test_it_is_what_the_documentation_says(files: dict[str, list[Path]]) -> None:
    lines = sorted(
        f"{component}/{path.name}  {hashlib.sha256(path.read_bytes()).hexdigest()}\n"
        for component, paths in files.items()
        for path in paths
    )
    assert lines[0].startswith("transformer/b-1.safetensors  ")
    assert weights_sha256(files) == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert weights_sha256({}) is None and weights_sha256({"vae": []}) is None


def test_equal_bytes_elsewhere_have_the_same_and_a_changed_byte_another(
    files: dict[str, list[Path]], tmp_path: Path
) -> None:
    before = weights_sha256(files)
    (tmp_path / "copy").mkdir()
    copies = {
        c: [Path(p.rename(tmp_path / "copy" / p.name)) for p in reversed(paths)] for c, paths in reversed(files.items())
    }
    assert weights_sha256(copies) == before
    path = copies["vae"][0]
    path.write_bytes(path.read_bytes()[:-1] + b"x")  # of the same size
    os.utime(path, ns=(1, 1))
    assert weights_sha256(copies) != before


def test_a_file_is_read_once_in_a_process_and_counts_each_time(
    files: dict[str, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = weights_sha256(files)
    monkeypatch.setattr(checksum.hashlib, "sha256", _Forbidden(hashlib.sha256))
    told: list[int] = []
    assert weights_sha256(files, told.append) == first
    assert told[-1] == 3000


class _Forbidden:
    """sha256 that may be asked for one digest, that of all lines."""

    def __init__(self, real: object) -> None:
        self._real = real

    def __call__(self, *data: bytes) -> object:
        assert data, "a file is read again"
        return self._real(*data)  # type: ignore[operator]


def test_progress_grows_to_the_last_byte(files: dict[str, list[Path]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checksum, "POLL_S", 0.0)
    monkeypatch.setattr(checksum, "CHUNK_BYTES", 1)
    told: list[int] = []
    weights_sha256(files, told.append)
    assert told == sorted(told) and told[-1] == 3000


def test_a_file_that_is_gone_is_an_error(files: dict[str, list[Path]]) -> None:
    files["vae"][0].unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.safetensors"):
        weights_sha256(files)
