"""Quantisation grids of values that are stored as floats: y lies on few evenly spaced points per group of inputs.

Two kinds of grid per group of g inputs (or a row), b bits: ``absmax``: multiples of max|y| / (2^(b-1) - 1);
``minmax``: min y + k (max y - min y) / (2^b - 1), k = 0 … 2^b - 1. Off the grid means further than a tenth of a step
from it, which four fifths of values that lie anywhere are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from weightprint.util.arrays import F32, F64

_ON_GRID, _OFF = 0.1, 0.02  # of a step; share of values that may lie off a grid

_SUBSAMPLE, _TOLD = (
    1024,
    64,
)  # values that a grid is first looked for in, and how many must be near enough to zero to tell

_GROUPS = (512, 256, 128, 64, 32, 16)

_BITS = (2, 3, 4, 5, 6, 8)


@dataclass(frozen=True, slots=True)
class Grid:
    """Quantised values: bits, inputs per group (None: a row), the kind of grid, whether A's value lies in the cell that
    rounding to the nearest point puts there, the relative error that such rounding makes (step / sqrt 12), and the
    share of values at the point next to zero although A's are a step from it, less those that went the other way: of
    any change but pruning as many do; and the share of all that are there."""

    bits: int
    group: int | None
    kind: str
    nearest: bool
    rounding: float
    cut: float
    least: float


def grid(y: F32, x: F32) -> Grid | None:
    """The coarsest grid that y lies on: fewest bits, then the widest group; None where it lies on none."""
    wide, other = y[:64].astype(np.float64), x[:64].astype(np.float64)
    if not wide.size or not np.isfinite(wide).all() or np.count_nonzero(wide) < 0.25 * wide.size:
        return None
    groups = [None, *(g for g in _GROUPS if g < wide.shape[1] and wide.shape[1] % g == 0)]
    first = {g: wide.reshape(-1, g or wide.shape[1])[: max(1, _SUBSAMPLE // (g or wide.shape[1]))] for g in groups}
    distinct = {g: _distinct(some) for g, some in first.items()}
    for bits in _BITS:
        for group in groups:
            size = group or wide.shape[1]
            if size < 2 ** min(bits, 4):
                continue  # so few values lie on some grid by themselves
            if distinct[group] > 2**bits + 2 * _OFF * size:
                continue
            for kind in ("absmax", "minmax"):
                grouped = wide.reshape(-1, size)
                if _off_grid(first[group], bits, kind) > 2 * _OFF:
                    continue
                if _off_grid(grouped, bits, kind) > _OFF:
                    continue
                at, step, low = steps(grouped, bits, kind)
                nearest = np.abs((other.reshape(-1, size) - low) / step - np.rint(at))
                nearest = nearest <= 0.6 + np.abs(at) / 256  # the step itself was read off a rounded value
                rounding = math.sqrt(float(np.mean(step * step)) / 12 / float(np.mean(wide * wide)))
                far = np.broadcast_to(step, grouped.shape).reshape(wide.shape)
                gone = (np.abs(wide) <= far / 2) & (np.abs(other) > far)  # at the point next to zero
                made = (np.abs(other) < far / 2) & (np.abs(wide) > far)
                cut = float(np.mean(gone)) - float(np.mean(made))
                least = float(np.mean(np.abs(wide) <= far / 2))
                return Grid(bits, group, kind, bool(np.mean(nearest) >= 0.99), rounding, cut, least)
    return None


def _distinct(groups: F64) -> float:
    """How many values a group has, on average, each counted once."""
    values = np.sort(groups, axis=1)
    return float(1 + np.count_nonzero(np.diff(values, axis=1), axis=1).mean())


def _off_grid(y: F64, bits: int, kind: str) -> float:
    """Share of the values that lie off the grid; 1 where too few could lie off it."""
    at, step, low = steps(y, bits, kind)
    # Zeros lie on every grid. BF16 blurs one far from zero, where its ulp hides the step.
    value = np.abs(at * step + low)
    sharp = bits < 8 or bool((y.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF)).any())
    near = (value > 0.5 * step) & ((value <= 16 * step) | sharp)
    away = np.abs(at - np.rint(at))[near]
    return float(np.mean(away > _ON_GRID)) if away.size >= _TOLD else 1.0


def steps(y: F64, bits: int, kind: str) -> tuple[F64, F64, F64]:
    """Values in steps of the grid that their group spans, the step, and where it starts."""
    if kind == "absmax":
        step = np.abs(y).max(axis=1, keepdims=True) / (2 ** (bits - 1) - 1)
        low = np.zeros_like(step)
    else:
        low = y.min(axis=1, keepdims=True)
        step = (y.max(axis=1, keepdims=True) - low) / (2**bits - 1)
    step = np.maximum(step, 1e-300)
    return (y - low) / step, step, low
