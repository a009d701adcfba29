"""What every group of a trial has."""

from dataclasses import dataclass, field


@dataclass
class Group:
    """What every group of a trial has; the others (measure, search, executor) are no axes of a sweep."""

    grid: dict[str, str] = field(default_factory=dict)
