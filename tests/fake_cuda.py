"""A stand-in for `torch.cuda`'s allocator, which never does anything."""

from fake_nvml import GIB


class FakeCuda:
    def reset_peak_memory_stats(self) -> None:
        """Nothing was counted."""

    def memory_reserved(self) -> int:
        return 4 * GIB

    def max_memory_allocated(self) -> int:
        return 3 * GIB

    def max_memory_reserved(self) -> int:
        return 4 * GIB
