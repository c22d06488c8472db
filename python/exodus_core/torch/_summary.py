"""The text that ``print(monitor)`` shows."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ._activity import LayerActivity, SynapticOperations

_LAYERS = (
    *("layer", "type", "neurons", "time_dim", "time x batch", "rate", "silent", "saturated"),
    *("potential", "growth"),
)
_SYNAPSES = ("weights", "type", "accumulates", "multiply-adds", "dense", "energy", "dense energy")


def summary(layers: Sequence[LayerActivity], synapses: Sequence[SynapticOperations]) -> str:
    """Return a table of layers, and one of synaptic operations with a total."""
    if not layers and not synapses:
        return "Monitor: nothing has run yet"
    parts = [_table(_LAYERS, [_layer_row(layer) for layer in layers])] if layers else []
    first = [layer.sizes[0] for layer in layers]
    if any(size != first[0] for size in first):
        parts.append("The layers ran over different sizes of time x batch: check their time_dim.")
    if synapses:
        rows = [_synapses_row(one) for one in synapses]
        total = SynapticOperations(
            "total",
            "",
            sum(one.accumulates for one in synapses),
            sum(one.multiply_adds for one in synapses),
            sum(one.dense for one in synapses),
        )
        parts.append(_table(_SYNAPSES, [*rows, _synapses_row(total)]))
        parts.append(
            "Energy at 45 nm: 0.9 pJ per accumulate, 4.6 pJ per multiply-add (Horowitz, ISSCC 2014).\n"
            "The dense twin has the same weights, and multiplies and adds at every step."
        )
    return "\n\n".join(parts)


def _layer_row(layer: LayerActivity) -> tuple[str, ...]:
    sizes = ", ".join(f"{time} x {batch}" for time, batch in layer.sizes[:3])
    return (
        *(layer.name or "(net)", layer.kind, str(layer.neurons or "-"), str(layer.time_dim)),
        sizes + (", ..." if len(layer.sizes) > 3 else ""),
        *(_number(layer.rate), _percent(layer.silent), _percent(layer.saturated)),
        f"{layer.potential_min:.3g} to {layer.potential_max:.3g}",
        _number(layer.growth),
    )


def _synapses_row(one: SynapticOperations) -> tuple[str, ...]:
    counts = (one.accumulates, one.multiply_adds, one.dense)
    energies = (one.energy, one.dense_energy)
    return (
        one.name or "(net)",
        one.kind,
        *(_with_prefix(count) for count in counts),
        *(_with_prefix(energy) + "J" for energy in energies),
    )


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}"


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.0f} %"


def _with_prefix(value: float) -> str:
    """Write a number with a prefix of the SI: 1500 is "1.5 k"."""
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f} "
    power = max(-4, min(4, math.floor(math.log10(value) / 3 + 1e-9)))
    return f"{value / 1000.0**power:.3g} {'pnμm kMGT'[power + 4].strip()}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if k < 2 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, ["-" * width for width in widths], *rows)
    ]
    return "\n".join(lines)
