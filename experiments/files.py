"""Files that are written whole or not at all, and read with a check."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def write_json(path: Path, value: Any) -> None:
    """Write a file of JSON, whole or not at all.

    Parameters
    ----------
    path : Path
        The file.
    value : object
        The content.
    """
    replace(path, lambda draft: draft.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8"))


def replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Replace a file at once, so that an interrupted run leaves the earlier one.

    Parameters
    ----------
    path : Path
        The file.
    write : callable
        A function that writes a file, whose path it gets.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
    try:
        write(draft)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def save(path: Path, content: Any) -> None:
    """Write a file of tensors and numbers, whole or not at all.

    Parameters
    ----------
    path : Path
        The file.
    content : object
        The content, which ``torch.load`` can read with ``weights_only=True``.
    """
    replace(path, lambda draft: torch.save(content, draft))


def load(path: Path, device: str = "cpu") -> Any:
    """Read a file that ``save`` has written.

    Parameters
    ----------
    path : Path
        The file.
    device : str, optional
        The device for its tensors.

    Returns
    -------
    object
        The content.

    Raises
    ------
    ValueError
        If the file is broken; the message names it.
    """
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch's unpickler raises errors of many kinds
        raise ValueError(f"{path} must be a file of tensors, got: {error}. Delete it") from None
