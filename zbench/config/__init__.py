"""The schema of every config group: typed dataclasses in Hydra's ConfigStore, and their range checks.

Units are in the names (`_s`, `_gib`, `_gb_s`). Every group of a trial carries `grid`: what a sweep over that
choice varies, axis name to an expression of Hydra's sweep grammar (`2,4`, `range(1,4)`). A grid is
advice to the sweep, never part of a trial. Checks have no side effects; whether a combination can
run is `space`'s question, not this room's.
"""

from zbench.config.cache import (
    CACHE_CLASSES,
    SCM_PRESETS,
    CacheConfig,
    CustomCacheConfig,
    DBCacheConfig,
    SCMConfig,
    cache_class,
)
from zbench.config.hardware import VRAM_RESERVE_GIB, EfficiencyConfig, HardwareConfig, SpreadConfig
from zbench.config.job import SCHEMAS, Config, check, register_schemas
from zbench.config.pipeline import PipelineConfig, Prompt, WorkloadConfig
from zbench.config.ray import RayExecutorConfig
from zbench.config.setting import (
    DTYPES,
    OFFLOAD_MODES,
    ComputeConfig,
    EngineConfig,
    OffloadConfig,
    ParallelConfig,
    ServedEngineConfig,
    engine_class,
)
from zbench.config.slurm import SlurmExecutorConfig
from zbench.config.sweep import ExecutorConfig, MeasureConfig, SearchConfig, SweepConfig

__all__ = [
    "CACHE_CLASSES",
    "DTYPES",
    "OFFLOAD_MODES",
    "SCHEMAS",
    "SCM_PRESETS",
    "VRAM_RESERVE_GIB",
    "CacheConfig",
    "ComputeConfig",
    "Config",
    "CustomCacheConfig",
    "DBCacheConfig",
    "EfficiencyConfig",
    "EngineConfig",
    "ExecutorConfig",
    "HardwareConfig",
    "MeasureConfig",
    "OffloadConfig",
    "ParallelConfig",
    "PipelineConfig",
    "Prompt",
    "RayExecutorConfig",
    "SCMConfig",
    "SearchConfig",
    "ServedEngineConfig",
    "SlurmExecutorConfig",
    "SpreadConfig",
    "SweepConfig",
    "WorkloadConfig",
    "cache_class",
    "check",
    "engine_class",
    "register_schemas",
]
