"""Figures as people read them: units, digits and the marks of what was not measured on the model asked for.

Refuses to print NaN, and to round a likeness up to a perfect one.
"""

from collections.abc import Callable, Sequence

from zbench.analysis.figures import TrialFigures
from zbench.measurement import Source

ABSENT = "–"
IDENTICAL = "identical"
UNDER_NOISE = "none (under noise)"
REFERENCE = "reference"
RESIDENT = "resident"
PROJECTED_MARK = "~"  # before a figure
PROXY_MARK = "*"  # after a figure
UNTRUSTED_MARK = "(!)"  # after a label


def mark(text: str, source: Source | None) -> str:
    """`~0.31` projected, `0.93*` proxy; measured figures are left alone, and so is what is absent."""
    if text.startswith(ABSENT):
        return text
    if source == "projected":
        return PROJECTED_MARK + text
    return text + PROXY_MARK if source == "proxy" else text


def digits(value: float) -> str:
    """Three decimals below 10, fewer above, three significant digits below 0.1: 0.0312, 1.031, 21.20, 1520."""
    size = abs(value)
    if size >= 1000:
        return f"{value:.0f}"
    if size >= 0.1 or value == 0:
        return f"{value:.{3 if size < 10 else 2 if size < 100 else 1}f}"
    exponent = int(f"{size:.2e}".split("e")[1])
    return f"{value:.{2 - exponent}f}"


def latency(row: TrialFigures) -> str:
    """Median and interval (of a projection its range), with the decimals of the median: `0.731 [0.724, 0.738]`."""
    if row.latency_median_s is None:
        return ABSENT
    text = digits(row.latency_median_s)
    if row.latency_low_s is not None and row.latency_high_s is not None:
        decimals = len(text.partition(".")[2])
        text += f" [{row.latency_low_s:.{decimals}f}, {row.latency_high_s:.{decimals}f}]"
    return mark(text, row.latency_source)


def seconds(value: float | None, source: Source | None) -> str:
    """Seconds without a unit (it is in the header)."""
    return ABSENT if value is None else mark(digits(value), source)


def speedup(row: TrialFigures) -> str:
    """`1.42×`; 1.00× is the baseline."""
    if row.speedup is None:
        return ABSENT
    low, high = row.projected_speedup_low, row.projected_speedup_high
    ends = "" if low is None or high is None or low == high else f" [{low:.2f}, {high:.2f}]"
    return mark(f"{row.speedup:.2f}×{ends}", row.latency_source)


def cold(row: TrialFigures) -> str:
    """Seconds to load and of the first request: `2.1 + 0.62`, `2.1 + 38 (36 compiling)`; of a resident pipeline what
    its first trial paid: `resident (2.1 + 0.62)`. Of a projection nothing: what was resident is the proxy's."""
    if row.latency_source == "projected":
        return ABSENT
    paid = ABSENT
    if row.load_s is not None and row.first_request_s is not None:
        paid = f"{two_digits(row.load_s)} + {two_digits(row.first_request_s)}"
    elif row.why_missing("cold.load_s") == RESIDENT:
        paid = RESIDENT
        if row.resident_load_s is not None and row.resident_first_request_s is not None:
            paid += f" ({two_digits(row.resident_load_s)} + {two_digits(row.resident_first_request_s)})"
    return f"{paid} ({two_digits(row.compile_s)} compiling)" if row.compile_s else paid


def two_digits(value: float) -> str:
    """Of seconds that were seen once: 0.04, 0.62, 2.1, 38, 120."""
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}" if value >= 0.995 else f"{value:.2f}"


def speedup_with_interval(row: TrialFigures) -> str:
    """`1.42× [1.40, 1.45]` where it was measured over another trial; `1.42×` elsewhere."""
    if row.speedup_way is None or row.speedup_low is None or row.speedup_high is None:
        return speedup(row)
    return f"{speedup(row)} [{row.speedup_low:.2f}, {row.speedup_high:.2f}]"


def images_per_s(row: TrialFigures) -> str:
    """As `digits`."""
    if row.images_per_s is None:
        return ABSENT
    return mark(digits(row.images_per_s) + ends(row, row.images_per_s, inverse=True), row.latency_source)


def median_s(row: TrialFigures) -> str:
    """The median latency alone, seconds; of a projection with its range."""
    median = row.latency_median_s
    return ABSENT if median is None else mark(digits(median) + ends(row, median), row.latency_source)


def p90(row: TrialFigures) -> str:
    """As `seconds`; of a projection as far off as its median may be."""
    if row.latency_p90_s is None:
        return ABSENT
    return mark(digits(row.latency_p90_s) + ends(row, row.latency_p90_s), row.latency_source)


def ends(row: TrialFigures, value: float, *, inverse: bool = False) -> str:
    """Of a projected figure that goes with the latency, or against it; else nothing."""
    low, median, high = row.latency_low_s, row.latency_median_s, row.latency_high_s
    if row.latency_source != "projected" or not low or not median or not high:
        return ""
    both = sorted(value * (median / end if inverse else end / median) for end in (low, high))
    return f" [{digits(both[0])}, {digits(both[1])}]"


def gib(size_bytes: float) -> str:
    """`15.6 GiB`, small sizes in MiB."""
    return f"{size_bytes / 2**30:.1f} GiB" if size_bytes >= 2**30 else f"{size_bytes / 2**20:.0f} MiB"


def gib_range(size_bytes: float, low: float | None, high: float | None) -> str:
    """`23.9 GiB [21.3, 26.8]`, the ends in the unit of the size; without ends the size alone."""
    if low is None or high is None:
        return gib(size_bytes)
    unit, decimals = (2**30, 1) if size_bytes >= 2**30 else (2**20, 0)
    return f"{gib(size_bytes)} [{low / unit:.{decimals}f}, {high / unit:.{decimals}f}]"


def memory(row: TrialFigures, with_kind: bool = True) -> str:
    """The peak, and which peak it is."""
    if row.peak_memory_bytes is None:
        return ABSENT
    kind = f" ({row.memory_kind})" if with_kind else ""
    size = gib_range(row.peak_memory_bytes, row.projected_memory_low, row.projected_memory_high)
    return mark(size + kind, row.memory_source)


def for_images(row: TrialFigures) -> str:
    """What a latency is for: `an image`, `a call of 4 images`."""
    return "an image" if row.images == 1 else f"a call of {row.images} images"


def energy(row: TrialFigures) -> str:
    """Joules of the whole device, an image."""
    return ABSENT if row.joules_an_image is None else digits(row.joules_an_image)


def cached_steps(row: TrialFigures) -> str:
    """`2.5/8`: mean skipped steps an image, of all steps."""
    if row.cached_steps is None or row.steps is None:
        return ABSENT
    return mark(f"{row.cached_steps:.1f}/{row.steps}", row.cached_steps_source)


def psnr(row: TrialFigures) -> str:
    """dB of the mean squared error over all images, and how many of them are identical."""
    if row.psnr_mean_db is None or row.is_unchanged:
        return _without_likeness(row)
    same = f" ({row.identical_images} of {row.compared_images} identical)" if row.identical_images else ""
    return mark(f"{row.psnr_mean_db:.1f}{same}", row.quality_source)


def psnr_and_worst(row: TrialFigures) -> str:
    """dB of the mean squared error over all images, and of the worst: `31.3 (30.8)`."""
    if row.psnr_mean_db is None or row.psnr_worst_db is None or row.is_unchanged:
        return _without_likeness(row)
    return mark(f"{row.psnr_mean_db:.1f} ({row.psnr_worst_db:.1f})", row.quality_source)


def ssim(row: TrialFigures) -> str:
    """Mean and worst image: `0.957 (0.952)`."""
    return _likened(row, row.ssim_mean, row.ssim_worst, likeness)


def ms_ssim(row: TrialFigures) -> str:
    """As `ssim`, over five scales."""
    return _likened(row, row.ms_ssim_mean, row.ms_ssim_worst, likeness)


def latent_error(row: TrialFigures) -> str:
    """Mean and worst image, relative to the reference's latents."""
    return _likened(row, row.latent_rel_error, row.latent_rel_error_worst, digits)


def lpips(row: TrialFigures) -> str:
    """Mean and worst image; 0 is no difference."""
    return _likened(row, row.lpips_mean, row.lpips_worst, digits)


def clip(row: TrialFigures) -> str:
    """Mean and worst image, of 100."""
    if row.clip_mean is None or row.clip_worst is None:
        return ABSENT
    return mark(f"{row.clip_mean:.1f} ({row.clip_worst:.1f})", row.quality_source)


def prompt(row: TrialFigures) -> str:
    """Share of the attributes asked for, mean and worst image: `97.5 % (91 %)`."""
    if row.prompt_fidelity_mean is None or row.prompt_fidelity_worst is None:
        why = row.why_missing("prompt_fidelity")
        return f"{ABSENT} ({why})" if why else ABSENT
    return mark(f"{percent(row.prompt_fidelity_mean, 1)} ({percent(row.prompt_fidelity_worst)})", row.quality_source)


def likeness(value: float) -> str:
    """Three decimals, never rounded up to 1.000."""
    text = f"{value:.3f}"
    return ">0.999" if text == "1.000" and value < 1 else text


def percent(share: float, decimals: int = 0) -> str:
    """`91 %` of a share of 0.91, never rounded up to 100 %."""
    text = f"{100 * share:.{decimals}f}"
    return f">{100 - 10**-decimals:.{decimals}f} %" if share < 1 and float(text) >= 100 else f"{text} %"


def label(row: TrialFigures) -> str:
    """The trial's label with its roles; what should not be trusted is marked."""
    roles = ["reference"] * row.is_reference + ["baseline"] * row.is_baseline
    text = f"{row.label} ({', '.join(roles)})" if roles else row.label
    return f"{text} {UNTRUSTED_MARK}" if row.caveats else text


def trials(number: int) -> str:
    """`1 trial`, `14 trials`."""
    return f"{number} {'trial' if number == 1 else 'trials'}"


def listed(names: Sequence[str], most: int = 4) -> str:
    """`a, b and c`; beyond `most` names they are counted: `a, b, c, d and 3 more`."""
    shown = list(names[:most])
    if len(names) > len(shown):
        return f"{', '.join(shown)} and {len(names) - len(shown)} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]


def _likened(row: TrialFigures, mean: float | None, worst: float | None, figure: Callable[[float], str]) -> str:
    """Mean and worst of a likeness to the reference; a difference under the noise floor is none."""
    if mean is None or worst is None:
        return _absent(row)
    if row.within_noise and not row.is_identical:
        return mark(UNDER_NOISE, row.quality_source)
    return mark(f"{figure(mean)} ({figure(worst)})", row.quality_source)


def _without_likeness(row: TrialFigures) -> str:
    """Of a PSNR that would be that of identical images, or that is none."""
    if row.is_identical:
        return mark(IDENTICAL, row.quality_source)
    return mark(UNDER_NOISE, row.quality_source) if row.within_noise else _absent(row)


def _absent(row: TrialFigures) -> str:
    why = row.why_missing("quality")
    if row.is_reference and why in (None, "no_reference"):
        return REFERENCE
    return f"{ABSENT} ({why})" if why else ABSENT
