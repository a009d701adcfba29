"""What befell the host while requests overlapped: stretches of time one after another, each with its causes."""

from bisect import bisect_right
from collections.abc import Iterable


class Befallen:
    """Built once from all stretches, then asked of each request: its time grows with the causes, not with overlap."""

    def __init__(self, stretches: Iterable[tuple[float, float, list[str]]]) -> None:
        """From when to when and by what, in time order, none over another."""
        self._by_cause: dict[str, tuple[list[float], list[float]]] = {}
        for began_s, ended_s, causes in stretches:
            for cause in causes:
                begins, ends = self._by_cause.setdefault(cause, ([], []))
                begins.append(began_s)
                ends.append(ended_s)

    def between(self, began_s: float, ended_s: float) -> list[str]:
        """The causes of all stretches that overlap these times, the earliest first."""
        found: list[tuple[float, str]] = []
        for cause, (begins, ends) in self._by_cause.items():
            first = bisect_right(ends, began_s)
            if first < len(begins) and begins[first] < ended_s:
                found.append((begins[first], cause))
        return [cause for _, cause in sorted(found, key=lambda entry: entry[0])]
