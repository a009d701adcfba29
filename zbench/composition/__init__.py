"""From override strings to composed jobs: Hydra's grammar, with a grid in every choice of a group.

Composition itself is Hydra's. `typed` reads what the user asked for, `expand` decides which combinations that are,
`points` makes the jobs of one combination, `grammar` spells values, `session` holds Hydra. Nothing here runs a trial.
"""

from zbench.composition.expand import FillGrid, Job, Jobs, ResolveAuto, expand
from zbench.composition.session import CONFIG_NAME, conf_dir, profile_patterns
from zbench.composition.typed import NO_AXES, overlay

__all__ = (
    "CONFIG_NAME",
    "NO_AXES",
    "FillGrid",
    "Job",
    "Jobs",
    "ResolveAuto",
    "conf_dir",
    "expand",
    "overlay",
    "profile_patterns",
)
