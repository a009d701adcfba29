"""Classes that configs name as `module:Class`; it knows none of them."""

import importlib
from typing import Any

from zbench.errors import ConfigError


def load_class(key: str, target: str) -> Any:
    """The class `target` names. Raises ConfigError naming `key` where there is none."""
    module_name, _, class_name = target.partition(":")
    try:
        return getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(key, target, f"must be module:Class ({error})") from error
