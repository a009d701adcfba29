"""Claims about `zbench.zimage.hub_cache`: a snapshot counts if it is whole, and one in place of main's says so."""

from __future__ import annotations

import shutil
from pathlib import Path

from zbench.zimage.hub_cache import find_in_hf_cache
from zbench.zimage.layout import preset_folder

REPO = "Tongyi-MAI/Z-Image-Turbo"


def add_snapshot(cache: Path, revision: str) -> Path:
    """The tiny pipeline under the name a download of `REPO` would have in the hub's cache."""
    target = cache / "models--Tongyi-MAI--Z-Image-Turbo" / "snapshots" / revision
    return Path(shutil.copytree(preset_folder("zimage_tiny"), target))


def found(cache: Path) -> Path | None:
    whole = find_in_hf_cache(REPO, cache).whole
    return None if whole is None else whole.folder


def test_an_empty_cache_has_no_snapshot(tmp_path: Path) -> None:
    assert found(tmp_path) is None


def test_an_unfinished_download_does_not_count(tmp_path: Path) -> None:
    snapshot = add_snapshot(tmp_path, "abc")
    assert found(tmp_path) == snapshot
    (snapshot / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    assert found(tmp_path) is None


def test_the_snapshot_of_main_is_preferred(tmp_path: Path) -> None:
    main, newer = add_snapshot(tmp_path, "abc"), add_snapshot(tmp_path, "def")
    reference = tmp_path / "models--Tongyi-MAI--Z-Image-Turbo" / "refs" / "main"
    reference.parent.mkdir()
    reference.write_text("abc")
    assert found(tmp_path) == main
    shutil.rmtree(main)
    assert found(tmp_path) == newer
