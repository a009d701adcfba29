"""Claims about `zbench.zimage.hub_cache`: a snapshot counts if it is whole, and one in place of main's says so."""

from __future__ import annotations

import shutil
from pathlib import Path

from zbench.zimage.hub_cache import find_in_hf_cache
from zbench.zimage.layout import Checkpoint, preset_folder

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


def lay_out(cache: Path, revision: str = "abc") -> Path:
    """As huggingface_hub does: links into a folder of blobs, and a branch that names the snapshot. Returns the repo."""
    repo = cache / "models--Tongyi-MAI--Z-Image-Turbo"
    (repo / "blobs").mkdir(parents=True, exist_ok=True)
    (repo / "refs").mkdir(exist_ok=True)
    (repo / "refs" / "main").write_text(revision)
    tiny = preset_folder("zimage_tiny")
    for path in (path for path in tiny.rglob("*") if path.is_file()):
        name = path.relative_to(tiny)
        blob = repo / "blobs" / f"{revision}-{str(name).replace('/', '-')}"
        shutil.copy(path, blob)
        link = repo / "snapshots" / revision / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    return repo


TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"


def test_a_missing_blob_names_file_and_snapshot(tmp_path: Path) -> None:
    repo = lay_out(tmp_path)
    link = repo / "snapshots" / "abc" / TRANSFORMER
    blob = link.resolve()
    blob.rename(blob.with_name("abc.incomplete"))
    cached = find_in_hf_cache(REPO, tmp_path)
    assert cached.whole is None and cached.problem is not None and "\n" not in cached.problem
    for words in (
        "snapshot abc is incomplete",
        str(link),
        "which is not there",
        "unfinished downloads: abc.incomplete",
    ):
        assert words in cached.problem


def test_a_snapshot_in_place_of_mains_says_so_and_why(tmp_path: Path) -> None:
    older = add_snapshot(tmp_path, "def")
    repo = lay_out(tmp_path)
    whole = find_in_hf_cache(REPO, tmp_path).whole
    assert whole is not None and (whole.folder.name, whole.in_place_of) == ("abc", None)
    (repo / "snapshots" / "abc" / TRANSFORMER).unlink()
    whole = find_in_hf_cache(REPO, tmp_path).whole
    assert whole is not None and whole.folder == older and whole.in_place_of is not None
    assert whole.in_place_of.startswith(f"snapshot def of {REPO} is used, for snapshot abc is incomplete: ")
    assert TRANSFORMER in whole.in_place_of
    shutil.rmtree(repo / "snapshots" / "abc")
    whole = find_in_hf_cache(REPO, tmp_path).whole
    assert whole is not None and "snapshot abc, which main names, is not there" in str(whole.in_place_of)


def test_a_snapshot_may_lack_what_a_file_takes_the_place_of(tmp_path: Path) -> None:
    repo = lay_out(tmp_path)
    (repo / "snapshots" / "abc" / TRANSFORMER).unlink()
    needs = Checkpoint(tmp_path, transformer=preset_folder("zimage_tiny") / TRANSFORMER)
    assert find_in_hf_cache(REPO, tmp_path, needs).whole is not None


def test_one_of_two_snapshots_without_a_main_says_so(tmp_path: Path) -> None:
    """Alone it is the only one that can be meant; a file among the snapshots is none."""
    add_snapshot(tmp_path, "abc")
    (tmp_path / "models--Tongyi-MAI--Z-Image-Turbo" / "snapshots" / ".DS_Store").write_bytes(b"\0")
    alone = find_in_hf_cache(REPO, tmp_path)
    assert alone.whole is not None and alone.whole.in_place_of is None
    add_snapshot(tmp_path, "def")
    either = find_in_hf_cache(REPO, tmp_path).whole
    assert either is not None and f"snapshot {either.folder.name} of {REPO} is used" in str(either.in_place_of)
    assert "nothing says which of 2 snapshots is main's" in str(either.in_place_of)
