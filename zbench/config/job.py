"""One composed job: every group's schema in Hydra's ConfigStore, and all groups' checks."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from zbench.config.cache import CACHE_CLASSES, CacheConfig, CustomCacheConfig, check_cache
from zbench.config.hardware import HardwareConfig, check_hardware
from zbench.config.pipeline import PipelineConfig, WorkloadConfig, check_pipeline, check_together, check_workload
from zbench.config.ranges import check_numbers, one_of
from zbench.config.ray import RayExecutorConfig, check_ray
from zbench.config.setting import (
    ComputeConfig,
    EngineConfig,
    OffloadConfig,
    ParallelConfig,
    ServedEngineConfig,
    check_compute,
    check_engine,
    check_offload,
    check_parallel,
)
from zbench.config.slurm import SlurmExecutorConfig, check_executor
from zbench.config.sweep import (
    ExecutorConfig,
    MeasureConfig,
    SearchConfig,
    SweepConfig,
    check_measure,
    check_sweep,
)

EXECUTIONS = ("auto", "measure", "project")


@dataclass
class Config:
    """One composed job."""

    pipeline: PipelineConfig = MISSING
    engine: EngineConfig = MISSING
    hardware: HardwareConfig = MISSING
    parallel: ParallelConfig = MISSING
    offload: OffloadConfig = MISSING
    cache: CacheConfig = MISSING
    compute: ComputeConfig = MISSING
    workload: WorkloadConfig = MISSING
    measure: MeasureConfig = MISSING
    search: SearchConfig = MISSING
    executor: ExecutorConfig = MISSING
    sweep: SweepConfig = field(default_factory=SweepConfig)
    execution: str = "auto"


# Group, schema name: conf/GROUP/CHOICE.yaml names its schema as /schema/GROUP@_here_: NAME.
SCHEMAS: dict[str, dict[str, type]] = {
    "pipeline": {"pipeline": PipelineConfig},
    "engine": {"engine": EngineConfig, "served": ServedEngineConfig},
    "hardware": {"hardware": HardwareConfig},
    "parallel": {"parallel": ParallelConfig},
    "offload": {"offload": OffloadConfig},
    "cache": {**CACHE_CLASSES, "custom": CustomCacheConfig},
    "compute": {"compute": ComputeConfig},
    "workload": {"workload": WorkloadConfig},
    "measure": {"measure": MeasureConfig},
    "search": {"search": SearchConfig},
    "executor": {"executor": ExecutorConfig, "ray": RayExecutorConfig, "slurm": SlurmExecutorConfig},
}


def register_schemas() -> None:
    """Put every schema into Hydra's ConfigStore."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    for group, schemas in SCHEMAS.items():
        for name, schema in schemas.items():
            store.store(group=f"schema/{group}", name=name, node=schema)
    store.store(group="schema", name="root", node=Config, package="_global_")


def check(config: Any, checked: dict[int, object] | None = None) -> None:
    """Raise ConfigError for the first value of a Config, or of a trial, that is out of its range.

    `checked` holds the groups that passed before, by identity: they are not looked at again.
    """
    known = {} if checked is None else checked
    for name in config.__dataclass_fields__:
        group = getattr(config, name)
        if group is not None and id(group) not in known:
            check_numbers(group, name)
            _CHECKS.get(name, lambda _: None)(group)
            known[id(group)] = group
    check_together(config.pipeline, config.workload)


def _check_clusters(executor: ExecutorConfig) -> None:
    check_ray(executor)
    check_executor(executor)


# Group to what its values must be; a check of several groups together belongs into `check`.
_CHECKS: dict[str, Callable[[Any], None]] = {
    **{"pipeline": check_pipeline, "hardware": check_hardware, "offload": check_offload, "parallel": check_parallel},
    **{"engine": check_engine, "cache": check_cache, "compute": check_compute, "workload": check_workload},
    **{"measure": check_measure, "sweep": check_sweep, "executor": _check_clusters},
    "execution": lambda execution: one_of("execution", execution, EXECUTIONS),
}
