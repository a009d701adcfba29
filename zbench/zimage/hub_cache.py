"""Pipelines in the local Hugging Face cache: which snapshot is whole, and what those lack that are not. No network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from zbench.zimage.contents import check_complete
from zbench.zimage.layout import Checkpoint, WeightsError
from zbench.zimage.on_disk import some


@dataclass(frozen=True)
class Snapshot:
    """A whole snapshot in the cache."""

    folder: Path
    in_place_of: str | None
    """One line where it is not what `main` names: which one that is, and what it lacks."""


@dataclass(frozen=True)
class CachedRepo:
    """What the cache has of one repository."""

    whole: Snapshot | None
    problem: str | None
    """One line: what the preferred snapshot lacks; None where there is no snapshot at all, or that one is whole."""


def find_in_hf_cache(repo_id: str, cache_dir: Path | None = None, needs: Checkpoint | None = None) -> CachedRepo:
    """The snapshot of the branch `main` if it is whole, else the newest whole one, which says so.

    `cache_dir` defaults to huggingface_hub's own (`HF_HUB_CACHE`). `needs` says what takes the place of a snapshot's
    parts, which it may lack then; its folder does not matter.
    """
    from huggingface_hub import constants, file_download

    root = Path(constants.HF_HUB_CACHE) if cache_dir is None else cache_dir
    repo: Path = root / file_download.repo_folder_name(repo_id=repo_id, repo_type="model")
    there = [path for path in (repo / "snapshots").glob("*") if path.is_dir()]  # a desktop leaves files of its own
    snapshots = sorted(there, key=lambda path: path.lstat().st_mtime, reverse=True)
    reference = repo / "refs" / "main"
    main = reference.read_text(encoding="utf-8", errors="replace").strip() if reference.is_file() else None
    snapshots.sort(key=lambda path: path.name != main)
    needs = Checkpoint(repo) if needs is None else replace(needs, vae=None)  # a VAE is its own key's business
    lacking: str | None = None
    if main is not None and (not snapshots or snapshots[0].name != main):
        lacking = f"snapshot {main}, which main names, is not there" if snapshots else None
    if main is None and len(snapshots) > 1:
        lacking = f"nothing says which of {len(snapshots)} snapshots is main's ({reference} is not there)"
    for snapshot in snapshots:
        try:
            check_complete(replace(needs, folder=snapshot))
        except WeightsError as error:
            lacking = lacking or f"snapshot {snapshot.name} is incomplete: {error}{_unfinished(repo)}"
            continue
        told = None if lacking is None else f"snapshot {snapshot.name} of {repo_id} is used, for {lacking}"
        return CachedRepo(Snapshot(snapshot, told), lacking)
    return CachedRepo(None, lacking)


def _unfinished(repo: Path) -> str:
    partial = sorted(path.name for path in (repo / "blobs").glob("*.incomplete"))
    return f" (unfinished downloads: {some(partial)})" if partial else ""
