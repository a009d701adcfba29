"""A tokenizer's folder: what transformers would go without, or take for something else, is refused by name."""

from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import TINY, tiny_copy

from zbench.zimage.contents import check_complete
from zbench.zimage.layout import Checkpoint, WeightsError
from zbench.zimage.tokenizer import check_tokenizer

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
WORDS, TEMPLATE = "tokenizer.json", "chat_template.jinja"


def test_the_tiny_pipelines_own_is_whole() -> None:
    check_tokenizer(TINY / "tokenizer")


def _halved(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _lost(path: Path) -> None:
    path.unlink()
    path.symlink_to("../../blobs/abc")


@pytest.mark.parametrize(
    ("name", "damage", "says"),
    [
        (TEMPLATE, lambda path: path.write_text(POINTER), "git-LFS pointer"),  # else a prompt like any other
        (TEMPLATE, lambda path: path.write_text(""), "an empty file"),
        (TEMPLATE, Path.unlink, "missing file, and tokenizer_config.json has no chat_template either"),
        (WORDS, lambda path: path.write_text(POINTER), "git-LFS pointer"),
        (WORDS, Path.unlink, "missing file; there is chat_template.jinja, tokenizer_config.json"),
        (WORDS, _lost, r"a link to \.\./\.\./blobs/abc, which is not there"),
        (WORDS, _halved, "not whole"),
    ],
)
def test_what_is_not_whole_is_refused_by_its_name(
    name: str, damage: Callable[[Path], object], says: str, tmp_path: Path
) -> None:
    folder = tiny_copy(tmp_path / "p")
    damage(folder / "tokenizer" / name)
    with pytest.raises(WeightsError, match=rf"tokenizer/{name}: .*{says}"):
        check_complete(Checkpoint(folder))


def test_words_and_template_may_lie_in_their_other_places(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text("{}\n")
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    check_tokenizer(tmp_path)
