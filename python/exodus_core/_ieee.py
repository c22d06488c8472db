"""IEEE 754's default arithmetic, whatever the caller has set."""

from __future__ import annotations

from contextlib import ContextDecorator
from types import TracebackType

import numpy as np

from . import _core


class ieee(ContextDecorator):
    """Within it arithmetic is IEEE 754's default, whatever the caller has set.

    Underflow and overflow are not errors (``numpy.seterr``), and the processor rounds to nearest and keeps
    subnormal numbers.
    """

    def _recreate_cm(self) -> ieee:
        """As a decorator: one for each call."""
        return ieee()

    def __enter__(self) -> None:
        self._errors, self._mode = np.errstate(all="ignore"), _core.DefaultMode()
        self._errors.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._mode.end()
        self._errors.__exit__(kind, error, traceback)
