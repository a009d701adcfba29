"""Host memory that nothing holds any more and that is yet not given back.

torch keeps freed page-locked blocks, and glibc the freed blocks below its mmap threshold, 32 MiB in a worker
(`executors.process`): the matrices of attention are smaller. Either would count as the next measurement's host memory.
"""

import ctypes

import torch


def release_host_memory() -> None:
    """Give both back to the system, where what runs here can."""
    if torch.cuda.is_available():
        empty = getattr(torch.accelerator, "empty_host_cache", None) or torch._C._host_emptyCache  # torch 2.11's
        empty()
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; musl has none
    if malloc_trim is not None:
        malloc_trim(0)
