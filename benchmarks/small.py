"""The smallest image that the tiny pipeline makes, for benchmarks that need very many."""

SMALL = (
    "pipeline=zimage_tiny",
    "hardware=cpu",
    "workload=single",
    "pipeline.height=64",
    "pipeline.width=64",
    "pipeline.steps=1",
)
