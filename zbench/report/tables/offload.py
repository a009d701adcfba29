"""What offloading moved and what it cost the host, next to the stages; it refuses to estimate what was not recorded."""

from collections.abc import Callable, Sequence

from zbench.analysis.view import View
from zbench.measurement import Measurement
from zbench.report.tables.text_table import LEFT, RIGHT, Align, TextTable
from zbench.report.text import cells

Cell = Callable[[Measurement], str | None]


def offload_table(view: View) -> TextTable | None:
    """One row a measured trial, a column where some trial has its figure; None where none offloaded or was watched."""
    rows = [
        (row, measured)
        for row, record in view.pairs
        if (measured := record.valid_measurement) is not None and measured.projection is None
    ]
    if all(row.offload == "none" for row, _ in rows):
        return None
    columns: tuple[tuple[str, Cell, Align], ...] = (
        ("moved to the device, a call", _moved, RIGHT),
        ("of it", _parts, LEFT),
        ("received over PCIe, a call", _received, RIGHT),
        ("peak host RSS", _host, RIGHT),
    )
    shown = [column for column in columns if any(column[1](m) is not None for _, m in rows)]
    return TextTable(
        head=(),
        headers=("trial", "offload", *(header for header, _, _ in shown)),
        aligns=(LEFT, LEFT, *(align for _, _, align in shown)),
        rows=tuple(
            (cells.label(row), row.offload, *(cell(m) or cells.ABSENT for _, cell, _ in shown)) for row, m in rows
        ),
        legend=_legend([header for header, _, _ in shown]),
    )


def _legend(headers: Sequence[str]) -> tuple[str, ...]:
    said = {
        "moved to the device, a call": "Moved: weights copied from host memory to the device.",
        "received over PCIe, a call": "Received over PCIe: whatever the device received, packet headers included.",
    }
    lines = [text for header, text in said.items() if header in headers]
    return (" ".join(lines),) if lines else ()


def _components(measurement: Measurement) -> dict[str, int]:
    """Bytes copied to the device in one call, by component."""
    return measurement.effective.offload_moved_bytes or {}


def _moved(measurement: Measurement) -> str | None:
    components = _components(measurement)
    return cells.gib(sum(components.values())) if components else None


def _parts(measurement: Measurement) -> str | None:
    parts = [f"{name} {cells.gib(size)}" for name, size in _components(measurement).items() if size]
    return ", ".join(parts) if len(parts) > 1 else None


def _received(measurement: Measurement) -> str | None:
    """The figure is the whole timed block's, invalid rounds included."""
    received = measurement.telemetry.pcie_rx_bytes
    return None if received is None or not measurement.requests else cells.gib(received / len(measurement.requests))


def _host(measurement: Measurement) -> str | None:
    peak = measurement.memory.host_peak_rss_bytes
    return None if peak is None else cells.gib(peak)
