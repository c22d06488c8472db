"""The memory that a call takes, as the system counts it."""

import ctypes
import gc
import re
from pathlib import Path

import exodus_core as ec


def peak_memory(call):
    """Return the megabytes by which a call raises the memory of this process; None where Linux is missing."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    gc.collect()
    ec.empty_cache()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what the process has

    def kilobytes(field):
        return int(re.search(rf"{field}:\s+(\d+)", status.read_text())[1])

    before = kilobytes("VmRSS")
    call()
    return (kilobytes("VmHWM") - before) / 1024
