"""Products with spikes: ``spike_matmul`` and its gradients, and the parts that torch's modules share."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np

from . import _core
from ._arguments import check_not_torch
from ._backends import NUMPY, Array
from ._ieee import ieee
from ._values import choice

Engine = Literal["auto", "events", "dense"]
ENGINES = ("auto", "events", "dense")

# Estimates for the choice of an engine, in nanoseconds on one thread (benchmarks/products.py): of a call that
# visits spikes, of an element that is packed, of a vector of weights that a spike adds, and of a
# multiplication in a dense product. They only have to be in proportion. torch and NumPy use the processor's
# best instructions, whatever the kernels use.
_CALLED = 150_000
_PACKED = 0.5
_ADDED = {"avx512": 1.2, "avx2": 1.2, "x86-64-v2": 1.2, "generic": 2.4}
_LANES = {"avx512": 16, "avx2": 8, "x86-64-v2": 4, "generic": 4}  # of float32
_MULTIPLIED = 0.025
_ISA = str(_core.isa())
_NARROW = 34  # outputs; a dense product of fewer takes as long
# Estimates in these units for a gradient of the input that is computed in parts: of an element that is
# written, of one that is computed, and of a vector of weights that it reads. The last one holds where the
# weights exceed the caches of a core.
_WRITTEN, _COMPUTED, _READ, _READ_FAR = 0.65, 2.4, 0.6, 1.3
_FAR = 1 << 18  # bytes of weights
_CLEARLY = 0.95  # of the share at which both take as long; a sample is seldom further from the share of all
ENOUGH = 2.0  # times that; a few elements of which so many are spikes tell enough
_WORTHWHILE = 0.8  # of the dense product's time; a smaller gain would not pay for the look


class Sizes(NamedTuple):
    """The sizes of a product: x is (rows, inputs), y is (rows, outputs)."""

    rows: int
    inputs: int
    outputs: int


class Packed(NamedTuple):
    """A matrix of spikes, packed.

    Attributes
    ----------
    spikes : int
        The number of elements that are not 0.
    bits : array
        A bit for each element, in words of 64 bits, each row in whole words.
    first, values : array or None
        If not all spikes are 1, the index of each row's first value, and the values.
    """

    spikes: int
    bits: Any
    first: Any
    values: Any


class Support(NamedTuple):
    """The elements of a matrix of spikes at which the surrogate of their layer is not 0.

    Attributes
    ----------
    elements : int
        Their number.
    bits : array
        A bit for each element of the matrix, like those of ``Packed``.
    """

    elements: int
    bits: Any


def check_engine(engine: Any) -> None:
    """Check a user's choice of an engine."""
    choice("engine", engine, ENGINES)


def vectors(numbers: int, type_name: str) -> int:
    """Return the number of vectors that hold so many numbers on this instruction set."""
    lanes = _LANES[_ISA] // (2 if type_name == "float64" else 1)
    return -(-numbers // lanes)


class Estimate(NamedTuple):
    """The estimated times of a product, dense and by events.

    Attributes
    ----------
    dense : float
        The time of the dense product.
    empty : float
        The time by events of a matrix without spikes.
    full : float
        The time that events take beyond that if all elements are spikes.
    """

    dense: float
    empty: float
    full: float

    def prefers_events(self, share: float) -> bool:
        """Tell whether events are faster for a share of elements that are spikes."""
        return self.empty + share * self.full <= self.dense

    @property
    def most_spikes(self) -> float:
        """The share of spikes in a sample up to which "auto" packs them all; below 0 if it never does.

        It is a little less than the share up to which events are faster. Near that they save less than it
        costs to pack for nothing.
        """
        if not self.admits_events("auto"):
            return -1.0
        return _CLEARLY * (self.dense - self.empty) / max(self.full, 1.0)

    def admits_events(self, engine: Engine) -> bool:
        """Tell whether to pack the spikes: "auto" does so where events can save more than packing costs."""
        return engine == "events" or (engine == "auto" and self.empty <= _WORTHWHILE * self.dense)


def estimated(
    elements: int, vectors_per_spike: int, multiplications: float, type_name: str, written: float = 0.0
) -> Estimate:
    """Estimate the times of a product of a matrix with so many elements.

    `written` is the time that events take for their results, beyond that of the spikes.
    """
    dense = multiplications * _MULTIPLIED * (2 if type_name == "float64" else 1)
    empty = _CALLED + _PACKED * elements + written
    return Estimate(dense, empty, _ADDED[_ISA] * elements * vectors_per_spike)


@lru_cache(maxsize=256)
def estimate_of(sizes: Sizes, type_name: str) -> Estimate:
    """Estimate the times of a matrix product."""
    elements = sizes.rows * sizes.inputs
    multiplications = elements * max(sizes.outputs, _NARROW)
    return estimated(elements, vectors(sizes.outputs, type_name), multiplications, type_name)


@lru_cache(maxsize=256)
def estimate_of_input_gradient(sizes: Sizes, type_name: str) -> Estimate:
    """Estimate the times of the gradient of a product's input, by the share of elements that are computed."""
    elements, of_row = sizes.rows * sizes.inputs, vectors(sizes.outputs, type_name)
    itemsize = 8 if type_name == "float64" else 4
    read = _READ_FAR if sizes.inputs * sizes.outputs * itemsize > _FAR else _READ
    multiplied = _MULTIPLIED * (2 if type_name == "float64" else 1)
    return Estimate(
        elements * max(sizes.outputs, _NARROW) * multiplied * _WORTHWHILE,
        _CALLED + _WRITTEN * elements,
        elements * (_COMPUTED + of_row * read),
    )


def may_be_sparse(engine: Engine, type_name: str, rows: int, inputs: int, x: Any, estimate: Estimate) -> bool:
    """Tell whether to pack a matrix in the form that the extension takes: "auto" looks at a sample of it."""
    if engine == "events":
        return True
    most = estimate.most_spikes
    return _core.estimate_share(type_name, (rows, inputs, 0), x, ENOUGH * most) <= most


class Packing(NamedTuple):
    """How arrays of a library are packed.

    Attributes
    ----------
    type_name : str
        The dtype.
    handle : callable
        A function that returns an array in the form that the extension takes.
    empty : callable
        A function that allocates a number of elements of a kind: "bits", "first" or "values".
    threads : int
        The number of threads; 0 is all.
    """

    type_name: str
    handle: Callable[[Any], Any]
    empty: Callable[[int, str], Any]
    threads: int

    def pack(self, x: Any, engine: Engine, estimate: Estimate) -> Packed | None:
        """Pack a matrix that may be sparse, or return None if the dense product is to be used.

        Parameters
        ----------
        x : array
            The matrix, in C order.
        engine : str
            "events" packs always. "auto" packs if the estimate prefers events for the share of spikes.
        estimate : Estimate
            The times of both ways.

        Returns
        -------
        Packed or None
            The spikes.
        """
        rows, inputs = x.shape
        sizes, source = (rows, inputs, 0), self.handle(x)
        bits = self.empty(rows * -(-inputs // 64), "bits")
        words = self.handle(bits)
        spikes, binary = _core.pack(self.type_name, sizes, source, words, self.threads)
        if engine == "auto" and not estimate.prefers_events(spikes / max(rows * inputs, 1)):
            return None
        if binary:
            return Packed(spikes, bits, None, None)
        first, values = self.empty(rows, "first"), self.empty(spikes, "values")
        handles = words, self.handle(first), self.handle(values)
        _core.pack_values(self.type_name, sizes, spikes, source, handles, self.threads)
        return Packed(spikes, bits, first, values)


class SpikeMatmulGradients(NamedTuple):
    """The gradients of a loss that reads a product with spikes.

    Attributes
    ----------
    x, w : array
        In the shape and dtype of the factors.
    """

    x: Array
    w: Array


def _check_factors(x: Any, w: Any, engine: Any) -> tuple[np.ndarray, np.ndarray, Sizes]:
    check_engine(engine)
    check_not_torch("x", x, "Linear")
    matrix = NUMPY.array("x", x)
    weights = NUMPY.typed("w", w, NUMPY.type_name(matrix))
    if weights.ndim != 2 or matrix.ndim < 1 or matrix.shape[-1] != weights.shape[0]:
        raise ValueError(
            "w must have shape (inputs, outputs), and x shape (..., inputs), "
            f"got {weights.shape} and {matrix.shape}"
        )
    sizes = Sizes(math.prod(matrix.shape[:-1]), *weights.shape)
    return np.ascontiguousarray(matrix), np.ascontiguousarray(weights), sizes


def _dense(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a @ b, summed in float32 at least."""
    wide = np.result_type(a, np.float32)
    with ieee():
        product: np.ndarray = (a.astype(wide, copy=False) @ b.astype(wide, copy=False)).astype(a.dtype)
    return product


def _packed(x: np.ndarray, sizes: Sizes, engine: Engine) -> Packed | None:
    name = NUMPY.type_name(x)
    estimate = estimate_of(sizes, name)
    if not estimate.admits_events(engine):
        return None
    if not may_be_sparse(engine, name, sizes.rows, sizes.inputs, x, estimate):
        return None
    kinds = {"bits": "uint64", "first": "int64", "values": name}
    packing = Packing(name, NUMPY.handle, lambda count, kind: np.empty(count, kinds[kind]), 0)
    return packing.pack(x.reshape(sizes.rows, sizes.inputs), engine, estimate)


def spike_matmul(x: Array, w: Array, *, engine: Engine = "auto") -> Array:
    """Multiply spikes with weights: y = x w (docs/mathematics.md, Products with spikes).

    Most elements of x should be 0: only the others are visited, and add their rows of w in ascending order.
    Where x is 0, weights that are infinite or NaN have no effect. Results have the same bits for every number
    of threads and every instruction set, unless the dense product was used.

    Parameters
    ----------
    x : array
        Spikes of shape (..., inputs), float16, float32 or float64. Spikes need not be 1.
    w : array
        Weights of shape (inputs, outputs), in the dtype of x.
    engine : {"auto", "events", "dense"}, optional
        "events" visits the spikes, "dense" multiplies with NumPy. "auto" chooses by the shape, the number of
        spikes and the instruction set.

    Returns
    -------
    array
        Of shape (..., outputs), in the dtype of x. Sums of float16 are float32 until the end.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message names it.
    """
    matrix, weights, sizes = _check_factors(x, w, engine)
    packed = _packed(matrix, sizes, engine)
    if packed is None:
        return _dense(matrix, weights)
    name = NUMPY.type_name(matrix)
    y = NUMPY.empty_on_line((sizes.rows, sizes.outputs), (0, 1), name)
    strides = sizes.outputs, 1
    _core.product(name, sizes, packed.spikes, packed[1:], weights, strides, None, y, 0)
    return y.reshape(*matrix.shape[:-1], sizes.outputs)


def spike_matmul_backward(
    x: Array, w: Array, grad: Array, *, engine: Engine = "auto"
) -> SpikeMatmulGradients:
    """Compute the gradients of a loss through ``spike_matmul``.

    With g = dL/dy they are dL/dx = g w^T, a dense product, and dL/dw = x^T g, which visits the spikes only.

    Parameters
    ----------
    x, w, engine
        As given to ``spike_matmul``.
    grad : array
        dL/dy, in the shape and dtype of the product.

    Returns
    -------
    SpikeMatmulGradients
        The gradients of both factors.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message names it.
    """
    matrix, weights, sizes = _check_factors(x, w, engine)
    name = NUMPY.type_name(matrix)
    given = NUMPY.typed("grad", grad, name)
    if given.shape != (*matrix.shape[:-1], sizes.outputs):
        raise ValueError(
            f"grad must have the product's shape {(*matrix.shape[:-1], sizes.outputs)}, got {given.shape}"
        )
    g = np.ascontiguousarray(given).reshape(sizes.rows, sizes.outputs)
    grad_x = _dense(g, weights.T).reshape(matrix.shape)
    packed = _packed(matrix, sizes, engine)
    if packed is None:
        return SpikeMatmulGradients(grad_x, _dense(matrix.reshape(sizes.rows, sizes.inputs).T, g))
    grad_w = np.empty((sizes.inputs, sizes.outputs), matrix.dtype)
    strides = sizes.outputs, 1
    _core.product_gradients(name, sizes, packed.spikes, packed[1:], g, grad_w, strides, None, 0)
    return SpikeMatmulGradients(grad_x, grad_w)
