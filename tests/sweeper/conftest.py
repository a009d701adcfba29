"""What tests of the sweep share."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from zbench.zimage.layout import WEIGHTS_FILE, configs_of, preset_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The tiny pipeline's configs, and weights of one number each."""
    made = tmp_path / "model"
    for name, path in configs_of(preset_folder("zimage_tiny"), "folder", None).items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_bytes(path.read_bytes())
    for component, name in WEIGHTS_FILE.items():
        save_file({"weight": np.zeros(1)}, made / component / name)
    return made
