"""One checksum for all weights and one for all else: they follow names and bytes, and nothing that decides nothing."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from zbench.zimage import digests
from zbench.zimage.checksum import Content, content_of, weights_sha256
from zbench.zimage.layout import Checkpoint, preset_folder


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


def test_what_was_read_before_counts_as_done(files: dict[str, list[Path]], monkeypatch: pytest.MonkeyPatch) -> None:
    first = weights_sha256(files)
    monkeypatch.setattr(digests, "_read", None)  # and is not read again
    told: list[int] = []
    assert weights_sha256(files, told.append) == first
    assert told == [3000]


def test_progress_grows_to_the_last_byte(files: dict[str, list[Path]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "POLL_S", 0.0)
    monkeypatch.setattr(digests, "CHUNK_BYTES", 1)
    told: list[int] = []
    weights_sha256(files, told.append)
    assert told == sorted(told) and told[-1] == 3000


def test_a_file_that_is_gone_is_an_error(files: dict[str, list[Path]]) -> None:
    files["vae"][0].unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.safetensors"):
        weights_sha256(files)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(preset_folder("zimage_tiny"), tmp_path_factory.mktemp("tiny") / "folder"))


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "folder"))


def content(folder: Path, vae: Path | None = None) -> Content:
    return content_of(Checkpoint(folder, vae=vae))


def test_a_copy_elsewhere_has_the_same_content(tiny: Path, folder: Path) -> None:
    whole = content(folder)
    assert whole == content(tiny) and None not in whole[:2]
    assert content_of(Checkpoint(folder, "random")) == (None, whole.configs_sha256, None), (
        "the same files decide what random ones make"
    )


@pytest.mark.parametrize(
    "name",
    [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "transformer/config.json",
        "text_encoder/config.json",
        "vae/config.json",
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
        "tokenizer/chat_template.jinja",
    ],
)
def test_every_file_that_decides_what_is_made_counts(name: str, folder: Path) -> None:
    before = content(folder)
    (folder / name).write_text((folder / name).read_text() + " ")
    after = content(folder)
    assert after.configs_sha256 != before.configs_sha256 and after.weights_sha256 == before.weights_sha256


@pytest.mark.parametrize("name", ["merges.txt", "added_tokens.json", "additional_chat_templates/tool.jinja"])
def test_a_tokenizer_file_that_is_new_counts(name: str, folder: Path) -> None:
    before = content(folder)
    path = folder / "tokenizer" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("{}")
    assert content(folder).configs_sha256 != before.configs_sha256


@pytest.mark.parametrize(
    "name", ["README.md", "tokenizer/README.md", "assets/image.png", ".gitattributes", "vae/a.bin"]
)
def test_files_that_decide_nothing_do_not_count(name: str, folder: Path) -> None:
    before = content(folder)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("new")
    assert content(folder) == before


def test_another_vae_counts_and_the_one_it_replaces_does_not(folder: Path, tmp_path: Path) -> None:
    vae = Path(shutil.copytree(folder / "vae", tmp_path / "vae"))
    before = content(folder, vae)
    assert before == content(folder), "the same VAE"
    (folder / "vae" / "config.json").write_text("{}")
    assert content(folder, vae) == before
    (vae / "config.json").write_text("{}")
    assert content(folder, vae).configs_sha256 != before.configs_sha256


def test_random_weights_count_the_tokenizer_that_stands_in() -> None:
    """The presets without weights have none of their own."""
    turbo, base = (content_of(Checkpoint(preset_folder(name), "random")) for name in ("zimage_turbo", "zimage"))
    assert turbo.weights_sha256 is None and turbo.configs_sha256 != base.configs_sha256


def test_replaced_weights_are_other_weights_and_the_same_configs(folder: Path) -> None:
    before = content(folder)
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    after = content(folder)
    assert after.weights_sha256 != before.weights_sha256 and after.configs_sha256 == before.configs_sha256
