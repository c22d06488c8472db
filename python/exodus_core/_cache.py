"""What is remembered of an object for as long as it lives, without a trace of it in the object itself."""

from __future__ import annotations

import weakref
from typing import Any


class IdentityCache:
    """A dictionary for each object, by the object's identity: it need have no hash, and is not kept alive."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Any], dict[Any, Any]]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def of(self, owner: Any) -> dict[Any, Any]:
        """The object's own dictionary, empty at first."""
        key = id(owner)
        known = self._known.get(key)
        if known is None or known[0]() is not owner:
            # Whoever gets the key next may be there already when the callback of the former runs.
            known = weakref.ref(owner, lambda dead: self._forget(key, dead)), {}
            self._known[key] = known
        return known[1]

    def _forget(self, key: int, dead: weakref.ref[Any]) -> None:
        known = self._known.get(key)
        if known is not None and known[0] is dead:
            del self._known[key]
