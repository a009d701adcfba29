"""`python -m zbench.hardware.calibrate [--write] REPORTS…`: fit the profiles' shares, and say how far off they are.

Printed are each record's figures as measured and as projected with their ranges, then what is left of each hardware,
then how far off and how wide the ranges are where a kind of row was left out of the fit. With `--write` the profiles in
conf/hardware and the host's costs are written anew. It runs nothing and imports no torch.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import mean

from zbench.errors import ConfigError, ZbenchError
from zbench.hardware import calibrate
from zbench.hardware.calibrate.fit import fit
from zbench.hardware.calibrate.held_out import FORESEEN, KINDS, Coverage, LeftOut, leave_out
from zbench.hardware.calibrate.observed import Ceiling, Observation, of_published, of_records, read_ceilings
from zbench.hardware.calibrate.projecting import FIGURES, Shares
from zbench.hardware.calibrate.write import CHIP, efficiency_yaml, write_profiles
from zbench.hardware.published import published_figures
from zbench.hardware.seconds import Estimate
from zbench.store import read_records

WIDTHS = (8, 8, 8, 60, 10, 10, 20, 9)
PACKAGE = Path(calibrate.__file__).parent.parent
CHECKOUT = PACKAGE.parent.parent


def journals(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Journals and ceilings under these folders, or these files. ConfigError for what is neither."""
    records, ceilings = [], []
    for path in paths:
        if path.is_dir():
            records += sorted(path.rglob("records.jsonl"))
            ceilings += sorted(path.rglob("ceilings.json"))
        elif path.is_file():
            (ceilings if path.suffix == ".json" else records).append(path)
        else:
            raise ConfigError("REPORTS", str(path), "no such folder or file; name reports, or a records.jsonl")
    return records, ceilings


def observed(paths: Sequence[Path]) -> tuple[list[Observation], list[Ceiling]]:
    """What is under these paths, and the single forwards of `published.yaml` that zbench's own engine took."""
    records, ceilings = journals(paths)
    seen = [o for path in records for o in of_records(read_records(path), f"{path.resolve().parent.name}: ")]
    return [*seen, *of_published(published_figures())], read_ceilings(ceilings)


def source(seen: Sequence[Observation], ceilings: Sequence[Ceiling]) -> str:
    """What a fit rests on, in words."""
    names = " and ".join(sorted({o.hardware for o in seen}))
    kinds = len({(o.hardware, o.setting) for o in seen})
    return (
        f"Fitted by `python -m zbench.hardware.calibrate` to {len(seen)} trials of {kinds} settings on {names} "
        f"(records under reports/, forwards in zbench/hardware/published.yaml) and {len(ceilings)} measured ceilings "
        "(reports/*/ceilings.json)."
    )


def residuals(seen: Iterable[Observation], shares: Shares) -> Iterator[str]:
    """A row a figure, then two figures of each hardware: sharded forwards apart from those of one device."""
    yield _line("hardware", "devices", "figure", "setting", "ms", "projected", "90 % range", "residual")
    off: dict[tuple[str, bool], list[float]] = {}
    for o in sorted(seen, key=lambda o: (o.hardware, o.dims.devices)):
        for name, measured_s, project in FIGURES:
            if seconds := measured_s(o):
                projected = project(o, shares)
                yield _row(o, name, seconds, projected)
                if name == "forward":
                    off.setdefault((o.hardware, o.dims.devices > 1), []).append(projected.point / seconds - 1)
    yield ""
    for (name, several), each in sorted(off.items()):
        sizes = [100 * abs(one) for one in each]
        rows = f"{len(sizes)} {'forward' if len(sizes) == 1 else 'forwards'}"
        what = "several devices" if several else "one device"
        yield f"{name}, {what}: {rows}, mean absolute residual {mean(sizes):.1f} %, largest {max(sizes):.1f} %"


def _row(o: Observation, name: str, measured_s: float, projected: Estimate) -> str:
    low, point, high = (1e3 * each for each in projected)
    share = f"{100 * (projected.point / measured_s - 1):+.1f} %"
    told = (f"{1e3 * measured_s:.1f}", f"{point:.1f}", f"{low:.1f} to {high:.1f}", share)
    return _line(o.hardware, str(o.dims.devices), name, o.setting, *told)


def left_out(figures: Sequence[LeftOut]) -> Iterator[str]:
    """Coverage of each kind that was left out, and of all."""
    yield ""
    yield "Left out of the fit in turn: figures; those within their 90 % range (in brackets: what is projected alike"
    yield "counts once); the median half-width of that range; the median residual"
    for kind in KINDS:
        for name in dict.fromkeys(f.left_out for f in figures if f.kind == kind):
            yield _coverage(f"  {kind} {name}", [f for f in figures if (f.kind, f.left_out) == (kind, name)])
        of_kind = [f for f in figures if f.kind == kind]
        if of_kind:
            yield _coverage(f"every {kind}", of_kind)
        if kind == FORESEEN[-1] and (foreseen := [f for f in figures if f.kind in FORESEEN]):
            yield _coverage("all of these", foreseen)
    yield CHIP


def _coverage(name: str, figures: Sequence[LeftOut]) -> str:
    told = Coverage.of(figures)
    return (
        f"{name:<34} {told.count:>4} figures  {100 * told.covered:5.1f} % ({100 * told.settings:5.1f} %) within"
        f"  ± {100 * told.half_width:4.1f} %  off by {100 * told.off:4.1f} %"
    )


def _line(*cells: str) -> str:
    texts = zip(cells, WIDTHS, strict=True)
    padded = (f"{text:<{width}}" if i < 4 else f"{text:>{width}}" for i, (text, width) in enumerate(texts))
    return "  ".join(padded).rstrip()


def main(arguments: list[str]) -> int:
    """Fit, print, and write where asked."""
    parser = argparse.ArgumentParser(prog="python -m zbench.hardware.calibrate", description=__doc__)
    parser.add_argument("reports", nargs="*", type=Path, metavar="REPORTS", help="folders, journals, ceilings")
    parser.add_argument("--write", action="store_true", help="write the profiles in conf/hardware anew")
    options = parser.parse_args(arguments)
    try:
        seen, ceilings = observed(options.reports or [CHECKOUT / "reports"])
        shares = fit(seen, ceilings, source(seen, ceilings))
        print("\n".join(residuals(seen, shares)))
        print("\n".join(left_out(leave_out(seen, ceilings))))
        print(efficiency_yaml(shares.efficiency), end="")
        if options.write:
            if not (CHECKOUT / "conf" / "hardware").is_dir():
                raise ConfigError("--write", str(CHECKOUT), "the profiles are written in a checkout alone")
            for path in write_profiles(shares, CHECKOUT / "conf" / "hardware", PACKAGE):
                print(f"written: {path}", file=sys.stderr)
    except (ZbenchError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
