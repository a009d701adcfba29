"""What a sweep makes of a worker's measurement before it is a record."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zbench.errors import machine_fault
from zbench.hardware.footprint import next_offload
from zbench.hardware.roofline import project
from zbench.measurement import QUALITY_ONLY, Measurement
from zbench.record import Reason
from zbench.sanitize import without_folders
from zbench.trial import Trial, geometry_of, preset_geometry


@dataclass(frozen=True)
class Proxy:
    """A measurement on the tiny pipeline that projected trials may share, and its images."""

    measurement: Measurement
    artifacts: Path
    environment: dict[str, Any]


ProxyKey = tuple[str, bool, bool]
"""What was run, whether as a reference and whether against one; equal work on the tiny pipeline has equal ones."""


def sized(trial: Trial, measured: Measurement) -> Measurement:
    """With the model's dimensions where they are not its preset's, for readers never look into the folder it names."""
    geometry = geometry_of(trial.pipeline)
    if geometry == preset_geometry(trial.pipeline.preset):
        return measured
    return replace(measured, effective=replace(measured.effective, geometry=geometry))


def projected(trial: Trial, measured: Measurement) -> Measurement:
    """A proxy's measurement with the roofline's answer for the trial's own hardware, which asks no clock."""
    assert trial.hardware is not None
    projection = project(trial, geometry_of(trial.pipeline), measured.requests)
    requests = [replace(r, images=trial.images) for r in measured.window.requests]
    return replace(
        measured,
        window=replace(measured.window, requests=requests),
        projection=projection,
        reasons={path: why for path, why in measured.reasons.items() if why != QUALITY_ONLY},
        sources={"latency": "projected", "memory": "projected", "cached_steps": "proxy", "quality": "proxy"},
    )


def reason_abroad(trial: Trial, reason: Reason) -> Reason:
    """As a record has it, which others read too: without the folders of this machine; the worker's log has them.

    Where a GPU's memory ran out, with the offload that is predicted to fit into it.
    """
    tail = tuple(map(without_folders, reason.log_tail))
    told = replace(reason, message=without_folders(reason.message), log_tail=tail)
    if reason.code != "out_of_memory" or reason.memory is None:
        return told
    return replace(told, next_offload=next_offload(trial, geometry_of(trial.pipeline), reason.memory))


def stopped_by(reason: Reason, trial: Trial) -> str:
    """One line: what the machine failed at, what to do about it, and that nothing is lost."""
    way_out = machine_fault(reason.message)
    what = reason.message if way_out is None or way_out in reason.message else f"{reason.message}; {way_out}"
    return (
        f"{what}. That is no failure of {trial.label}, which runs again: what was measured before is kept, and the "
        "same command goes on"
    )


def measured_abroad(measured: Measurement) -> Measurement:
    """The same of what failed requests said, and of the runs that measured on its device meanwhile."""
    window = measured.window
    failures = [replace(each, message=without_folders(each.message)) for each in window.failures]
    turn = window.turn
    if turn is not None:
        turn = replace(turn, beside=[without_folders(each) for each in turn.beside])
    return replace(measured, window=replace(window, failures=failures, turn=turn))
