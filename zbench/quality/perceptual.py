"""Measures that need learnt weights: LPIPS and CLIP score; weights come from a local path, and nothing is downloaded.

LPIPS (Zhang et al., 2018) is read from a safetensors file that holds the state of `lpips.LPIPS(net="alex")` under
its own names; `docs/quality.md` shows the three lines that write it. The network is spelt out here because that
package cannot be imported without torchvision and downloads its trunk by itself. CLIP score (Hessel et al., 2021) comes
from a transformers folder.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zbench.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LPIPS_KEY = "measure.lpips_weights"
CLIP_KEY = "measure.clip_weights"


class Lpips:
    """Distance of two images to the eye, 0 for alike; AlexNet's features weighted as people judged."""

    def __init__(self, path: str) -> None:
        """Load `path`. Raises ConfigError naming the key where it is missing or not such a file."""
        from safetensors.torch import load_file

        self._net = _alexnet_with_heads()
        try:
            missing = self._net.load_state_dict(load_file(Path(os.path.expanduser(path))), strict=False).missing_keys
        except Exception as error:  # safetensors, OS and shape errors alike: the file is not what the key asks for
            raise ConfigError(LPIPS_KEY, path, f"is no LPIPS safetensors file ({_line(error)})") from error
        if missing:
            raise ConfigError(LPIPS_KEY, path, f"lacks {sorted(missing)[0]}; write it as docs/quality.md shows")

    def __call__(self, image: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
        """Distance of two images of the same height × width × 3, RGB."""
        import torch

        pair = torch.stack([_tensor(image), _tensor(reference)])
        with torch.no_grad():
            return float(self._net(pair / 127.5 - 1))


def _alexnet_with_heads() -> Any:
    """AlexNet's five convolutions, named as in `lpips.LPIPS`, and a weight for each of their channels."""
    import torch
    from torch import Tensor, nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            features = {
                "slice1": {"0": nn.Conv2d(3, 64, 11, stride=4, padding=2), "1": nn.ReLU()},
                "slice2": {"2": nn.MaxPool2d(3, 2), "3": nn.Conv2d(64, 192, 5, padding=2), "4": nn.ReLU()},
                "slice3": {"5": nn.MaxPool2d(3, 2), "6": nn.Conv2d(192, 384, 3, padding=1), "7": nn.ReLU()},
                "slice4": {"8": nn.Conv2d(384, 256, 3, padding=1), "9": nn.ReLU()},
                "slice5": {"10": nn.Conv2d(256, 256, 3, padding=1), "11": nn.ReLU()},
            }
            self.net = nn.ModuleDict()
            for name, layers in features.items():
                self.net[name] = nn.Sequential()
                for key, layer in layers.items():
                    self.net[name].add_module(key, layer)
            for i, channels in enumerate((64, 192, 384, 256, 256)):
                head = nn.Module()
                head.model = nn.Sequential(nn.Dropout(), nn.Conv2d(channels, 1, 1, bias=False))
                self.add_module(f"lin{i}", head)

        def forward(self, pair: Tensor) -> Tensor:
            shift, scale = torch.tensor([[-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]])[:, None, :, None, None]
            x = (pair - shift) / scale
            total: Tensor = x.new_zeros(())
            for i, layers in enumerate(self.net.values()):
                x = layers(x)
                unit = x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)
                squares = (unit[0] - unit[1]).square()[None]
                total = total + getattr(self, f"lin{i}").model(squares).mean()
            return total

    return Net().eval()


class ClipScore:
    """How well an image fits its prompt by CLIP: 100 times the cosine of their embeddings, at least 0.

    OpenAI's CLIP knows English alone; a Chinese prompt needs a CLIP that knows Chinese.
    """

    def __init__(self, path: str) -> None:
        """Load the folder `path`. Raises ConfigError naming the key where it holds no CLIP model."""
        import transformers

        folder = str(Path(os.path.expanduser(path)))
        try:
            self._model = transformers.CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        except Exception as error:
            raise ConfigError(CLIP_KEY, path, f"is no folder of a CLIP model ({_line(error)})") from error
        self._model.eval()

    def __call__(self, image: NDArray[np.uint8], prompt_text: str) -> float:
        """Score of an image of height × width × 3, RGB."""
        import torch
        from torch.nn.functional import cosine_similarity, interpolate

        size = self._model.config.vision_config.image_size
        # OpenAI's preprocessing: bicubic resize, then the mean and deviation of its training images.
        pixels = interpolate(_tensor(image)[None] / 255, (size, size), mode="bicubic", antialias=True).clamp(0, 1)
        mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[None, :, None, None]
        deviation = torch.tensor([0.26862954, 0.26130258, 0.27577711])[None, :, None, None]
        tokens = self._tokenizer([prompt_text], truncation=True, return_tensors="pt")
        with torch.no_grad():
            out = self._model(
                input_ids=tokens.input_ids,
                attention_mask=tokens.attention_mask,
                pixel_values=(pixels - mean) / deviation,
            )
        return max(100 * float(cosine_similarity(out.image_embeds, out.text_embeds)[0]), 0.0)


def _tensor(image: NDArray[np.uint8]) -> Any:
    import torch

    return torch.tensor(image).permute(2, 0, 1).float()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
