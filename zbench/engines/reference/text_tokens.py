"""Prompt tokens of each sample in a transformer forward, from its arguments' shapes; it waits for no device."""

from typing import Any


class TextTokens:
    """Watches the forwards of a `ZImageTransformer2DModel` by a hook; `close` takes it off again."""

    def __init__(self, transformer: Any) -> None:
        self.latest: list[int] = []  # of the last forward: with guidance, prompts first and then negative prompts
        self._hook = transformer.register_forward_pre_hook(self._read, with_kwargs=True)

    def _read(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """`cap_feats`, one tensor (tokens × width) a sample, is the third argument of `forward`."""
        cap_feats = kwargs["cap_feats"] if "cap_feats" in kwargs else args[2]
        self.latest = [int(sample.shape[0]) for sample in cap_feats]

    def close(self) -> None:
        """Take the hook off."""
        self._hook.remove()
