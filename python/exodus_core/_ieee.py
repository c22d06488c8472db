"""The default arithmetic of IEEE 754, whatever floating-point mode the caller has set."""

from __future__ import annotations

from contextlib import ContextDecorator
from types import TracebackType

import numpy as np

from . import _core


class ieee(ContextDecorator):
    """A context, and a decorator, in which arithmetic is the default of IEEE 754.

    Underflow and overflow raise no errors (``numpy.seterr``). The processor rounds to nearest and keeps
    subnormal numbers.
    """

    def _recreate_cm(self) -> ieee:
        """Make a context for each call of a decorated function."""
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
