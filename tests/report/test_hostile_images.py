"""Images of a run from elsewhere: what is too large is not decoded, and nothing outside the run's artifacts is read."""

import struct
import zlib
from dataclasses import replace

import pytest
from factories import complete, trial
from PIL import Image

from zbench.analysis.view import view_of
from zbench.config import DBCacheConfig
from zbench.quality.artifacts import contents, copy_artifacts, image_path, read_artifact, read_picture
from zbench.report.page.images import strips
from zbench.report.page.pixels import data_uri, strip_jpeg
from zbench.report.page.write import write_report
from zbench.store import artifacts_folder

CACHED = trial(DBCacheConfig(max_warmup_steps=2))


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, *more):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


def run_with(folder, make):
    """A run whose reference has a good image of each prompt, and whose other trial has what `make` makes of a path."""
    records = [complete(trial()), complete(CACHED, ssim=0.9)]
    for record in records:
        for prompt_id in ("en-circle", "zh-square"):
            path = image_path(artifacts_folder(folder, record.trial_id), prompt_id, 0)
            path.parent.mkdir(parents=True, exist_ok=True)
            if record is records[0]:
                Image.new("RGB", (32, 32), (9, 9, 9)).save(path)
            else:
                make(path)
    return records


@pytest.mark.parametrize(
    "data",
    [
        png(30_000, 30_000),
        png(10_000, 10_000),
        png(257, 256),  # its trial makes 256 × 256
        png(64, 64, chunk(b"zTXt", b"k\0\0" + zlib.compress(b"x" * 50_000_000))),
        png(64, 64)[:60],
        png(0, 0),
        b"GIF89a" + b"\0" * 100,
        b"",
    ],
    ids=["30000", "10000", "larger", "text", "torn", "empty", "gif", "nothing"],
)
def test_an_image_that_is_none_of_its_trials_is_left_out(tmp_path, data):
    records = run_with(tmp_path, lambda path: path.write_bytes(data))
    view = view_of(records)
    made = strips(view, {"demo": tmp_path})
    shown = [(picture.label, data_uri(picture)) for strip in made for picture in strip.pictures]
    assert [uri is not None for label, uri in shown] == ["reference" in label for label, _ in shown]
    assert all(strip_jpeg(strip) for strip in made)
    write_report(view, {"demo": tmp_path}, tmp_path / "out")


def test_a_large_image_is_refused_by_its_header(tmp_path):
    path = image_path(tmp_path, "a", 0)
    path.write_bytes(png(30_000, 30_000))
    with pytest.raises(ValueError, match=r"a-0\.png"):
        read_picture(path)
    with pytest.raises(ValueError, match=r"a-0\.png"):
        read_artifact(tmp_path, "a", 0)


def test_a_link_out_of_the_artifacts_is_not_followed(tmp_path):
    private = tmp_path / "private.png"
    Image.new("RGB", (32, 32), (255, 0, 0)).save(private)
    records = run_with(tmp_path / "run", lambda path: path.symlink_to(private))
    made = strips(view_of(records), {"demo": tmp_path / "run"})
    assert [[picture.label for picture in strip.pictures] for strip in made] == [["none (reference, baseline)"]] * 2


def test_artifacts_on_another_disk_are_shown(tmp_path):
    records = run_with(tmp_path / "elsewhere", lambda path: Image.new("RGB", (32, 32)).save(path))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "artifacts").symlink_to(tmp_path / "elsewhere" / "artifacts")
    made = strips(view_of(records), {"demo": tmp_path / "run"})
    assert [len(strip.pictures) for strip in made] == [2, 2]


def test_a_prompt_of_many_characters_is_no_file(tmp_path):
    record = complete(trial())
    requests = [replace(r, prompt_id="x" * 5000) for r in record.measurement.requests]
    window = replace(record.measurement.window, requests=requests)
    record = replace(record, measurement=replace(record.measurement, window=window))
    assert strips(view_of([record]), {"demo": tmp_path}) == []


@pytest.mark.parametrize("name", ["../../outside", "/etc/passwd", "a/b", "a\0b"])
def test_artifacts_that_name_a_path_hold_nothing(tmp_path, name):
    source, folder = tmp_path / "run" / "artifacts" / "0123", tmp_path / "run" / "artifacts" / "4567"
    source.mkdir(parents=True)
    (tmp_path / "run" / "outside.png").write_bytes(b"private")
    said = f'{{"weights_sha256": null, "configs_sha256": null, "images": ["{name}"]}}'.replace("\0", "\\u0000")
    (source / "made_by.json").write_text(said, encoding="utf-8")
    assert contents(source).stems == frozenset()
    copy_artifacts(source, folder)
    assert [path.name for path in folder.iterdir()] == ["made_by.json"]
