"""A cache of values computed from objects. Entries live as long as their object."""

from __future__ import annotations

import weakref
from typing import Any


class IdentityCache:
    """A dictionary for each object, by identity. Objects need not be hashable, and are not kept alive."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Any], dict[Any, Any]]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def of(self, owner: Any) -> dict[Any, Any]:
        """Return the object's dictionary, which is empty at first."""
        key = id(owner)
        known = self._known.get(key)
        if known is None or known[0]() is not owner:
            # When the callback runs, another object may have taken over the id: `_forget` compares.
            known = weakref.ref(owner, lambda dead: self._forget(key, dead)), {}
            self._known[key] = known
        return known[1]

    def _forget(self, key: int, dead: weakref.ref[Any]) -> None:
        known = self._known.get(key)
        if known is not None and known[0] is dead:
            del self._known[key]
