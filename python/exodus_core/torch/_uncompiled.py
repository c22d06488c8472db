"""Functions that a compiled program calls, and that are not compiled themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch._compile import _disable_dynamo

_Function = TypeVar("_Function", bound=Callable[..., Any])


def uncompiled(function: _Function, reason: str) -> _Function:
    """Do as ``torch.compiler.disable``, which would import the compiler, for two seconds, at once.

    Parameters
    ----------
    function : callable
        A function that torch.compile must not trace.
    reason : str
        The explanation for users who forbid graph breaks.

    Returns
    -------
    callable
        The function, at which a traced program breaks. Calling it imports the compiler, which is the caller.
    """
    found: Any = _disable_dynamo(function)
    found._torchdynamo_disable, found._torchdynamo_disable_msg = True, reason
    return found  # type: ignore[no-any-return]
