"""A cache beside objects: entries live as long as their object, which does not know of them."""

from __future__ import annotations

import weakref
from typing import Any


class IdentityCache:
    """A dictionary for each object, by identity: the object needs no hash, and is not kept alive."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Any], dict[Any, Any]]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def of(self, owner: Any) -> dict[Any, Any]:
        """Return the object's own dictionary, which is empty at first."""
        key = id(owner)
        known = self._known.get(key)
        if known is None or known[0]() is not owner:
            # Another object may have the same id by the time that the callback of the former runs.
            known = weakref.ref(owner, lambda dead: self._forget(key, dead)), {}
            self._known[key] = known
        return known[1]

    def _forget(self, key: int, dead: weakref.ref[Any]) -> None:
        known = self._known.get(key)
        if known is not None and known[0] is dead:
            del self._known[key]
