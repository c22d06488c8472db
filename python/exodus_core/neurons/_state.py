"""`State`, the base of the named tuples that hold a neuron's state between calls."""

from __future__ import annotations

from typing import Any

from .._backends import is_torch


class State:
    """Base of the states: named tuples with an array for each of a neuron's quantities.

    Those of torch layers hold tensors, and are cut from their history and moved as tensors are. Checkpoints
    name a state's class by its `__module__`, which therefore stays, wherever the class moves.
    """

    __slots__ = ()

    def _each(self, method: str, *args: Any, **kwargs: Any) -> Any:
        parts: Any = self
        for name, part in zip(parts._fields, parts, strict=True):
            if not is_torch(part):
                raise TypeError(
                    f"{method} is for states of torch layers: {name} must be a tensor, "
                    f"got {type(part).__name__}"
                )
        return type(self)(*(getattr(part, method)(*args, **kwargs) for part in parts))

    def detach(self) -> Any:
        """Cut the state from its history, so that no gradient flows to the chunk before.

        Returns
        -------
        named tuple of Tensor
            Of the same class.
        """
        return self._each("detach")

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Move the state to a device, or convert it to a dtype.

        Parameters
        ----------
        *args, **kwargs
            As for ``torch.Tensor.to``.

        Returns
        -------
        named tuple of Tensor
            Of the same class.
        """
        return self._each("to", *args, **kwargs)
