"""Statistics by role, part or block: what tensors are in the model, and theirs pooled as if they were one.

Pooling is exact up to rounding. Of every tensor the count n, mean μ, and from std, skewness and kurtosis the central
sums M2, M3, M4 are known. Around the common mean μ, with δ = μᵢ - μ, they add up (Pébay 2008, SAND2008-6212, eq. 2.9,
for any number of sets at once):

    M2 = Σ M2ᵢ + n δ²
    M3 = Σ M3ᵢ + 3 δ M2ᵢ + n δ³
    M4 = Σ M4ᵢ + 4 δ M3ᵢ + 6 δ² M2ᵢ + n δ⁴

The sums are `math.fsum`'s, and values are scaled by a power of two before, so that fourth powers neither overflow nor
vanish. Quantiles and distinct values cannot be pooled and are left out.

A stored tensor may hold several roles, or be one component of a quantised weight. It is then counted under ``q+k+v``,
and by component (``qweight``, ``scales``): a scan of canonical tensors splits and decodes instead. Of words that codes
are packed into, only counts are told: they are no values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from weightprint.anatomy.place import Place
from weightprint.anatomy.role_order import drawn_at
from weightprint.errors import UsageError
from weightprint.results.table import Column, Kind, StatsTable
from weightprint.scan.places import PLACED
from weightprint.util.escape import escape
from weightprint.util.ranges import ranges

GROUPS = ("stack", "part", "role", "block", "expert")
"""What statistics can be pooled by."""

_SUMS = ("numel", "nbytes", "n", "n_finite", "n_zero", "n_nan", "n_posinf", "n_neginf")
_FLOATS = ("mean", "std", "rms", "l1", "l2", "skewness", "kurtosis")

#: How numbers merge that may be missing.
_EXTREMES = {"min": min, "max": max, "abs_max": max}
_OF_LINES: dict[str, Callable[..., Any]] = {
    "dead_rows": sum,
    "row_l2_min": min,
    "row_l2_max": max,
    "dead_columns": sum,
    "column_l2_min": min,
    "column_l2_max": max,
}

#: What codes are packed into; and what is then not told.
_PACKED = {"U8", "I16", "U16", "I32", "U32", "I64", "U64"}
_NOT_VALUES = {**dict.fromkeys(_EXTREMES), **dict.fromkeys((*_FLOATS, "sparsity"), math.nan)}

#: The columns behind the keys. Of rows and columns only where the scan measured them.
_POOLED: dict[str, Kind] = {
    "n_tensors": "u64",
    "blocks": "str",
    "dtype": "str",
    **dict.fromkeys(("numel", "nbytes"), "u64"),
    **dict.fromkeys(_EXTREMES, "number"),
    **dict.fromkeys(_FLOATS, "f64"),
    **dict.fromkeys(_SUMS[2:], "u64"),
    "sparsity": "f64",
    **{name: "i64" if merge is sum else "number" for name, merge in _OF_LINES.items()},
}


def pooled(table: StatsTable, by: Sequence[str]) -> StatsTable:
    """One row per stack and value of the columns `by` (and component, if tensors are quantised), in drawing order.

    Counts add up; extremes are the widest; mean, std, rms, skewness and kurtosis are those of all values together.
    ``n_tensors`` says how many tensors went in, ``blocks`` from which blocks.
    """
    for name in by:
        if name not in GROUPS:
            raise UsageError(f"can't group by {escape(name)}; there are {', '.join(GROUPS)}", code="no_such_group")
    if "role" not in table.names:
        message = "this scan knows no roles: call scan(anatomy(model)), or scan(model, of='canonical')"
        raise UsageError(message, code="no_places")
    components = ["component"] if any(table["component"]) else []
    keys = list(dict.fromkeys(["stack", *by, *components]))
    groups: dict[tuple[Any, ...], list[int]] = {}
    for k, key in enumerate(zip(*(table[name] for name in keys), strict=True)):
        groups.setdefault(key, []).append(k)
    values = {column.name: column.tolist() for column in table.columns}
    order = sorted(groups, key=lambda key: _order(dict(zip(keys, key, strict=True)), values, groups[key]))
    columns = [Column(name, PLACED[name], [key[k] for key in order]) for k, name in enumerate(keys)]
    rows = [_pool({name: [values[name][i] for i in groups[key]] for name in values}) for key in order]
    told = {name: kind for name, kind in _POOLED.items() if name in ("n_tensors", "blocks", *table.names)}
    columns += [Column(name, kind, _typed(kind, [row[name] for row in rows])) for name, kind in told.items()]
    return StatsTable(tuple(columns))


def _order(key: dict[str, Any], values: dict[str, list[Any]], members: Sequence[int]) -> tuple[Any, ...]:
    """Drawing order of a group: that of its first member; what has no place comes last."""
    firsts = []
    for i in members:
        role, block = values["role"][i], values["block"][i]
        if role is not None:
            # Blocks count only where they are asked for, else embedding and head enclose them.
            inside = block if "block" in key else 0
            place = Place(values["stack"][i] or "", None if block is None else inside, role.split("+")[0])
            firsts.append((drawn_at(place), values["expert"][i] or "", values["component"][i] or ""))
    return (0, min(firsts)) if firsts else (1, ())


def _typed(kind: Kind, values: list[Any]) -> Any:
    return np.array(values, {"u64": np.uint64, "f64": np.float64}[kind]) if kind in ("u64", "f64") else values


def _pool(of: dict[str, list[Any]]) -> dict[str, Any]:
    """The pooled row of some tensors' columns."""
    out: dict[str, Any] = {name: sum(of[name]) for name in _SUMS}
    out["n_tensors"] = len(of["name"])
    out["blocks"] = ranges(b for b in of["block"] if b is not None) or None
    out["dtype"] = "/".join(dict.fromkeys(of["dtype"]))
    for name, merge in (_EXTREMES | _OF_LINES).items():
        there = [v for v in of.get(name, ()) if v is not None]
        out[name] = merge(there) if there else None
    out["sparsity"] = out["n_zero"] / out["n"] if out["n"] else math.nan
    out["l1"] = math.fsum(of["l1"])
    out["l2"] = math.hypot(*of["l2"])
    packed = any(of.get("component", ())) and set(of["dtype"]) <= _PACKED
    return out | (_NOT_VALUES if packed else _moments(of))


def _moments(of: dict[str, list[Any]]) -> dict[str, float]:
    keys = ("n_finite", "mean", "std", "skewness", "kurtosis")
    sets = [row for row in zip(*(of[key] for key in keys), strict=True) if row[0]]
    n = sum(row[0] for row in sets)
    if not n:
        return dict.fromkeys(("mean", "std", "rms", "skewness", "kurtosis"), math.nan)
    largest = max(max(abs(mean), std) for _, mean, std, _, _ in sets)
    scale = -math.frexp(largest)[1] if largest else 0
    scaled = [(k, math.ldexp(mean, scale), math.ldexp(std, scale), s, t) for k, mean, std, s, t in sets]
    mean = math.fsum(k * m for k, m, *_ in scaled) / n
    m2, m3, m4 = [], [], []
    for k, own, std, skewness, kurtosis in scaled:
        d, c2 = own - mean, k * std**2
        # A constant tensor has no skewness: its central sums are 0.
        c3, c4 = (k * skewness * std**3, k * kurtosis * std**4) if c2 > 0 else (0.0, 0.0)
        m2 += [c2, k * d**2]
        m3 += [c3, 3 * d * c2, k * d**3]
        m4 += [c4, 4 * d * c3, 6 * d**2 * c2, k * d**4]
    s2, s3, s4 = math.fsum(m2), math.fsum(m3), math.fsum(m4)
    return {
        "mean": math.ldexp(mean, -scale),
        "std": math.ldexp(math.sqrt(s2 / n), -scale),
        "rms": math.ldexp(math.sqrt(s2 / n + mean**2), -scale),
        "skewness": math.sqrt(n) * s3 / s2**1.5 if s2 > 0 else math.nan,
        "kurtosis": n * s4 / s2**2 if s2 > 0 else math.nan,
    }
