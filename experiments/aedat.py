"""Files of event cameras: AEDAT 2.0 and 4.0 (CIFAR10-DVS) and AEDAT 3.1 (DVS Gesture)."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from tonic.io import (
    get_aer_events_from_file,
    make_structured_array,
    read_aedat4,
    read_aedat_header_from_file,
)

HEADER = struct.Struct("<hhiiiiii")  # of a packet of AEDAT 3.1: type, source, sizes, capacity, number, valid
POLARITY_EVENTS = 1  # a packet's type
EVENT_BYTES = 8


def _header(path: Path) -> tuple[float, int]:
    """Return the format's version, and where the events begin."""
    content = path.read_bytes()[:16]
    if not content.startswith(b"#!AER-DAT"):
        raise ValueError(f"{path} must begin with #!AER-DAT, got {content[:9]!r}")
    version, begin, _ = read_aedat_header_from_file(str(path))
    return version, begin


def read_dvs128(path: Path) -> np.ndarray:
    """Read a recording of a DVS128 camera in the format AEDAT 2.0.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    ndarray
        A structured array with "x", "y", "t" (microseconds) and "p" (polarity).

    Raises
    ------
    ValueError
        If the file is no such recording; the message names it.
    """
    version, begin = _header(path)
    size = path.stat().st_size - begin
    if not 2 <= version < 3 or size % EVENT_BYTES:
        raise ValueError(
            f"{path} must be AEDAT 2.0 with events of {EVENT_BYTES} bytes, got version {version} and {size} "
            "bytes"
        )
    events = get_aer_events_from_file(str(path), version, begin)
    address = events["address"].astype(np.int64)
    x, y, polarity = (address >> 8) & 127, (address >> 1) & 127, address & 1
    found: np.ndarray = make_structured_array(x, y, events["timeStamp"], polarity)
    return found


def read_streams(path: Path) -> np.ndarray:
    """Read a recording in the format AEDAT 4.0: its first stream of events.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    ndarray
        A structured array with "x", "y", "t" (microseconds) and "p" (polarity).

    Raises
    ------
    ValueError
        If the file is no such recording; the message names it.
    """
    try:
        events = read_aedat4(str(path))
    except Exception as error:  # the decoder raises plain Exceptions
        raise ValueError(f"{path} must be AEDAT 4.0 with events, got: {error}") from None
    found: np.ndarray = make_structured_array(events["x"], events["y"], events["t"], events["on"])
    return found


def read_packets(path: Path) -> np.ndarray:
    """Read a recording in the format AEDAT 3.1. Packets of other events than polarity events are left out.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    ndarray
        See ``read_dvs128``. Invalid events are left out.

    Raises
    ------
    ValueError
        If the file is no such recording, or ends within a packet; the message names it.
    """
    version, begin = _header(path)
    content = path.read_bytes()
    if version < 3:
        raise ValueError(f"{path} must be AEDAT 3, got version {version}")
    words = []
    while begin < len(content):
        if len(content) < begin + HEADER.size:
            raise ValueError(f"{path} must have whole packets, got {len(content)} bytes: the last one is cut")
        kind, _, size, _, _, _, number, _ = HEADER.unpack_from(content, begin)
        begin += HEADER.size
        if len(content) < begin + number * size:
            raise ValueError(f"{path} must have whole packets, got {len(content)} bytes: the last one is cut")
        if kind == POLARITY_EVENTS:
            words.append(np.frombuffer(content, "<u4", 2 * number, begin).reshape(-1, 2))
        begin += number * size
    data, time = np.concatenate([np.zeros((0, 2), np.uint32), *words]).T.astype(np.int64)
    valid = data & 1 == 1
    x, y, polarity = (data >> 17) & 0x7FFF, (data >> 2) & 0x7FFF, (data >> 1) & 1
    found: np.ndarray = make_structured_array(x[valid], y[valid], time[valid], polarity[valid])
    return found
