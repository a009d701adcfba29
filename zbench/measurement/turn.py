"""What a record keeps of the turn that a measurement had on its devices."""

from dataclasses import dataclass, field
from typing import Literal

from zbench.decode import Seconds


@dataclass(frozen=True)
class DeviceTurn:
    """Whether a window had its devices to itself, as far as zbench of this machine goes."""

    devices: list[str]  # cpu, a GPU's UUID, or a server's address
    kept: Literal["alone", "shared", "unknown"]  # shared: it waited for nobody; unknown: no turns could be taken
    waited_s: Seconds = 0.0  # before it, which no time-out counts
    beside: list[str] = field(default_factory=list)  # of a turn alone: who came all the same, sharing the device
