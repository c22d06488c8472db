"""Independent jobs in processes of their own, whose results are kept on disk."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from .files import write_json


def _end_with_parent() -> None:
    """End this process when its parent ends, even if that is killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _prepare() -> None:
    torch.set_num_threads(1)  # results of torch's products depend on the number
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _compute(function: Callable[..., Any], arguments: tuple[Any, ...], file: Path) -> Any:
    result = function(*arguments)
    write_json(file, {"arguments": repr(arguments), "result": result})
    return result


def _kept(arguments: tuple[Any, ...], file: Path) -> Any:
    """Return the result of an earlier run with these arguments, or None."""
    if not file.exists():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        same = content["arguments"] == repr(arguments)
        return content["result"] if same else None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} must be the result of a job, got: {error}. Delete it") from None


def run_jobs(
    function: Callable[..., Any],
    jobs: Mapping[str, tuple[Any, ...]],
    folder: Path,
    workers: int,
    label: str,
) -> dict[str, Any]:
    """Run a function once for each job, and keep the results, so that an interrupted run goes on.

    Each process has one thread of torch. A job of an earlier run with equal arguments is not repeated.

    Parameters
    ----------
    function : callable
        A function of a module. Its result is values for JSON.
    jobs : mapping of str to tuple
        The function's arguments, by the name of the job, which is the name of its file. The arguments can be
        pickled, and their ``repr`` tells them apart.
    folder : Path
        The folder for the results.
    workers : int
        The number of processes.
    label : str
        The text beside the progress bar.

    Returns
    -------
    dict of str to object
        The results by name, in the order of the jobs.
    """
    files = {name: folder / f"{name}.json" for name in jobs}
    results = {name: _kept(arguments, files[name]) for name, arguments in jobs.items()}
    left = [name for name, result in results.items() if result is None]
    bar = tqdm(total=len(jobs), initial=len(jobs) - len(left), desc=label, unit="job", disable=None)
    spawned = multiprocessing.get_context("spawn")
    with bar, ProcessPoolExecutor(min(workers, max(1, len(left))), spawned, _prepare) as pool:
        futures = {pool.submit(_compute, function, jobs[name], files[name]): name for name in left}
        try:
            for future in as_completed(futures):
                results[futures[future]] = future.result()
                bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results
