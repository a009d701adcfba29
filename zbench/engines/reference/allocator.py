"""torch's allocator on the current CUDA device, as gauges ask for it; it never waits for the device."""

import torch


class TorchAllocator:
    """See `zbench.probes.watched.Allocator`."""

    def reset_peaks(self) -> None:
        """Of both peaks."""
        torch.cuda.reset_peak_memory_stats()

    def peak_allocated_bytes(self) -> int:
        """Of tensors."""
        return int(torch.cuda.max_memory_allocated())

    def peak_reserved_bytes(self) -> int:
        """Of the blocks that tensors are placed in."""
        return int(torch.cuda.max_memory_reserved())

    def now(self) -> dict[str, int]:
        """Bytes by name."""
        free, total = torch.cuda.mem_get_info()
        return {
            "allocated": int(torch.cuda.memory_allocated()),
            "reserved": int(torch.cuda.memory_reserved()),
            "peak_allocated": self.peak_allocated_bytes(),
            "peak_reserved": self.peak_reserved_bytes(),
            "free": int(free),
            "total": int(total),
        }
