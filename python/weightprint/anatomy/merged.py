"""A base model with a LoRA adapter merged into it, rectangle by rectangle: nothing is merged before it is asked for.

For a linear layer W (out x in), factors A (r x in) and B (out x r), scale s, a rectangle (R, C) is::

    W'[R, C] = W[R, C] + s · B[R] · A[:, C]
    DoRA:      W'[R, C] · m[R] / ‖W'[R, :]‖          (arXiv 2402.09353; the norm needs whole rows)
    embedding: W'[R, C] = W[R, C] + s · (B[C] · A[:, R])ᵀ ;  DoRA's norm and m run over C

The adapter's modules are found in the base by name, with one rule of prefixes for all of them (PEFT names modules as
the code does, checkpoints may leave out ``model.`` or ``transformer.``). Where names don't lead there (the base is a
GGUF file, or fuses what the adapter has apart), they are found by place: what the adapter changes at ``layer 7, q`` is
added to whatever rows of whatever weight hold that in the base. A module that neither way finds is an error that names
it.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from weightprint.anatomy.adapters import Adapter, Lora, match_adapter, names_of, read_adapter
from weightprint.anatomy.anatomy import Anatomy, anatomy
from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.checkpoint.info import TensorInfo
from weightprint.errors import FormatError
from weightprint.quant.weights import Weight, Weights
from weightprint.util.arrays import F32
from weightprint.util.escape import escape

__all__ = ["Merged", "MergedWeights", "merge_adapter"]


_RUN = 1 << 22  # elements at a time, where a norm runs over a whole embedding


def merge_adapter(
    base: str | os.PathLike[str] | Checkpoint | Anatomy, adapter: str | os.PathLike[str] | Checkpoint
) -> Merged:
    """The anatomy of `base` with a LoRA adapter merged into it; values are computed when they are asked for.

    Args:
        base: the model that the adapter was trained on, or its anatomy.
        adapter: the adapter's folder, file or checkpoint.

    Raises:
        FormatError: modules that the base does not have (all are named), shapes that don't fit, a broken adapter.
        UnsupportedFormatError: an adapter that is not of the form W + s·B·A.

    Example (the models that ``weightprint demo`` writes):
        >>> import os, numpy as np, weightprint
        >>> from safetensors.numpy import save_file
        >>> os.mkdir("adapter")
        >>> with open("adapter/adapter_config.json", "w") as config:
        ...     _ = config.write('{"peft_type": "LORA", "r": 2, "lora_alpha": 4}')  # s = 4/2
        >>> q = "base_model.model.model.layers.0.self_attn.q_proj"
        >>> a, b = np.ones((2, 48), np.float32), np.ones((48, 2), np.float32)
        >>> save_file({f"{q}.lora_A.weight": a, f"{q}.lora_B.weight": b}, "adapter/adapter_model.safetensors")
        >>> merged = weightprint.merge_adapter("weightprint-demo/parent", "adapter")
        >>> base = weightprint.anatomy("weightprint-demo/parent")
        >>> float((merged.tensor(0, "q") - base.tensor(0, "q")).mean())  # s·B·A
        4.0
    """
    return Merged(base if isinstance(base, Anatomy) else anatomy(base), read_adapter(adapter))


class Merged(Anatomy):
    """An anatomy whose values are the base's with the adapter's updates. `adapter` is what was merged.

    Example (the models that ``weightprint demo`` writes):
        >>> import os, numpy as np, weightprint
        >>> from safetensors.numpy import save_file
        >>> os.mkdir("head-adapter")
        >>> with open("head-adapter/adapter_config.json", "w") as config:
        ...     _ = config.write('{"peft_type": "LORA", "r": 1, "lora_alpha": 1}')
        >>> o = "base_model.model.model.layers.4.self_attn.o_proj"
        >>> a, b = np.ones((1, 48), np.float32), np.zeros((48, 1), np.float32)
        >>> save_file({f"{o}.lora_A.weight": a, f"{o}.lora_B.weight": b}, "head-adapter/adapter_model.safetensors")
        >>> merged = weightprint.merge_adapter("weightprint-demo/parent", "head-adapter")
        >>> scan = weightprint.scan(merged, of="canonical", include="decoder.4.*")
        >>> scan.n_tensors, len(merged.adapter.loras)
        (9, 1)
    """

    adapter: Adapter

    def __init__(self, base: Anatomy, adapter: Adapter) -> None:
        weights = MergedWeights(base, adapter)
        if weights.shapes == base.weights.shapes:
            self.__dict__.update(base.__dict__, weights=weights, adapter=adapter, _base=base)
        else:  # a vocabulary that grew, a head that was added
            super().__init__(base.checkpoint, values=base._values, weights=weights)
            self.__dict__.update(adapter=adapter, _base=base)

    _base: Anatomy

    def __reduce__(self) -> tuple[Any, ...]:
        return merge_adapter, (self._base, self.adapter.checkpoint)


@dataclass(frozen=True, slots=True)
class _Patch:
    """One update as it lands on a weight of the base.

    Attributes:
        lora: the update.
        scale: s.
        transposed: the weight is stored (in x out).
        rows: for every output row of the weight, the row of the update that changes it, -1 for none; None: the same.
    """

    lora: Lora
    scale: float
    transposed: bool
    rows: npt.NDArray[np.intp] | None = None


class MergedWeights(Weights):
    """The base's weights with the adapter's updates; what the adapter does not touch is the base's."""

    def __init__(self, base: Anatomy, adapter: Adapter) -> None:
        self.__dict__.update(base.weights.__dict__)
        self._adapter = adapter
        self._norms: dict[str, F32] = {}
        self._patches = _patches(base, adapter)
        rule = _rule(list(adapter.loras), base.weights) if adapter.loras else None
        self._plain_of: dict[str, str] = {}
        self._weights = dict(base.weights._weights)
        for name, stored in adapter.plain.items():
            target = _named(name, rule)
            if target not in self._weights and name in self._weights:
                target = name
            self._plain_of[target] = stored
            self._weights[target] = replace(adapter.weights[stored], name=target)
        self._biases = self._bias_updates(adapter, rule)

    @property
    def touched(self) -> frozenset[str]:
        """Names of the weights that differ from the base's."""
        return frozenset({*self._patches, *self._plain_of, *self._biases})

    def stored(self, name: str) -> TensorInfo | None:
        """None for what the adapter touches: no file holds it."""
        return None if name in self.touched else super().stored(name)

    def read(self, name: str, rows: slice | None = None, columns: slice | None = None, index: int | None = None) -> F32:
        """A rectangle of the merged weight; see `Weights.read`."""
        values = self._before(name, rows, columns, index)
        if (update := self._biases.get(name)) is not None:
            stored, scale = update
            values = np.asarray(values + np.float32(scale) * self._read(stored, rows), np.float32)
        for patch in self._patches.get(name, ()):
            n_rows, n_columns = self._weights[name].shape
            r = range(*(rows or slice(None)).indices(n_rows))
            c = range(*(columns or slice(None)).indices(n_columns))
            if values.size:
                values = self._patched(name, values, patch, r, c)
        return values

    # Inside

    def _before(
        self, name: str, rows: slice | None = None, columns: slice | None = None, index: int | None = None
    ) -> F32:
        """The weight before the updates: the adapter's own where it holds one, else the base's."""
        stored = self._plain_of.get(name)
        if stored is not None:
            return self._adapter.weights.read(stored, rows, columns, index)
        return super().read(name, rows, columns, index)

    def _patched(self, name: str, values: F32, patch: _Patch, rows: range, columns: range) -> F32:
        if patch.lora.embedding:
            return self._patched_embedding(name, values, patch, rows, columns)
        out, inn = (columns, rows) if patch.transposed else (rows, columns)
        mapped = np.arange(out.start, out.stop) if patch.rows is None else patch.rows[out.start : out.stop]
        here = np.flatnonzero(mapped >= 0)
        if not here.size:
            return values
        chosen = mapped[here]
        result = (values.T if patch.transposed else values).copy()
        b = self._rows_of(patch.lora.b, chosen)
        result[here] += self._product(b, self._read(patch.lora.a, None, slice(inn.start, inn.stop)), patch)
        if patch.lora.magnitude is not None:
            whole = self._whole_rows(name, patch.transposed, out)[here]
            whole = whole + self._product(b, self._read(patch.lora.a), patch)
            magnitude = self._rows_of(patch.lora.magnitude, chosen)
            with np.errstate(all="ignore"):
                result[here] *= (magnitude / np.linalg.norm(whole, axis=1))[:, None]
        return np.ascontiguousarray(result.T) if patch.transposed else result

    def _patched_embedding(self, name: str, values: F32, patch: _Patch, rows: range, columns: range) -> F32:
        b = self._read(patch.lora.b, slice(columns.start, columns.stop))
        result = values + self._product(b, self._read(patch.lora.a, None, slice(rows.start, rows.stop)), patch).T
        if patch.lora.magnitude is not None:
            magnitude = self._read(patch.lora.magnitude, slice(columns.start, columns.stop))
            with np.errstate(all="ignore"):
                result = result * (magnitude / self._column_norms(name, patch)[columns.start : columns.stop])
        return np.asarray(result, np.float32)

    def _column_norms(self, name: str, patch: _Patch) -> F32:
        """‖W'[:, c]‖ of an embedding before DoRA, computed once, in runs of rows."""
        if name not in self._norms:
            n_rows, n_columns = self._weights[name].shape
            squares = np.zeros(n_columns)
            b = self._read(patch.lora.b)
            step = max(1, _RUN // max(1, n_columns))
            for start in range(0, n_rows, step):
                part = slice(start, min(start + step, n_rows))
                values = self._before(name, part) + self._product(b, self._read(patch.lora.a, None, part), patch).T
                squares += np.square(values, dtype=np.float64).sum(axis=0)
            self._norms[name] = np.sqrt(squares).astype(np.float32)
        return self._norms[name]

    @staticmethod
    def _product(b: F32, a: F32, patch: _Patch) -> F32:
        product: F32 = (b @ a) * np.float32(patch.scale)
        return product

    def _whole_rows(self, name: str, transposed: bool, out: range) -> F32:
        """Output rows of the weight before the updates, all columns."""
        part = slice(out.start, out.stop)
        whole: F32 = self._before(name, None, part).T if transposed else self._before(name, part)
        return whole

    def _rows_of(self, name: str, chosen: npt.NDArray[np.intp]) -> F32:
        """Rows of a factor, or elements of a vector, by number; reads the run that holds them."""
        first = int(chosen.min())
        rows: F32 = self._read(name, slice(first, int(chosen.max()) + 1))[chosen - first]
        return rows

    def _read(self, name: str, rows: slice | None = None, columns: slice | None = None) -> F32:
        return self._adapter.weights.read(name, rows, columns)

    def _bias_updates(self, adapter: Adapter, rule: _Rule | None) -> dict[str, tuple[str, float]]:
        found = {}
        for module, lora in adapter.loras.items():
            if lora.bias is None:
                continue
            name = _named(module + ".bias", rule)
            if name not in self._weights or self._weights[name].shape != (lora.shape[0],):
                message = f"the adapter changes the bias of {escape(module)}, which the base does not have"
                raise FormatError(message, tensor=lora.bias, code="adapter_base")
            found[name] = (lora.bias, adapter.scales[module])
        return found


# Where the updates land


_Rule = tuple[int, str]
"""How a module's name becomes the base's: leave out that many words in front, put this there."""


def _patches(base: Anatomy, adapter: Adapter) -> dict[str, list[_Patch]]:
    """Weight of the base → what changes it."""
    rule = _rule(list(adapter.loras), base.weights)
    by_name = {module: _named(module + ".weight", rule) for module in adapter.loras}
    missing = [lora for module, lora in adapter.loras.items() if by_name[module] not in base.weights]
    if not missing:
        found: dict[str, list[_Patch]] = defaultdict(list)
        for module, lora in adapter.loras.items():
            weight = base.weights[by_name[module]]
            found[weight.name].append(
                _Patch(lora, adapter.scales[module], _orientation(lora, weight, adapter.transposed))
            )
        return dict(found)
    by_place = _patches_by_place(base, adapter)
    if isinstance(by_place, dict):
        return by_place
    message = (
        f"the base {escape(base.checkpoint.source)} has no module for {len(missing)} of {len(adapter.loras)} updates: "
        f"{names_of(missing)}{by_place}; is this the model that the adapter was trained on?"
    )
    raise FormatError(message, path=adapter.checkpoint.files[0].path, tensor=missing[0].b, code="adapter_base")


def _orientation(lora: Lora, weight: Weight, said: bool) -> bool:
    """Whether the weight is stored (in x out); only for a square one does the config decide."""
    straight, transposed = weight.shape == lora.shape, weight.shape == lora.shape[::-1]
    if lora.embedding or not transposed:
        if straight:
            return False
    else:
        return said if straight else True
    message = f"{escape(weight.name)} of the base has shape {list(weight.shape)}, the update {list(lora.shape)}"
    raise FormatError(message, tensor=lora.b, code="adapter_base")


def _named(name: str, rule: _Rule | None) -> str:
    if rule is None:
        return name
    drop, prefix = rule
    return prefix + ".".join(name.split(".")[drop:])


def _rule(modules: list[str], weights: Mapping[str, Weight]) -> _Rule | None:
    """The rule that finds most modules in the base; of those that find as many, the one that changes names least."""
    words = [module.split(".") for module in modules]
    wanted = [module + ".weight" for module in modules]
    if not modules or all(name in weights for name in wanted):
        return None
    shortest = min(map(len, words))
    best: tuple[int, int, int, _Rule] | None = None
    for drop in range(shortest):
        if drop and len({tuple(w[:drop]) for w in words}) > 1:
            break  # they differ in what would be left out
        tail = ".".join(words[0][drop:]) + ".weight"
        for prefix in {name[: len(name) - len(tail)] for name in weights if name.endswith(tail)}:
            if prefix and not prefix.endswith("."):
                continue
            rule = (drop, prefix)
            found = sum(_named(name, rule) in weights for name in wanted)
            score = (found, -drop, -len(prefix))
            if best is None or score > best[:3]:
                best = (*score, rule)
    return best[3] if best else None


def _patches_by_place(base: Anatomy, adapter: Adapter) -> dict[str, list[_Patch]] | str:
    """The same through places; a string says why it can't be done."""
    mapped = match_adapter(adapter.weights.shapes, adapter.checkpoint.config)
    by_b: dict[str, list[Any]] = defaultdict(list)
    for assignment in mapped.assignments:
        by_b[assignment.view.weight].append(assignment)
    if any(lora.bias for lora in adapter.loras.values()) or adapter.plain:
        return ""
    found: dict[str, list[_Patch]] = defaultdict(list)
    for module, lora in adapter.loras.items():
        if lora.b not in by_b:
            return ""
        for assignment in by_b[lora.b]:
            place = replace(assignment.place, role=assignment.place.role.split(".")[0])
            if place not in base:
                return f" (the base has nothing at {escape(str(place))})"
            view = base[place].view
            n = assignment.view.shape[0]
            shape = lora.shape if lora.embedding else (n, lora.shape[1])
            if view.shape != shape or view.index is not None or view.row_block:
                return f" ({escape(str(place))} of the base has shape {list(view.shape)}, the update {list(shape)})"
            stored = base.weights[view.weight].shape
            rows = np.full(stored[1] if view.transposed else stored[0], -1, np.intp)
            mine = assignment.view.rows.indices() if assignment.view.rows is not None else np.arange(n)
            if lora.embedding:
                found[view.weight].append(_Patch(lora, adapter.scales[module], False))
                continue
            rows[view.rows.indices() if view.rows is not None else np.arange(n)] = mine
            found[view.weight].append(_Patch(lora, adapter.scales[module], view.transposed, rows))
    return dict(found)
