"""Training from nothing, in its smoke mode: whole, resumable, and what it writes loads."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file
from torch import nn

from zbench.zimage.layout import WEIGHTS_FILE
from zbench.zimage.loading import load_pipeline
from zbench.zimage.train.__main__ import main
from zbench.zimage.train.checkpoint import TrainingCheckpoint
from zbench.zimage.train.loop import Phase, Session, learn, rate_share
from zbench.zimage.train.recipe import SMOKE
from zbench.zimage.train.validation import Validation


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 1))


class Stopped(Exception):
    pass


def run(work: Path, steps: int, stop_at: int | None = None) -> nn.Module:
    """Learn a sum; stopped before step `stop_at` as a kill would."""
    net = model()

    def loss_at(step: int) -> torch.Tensor:
        if step == stop_at:
            raise Stopped
        x = torch.randn(16, 8, generator=torch.Generator().manual_seed(step))
        return (net(x)[:, 0] - x.sum(1)).square().mean()

    phase = Phase("sum", steps=steps, batch=16, rate=1e-2, warmup=2, average=0.9, save_every=5)
    return learn(phase, net, loss_at, Session(work))


def test_a_stopped_phase_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", 20)
    with pytest.raises(Stopped):
        run(tmp_path / "cut", 20, stop_at=13)
    resumed = run(tmp_path / "cut", 20)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_learning_lowers_the_loss(tmp_path: Path) -> None:
    x = torch.randn(256, 8, generator=torch.Generator().manual_seed(99))

    def error(net: nn.Module) -> float:
        return (net(x)[:, 0] - x.sum(1)).square().mean().item()

    assert error(run(tmp_path, 200)) < 0.5 * error(model())


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = model()
    checkpoint = TrainingCheckpoint(tmp_path / "a.safetensors", {"now": net}, torch.optim.AdamW(net.parameters()))
    checkpoint.save(3)

    def torn(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr("zbench.zimage.train.checkpoint.save_file", torn)
    with pytest.raises(OSError, match="no space"):
        checkpoint.save(4)
    assert checkpoint.load() == 3


def test_the_rate_rises_and_falls() -> None:
    phase = Phase("p", steps=100, batch=1, rate=1.0, warmup=10)
    shares = [rate_share(phase, step) for step in range(100)]
    assert shares.index(max(shares)) == 9 and shares[0] < 0.2 and shares[-1] < 0.02


def test_the_last_of_the_best_weights_are_kept(tmp_path: Path) -> None:
    best = tmp_path / "best.safetensors"
    keeps, only_tells = (Validation(None, None, SMOKE, Console(), path) for path in (best, None))
    assert keeps.is_best(0.0) and not only_tells.is_best(1.0)
    save_file({"weight": torch.zeros(1)}, best, metadata={"share": "0.9", "step": "5"})
    assert keeps.is_best(0.9) and not keeps.is_best(0.89)


@pytest.mark.timeout(1200)  # a process that imports torch: on a busy machine it takes its time
def test_smoke_mode_writes_a_pipeline_that_paints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--smoke", "--out", "out", "--work", "work"]
    command = [sys.executable, "-m", "zbench.zimage.train", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "validation at" in done.stderr
    pipeline = load_pipeline(tmp_path / "out", dtype=torch.float32, device="cpu")
    image = pipeline("a red circle", height=64, width=64, num_inference_steps=2, guidance_scale=0.0).images[0]
    assert image.size == (64, 64)
    assert all((tmp_path / "out" / component / name).is_file() for component, name in WEIGHTS_FILE.items())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train", *words, "--seed", "1"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2 and "another recipe, seed or version" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["train", *words])
    main()
    assert "validation at" not in capsys.readouterr().err, "a finished phase must not run again"
