"""The reference engine with a slow-down of known size, as `engine=planted` names it; `planted_pipeline` is slow."""

from zbench.engines import Engine
from zbench.engines.reference import ReferenceEngine


class PlantedEngine(ReferenceEngine):
    """A cache's threshold is also the share of each call's own time that it then goes on working for."""

    def __init__(self, worker: str = "") -> None:
        """`worker` changes nothing, but sides in which it differs cannot share a pipeline."""

    def engine(self) -> Engine:
        """The slowed-down pipeline."""
        from planted_pipeline import PlantedPipeline

        return PlantedPipeline()
