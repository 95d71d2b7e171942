"""A base model with an adapter merged into it, rectangle by rectangle: nothing is merged before it is asked for.

For a linear layer W (out x in), an update D (:mod:`weightprint.anatomy.adapters.deltas`), scale s, a rectangle (R, C)
is::

    W'[R, C] = W[R, C] + s · D[R, C]                  (LoRA: D[R, C] = B[R] · A[:, C]; IA3: W[R, C] times its factors)
    DoRA:      W'[R, C] · m[R] / ‖W'[R, :]‖          (arXiv 2402.09353; the norm needs whole rows)
    embedding: W'[R, C] = W[R, C] + s · (B[C] · A[:, R])ᵀ ;  DoRA's norm and m run over C

The adapter's modules are found in the base by name, with one rule of prefixes for all of them (PEFT names modules as
the code does, checkpoints may leave out ``model.`` or ``transformer.``; kohya's are the base's with underscores for
dots). Where names don't lead there (the base is a
GGUF file, or fuses what the adapter has apart), they are found by place: what the adapter changes at ``layer 7, q`` is
added to whatever rows of whatever weight hold that in the base. A module that neither way finds is an error that names
it.
"""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from weightprint.anatomy.adapters.adapters import Adapter, match_adapter, read_adapter, token_rows
from weightprint.anatomy.adapters.deltas import delta, expert_delta, multiplier
from weightprint.anatomy.adapters.dialects import Update, on_inputs
from weightprint.anatomy.adapters.module_names import Rule, named, rule_of
from weightprint.anatomy.adapters.rotations import KINDS as ROTATIONS
from weightprint.anatomy.adapters.rotations import Rotation, rotation
from weightprint.anatomy.adapters.summary import AdapterSummary, summaries
from weightprint.anatomy.anatomy import Anatomy, anatomy
from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.checkpoint.info import TensorInfo
from weightprint.errors import FormatError
from weightprint.quant.weights import Weight, Weights
from weightprint.util.arrays import F32
from weightprint.util.escape import escape, listed

_RUN = 1 << 22  # elements at a time, where a norm runs over a whole embedding


def merge_adapter(
    base: str | os.PathLike[str] | Checkpoint | Anatomy, adapter: str | os.PathLike[str] | Checkpoint
) -> Merged:
    """The anatomy of `base` with an adapter merged into it; values are computed when they are asked for.

    Args:
        base: the model that the adapter was trained on, or its anatomy.
        adapter: the adapter's folder, file or checkpoint.

    Raises:
        FormatError: modules that the base does not have (all are named), shapes that don't fit, a broken adapter.
        UnsupportedFormatError: an adapter of a form that isn't merged.

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
        >>> scan.n_tensors, len(merged.adapter.updates)
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

    @property
    def source(self) -> str:
        """``base+adapter``."""
        return f"{self.checkpoint.source}+{self.adapter.checkpoint.source}"

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """The base's files and the adapter's."""
        return self.checkpoint, self.adapter.checkpoint

    @property
    def touched(self) -> frozenset[str]:
        """Weights that the adapter changes."""
        return self.weights.touched if isinstance(self.weights, MergedWeights) else frozenset()

    @cached_property
    def adapters(self) -> tuple[AdapterSummary, ...]:
        """What was merged."""
        return summaries(self.adapter.weights)

    def __reduce__(self) -> tuple[Any, ...]:
        return merge_adapter, (self._base, self.adapter.checkpoint)


@dataclass(frozen=True, slots=True)
class _Patch:
    """One update as it lands on a weight of the base.

    Attributes:
        update: of the module.
        scale: s.
        transposed: the weight is stored (in x out).
        rows: for every output row of the weight, the row of the update that changes it, -1 for none; None: the same.
    """

    update: Update
    scale: float
    transposed: bool
    rows: npt.NDArray[np.intp] | None = None


class MergedWeights(Weights):
    """The base's weights with the adapter's updates; what the adapter does not touch is the base's."""

    def __init__(self, base: Anatomy, adapter: Adapter) -> None:
        self.__dict__.update(base.weights.__dict__)
        self._base, self._adapter = base.weights, adapter
        self._norms: dict[str, F32] = {}
        self._rotations: dict[str, Rotation] = {}
        self._patches = _patches(base, adapter)
        rule = rule_of(list(adapter.updates), base.weights)
        self._plain_of: dict[str, str] = {}
        self._weights = dict(base.weights._weights)
        for name, stored in adapter.plain.items():
            target = named(name, rule)
            if target not in self._weights and name in self._weights:
                target = name
            self._plain_of[target] = stored
            self._weights[target] = replace(adapter.weights[stored], name=target)
        self._biases = self._bias_updates(adapter, rule)
        for name in (*self._patches, *self._biases):  # values as they are computed, whatever the base is stored as
            self._weights[name] = replace(self[name], dtype="F32", scheme=None, levels=None)
        #: Names of the weights that differ from the base's.
        self.touched = frozenset({*self._patches, *self._plain_of, *self._biases})

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
            if len(patch.update.shape) == 3 and len(self._weights[name].shape) == 3:
                values = self._patched_experts(name, values, patch, rows, columns, index)
            elif patch.update.kind == "tokens":
                first = (rows or slice(None)).indices(self._weights[name].shape[0])[0]
                values = self._with_tokens(values, patch.update, first, columns)
            elif values.size:
                matrix = values.reshape(len(values), -1)
                r = range(*(rows or slice(None)).indices(self._weights[name].shape[0]))
                c = range(*(columns or slice(None)).indices(_width(self._weights[name].shape)))
                values = self._patched(name, matrix, patch, r, c).reshape(values.shape)
        return values

    # Inside

    def _before(
        self, name: str, rows: slice | None = None, columns: slice | None = None, index: int | None = None
    ) -> F32:
        """The weight before the updates: the adapter's own where it holds one, else the base's."""
        stored = self._plain_of.get(name)
        if stored is not None:
            return self._adapter.weights.read(stored, rows, columns, index)
        return self._base.read(name, rows, columns, index)

    def _patched(self, name: str, values: F32, patch: _Patch, rows: range, columns: range) -> F32:
        if patch.update.embedding:
            return self._patched_embedding(name, values, patch, rows, columns)
        out, inn = (columns, rows) if patch.transposed else (rows, columns)
        mapped = np.arange(out.start, out.stop) if patch.rows is None else patch.rows[out.start : out.stop]
        here = np.flatnonzero(mapped >= 0)
        if not here.size:
            return values
        chosen, across = mapped[here], slice(inn.start, inn.stop)
        result = (values.T if patch.transposed else values).copy()
        if patch.update.kind in ROTATIONS:
            turned = self._rotation(name, patch)
            result[here] = turned.apply(self._whole_rows(name, patch.transposed, out)[here], chosen)[:, across]
        elif patch.update.kind == "ia3":
            result[here] *= multiplier(patch.update, self._adapter.weights, chosen, across)
        else:
            result[here] += self._delta(patch, chosen, across)
        if "magnitude" in patch.update.parts:
            stored = self._adapter.weights[patch.update.parts["magnitude"]].shape
            if on_inputs(patch.update.dialect, stored, patch.update.shape):
                return self._scaled_inputs(name, result, patch, across)
            whole = self._whole_rows(name, patch.transposed, out)[here]
            whole = whole + self._delta(patch, chosen, slice(None))
            magnitude = self._magnitude(patch)[chosen]
            with np.errstate(all="ignore"):
                result[here] *= (magnitude / np.linalg.norm(whole, axis=1))[:, None]
        return np.ascontiguousarray(result.T) if patch.transposed else result

    def _rotation(self, name: str, patch: _Patch) -> Rotation:
        module = patch.update.module
        if module not in self._rotations:
            shape = self._weights[name].shape
            width = shape[0] if patch.transposed else _width(shape)
            self._rotations[module] = rotation(patch.update, self._adapter.weights, width)
        return self._rotations[module]

    def _patched_experts(
        self, name: str, values: F32, patch: _Patch, rows: slice | None, columns: slice | None, index: int | None
    ) -> F32:
        """Experts in one weight: all matrices that `rows` picks, or a rectangle of one."""
        experts = range(self._weights[name].shape[0])
        result = values.copy()
        for k, number in enumerate(experts[rows or slice(None)] if index is None else (index,)):
            update = expert_delta(patch.update, self._adapter.weights, number) * np.float32(patch.scale)
            update = update.T if patch.transposed else update
            if index is None:
                result[k] += update
            else:
                result += update[rows or slice(None), columns or slice(None)]
        return result

    def _with_tokens(self, values: F32, update: Update, first: int, columns: slice | None) -> F32:
        """Rows of an embedding, from number `first` on, with the trained ones in their places."""
        result, weights = values.copy(), self._adapter.weights
        trained = weights.read(update.first, None, columns)
        for row, own in zip(token_rows(update, weights), trained, strict=True):
            if first <= row < first + len(result):
                result[row - first] = own
        return result

    def _patched_embedding(self, name: str, values: F32, patch: _Patch, rows: range, columns: range) -> F32:
        across = slice(columns.start, columns.stop)
        result = values + self._delta(patch, np.arange(columns.start, columns.stop), slice(rows.start, rows.stop)).T
        if "magnitude" in patch.update.parts:
            magnitude = self._magnitude(patch)[across]
            with np.errstate(all="ignore"):
                result = result * (magnitude / self._column_norms(name, patch)[across])
        return np.asarray(result, np.float32)

    def _column_norms(self, name: str, patch: _Patch) -> F32:
        """‖W'[:, c]‖ of an embedding before DoRA, computed once, in runs of rows."""
        if name not in self._norms:
            n_rows, n_columns = self._weights[name].shape
            squares = np.zeros(n_columns)
            every = np.arange(n_columns)
            step = max(1, _RUN // max(1, n_columns))
            for start in range(0, n_rows, step):
                part = slice(start, min(start + step, n_rows))
                values = self._before(name, part) + self._delta(patch, every, part).T
                squares += np.square(values, dtype=np.float64).sum(axis=0)
            self._norms[name] = np.sqrt(squares).astype(np.float32)
        return self._norms[name]

    def _scaled_inputs(self, name: str, result: F32, patch: _Patch, columns: slice) -> F32:
        """DoRA by inputs: every column of W' to its magnitude; of a convolution, an input's whole kernel."""
        out, inputs = patch.update.shape[:2]
        whole = self._before(name)
        whole = (whole.T if patch.transposed else whole).reshape(out, -1)
        whole = (whole + self._delta(patch, np.arange(out), slice(None))).reshape(out, inputs, -1)
        with np.errstate(all="ignore"):
            factors = self._magnitude(patch) / np.linalg.norm(whole, axis=(0, 2))
        scaled = result * np.repeat(factors, whole.shape[2])[None, columns]
        return np.ascontiguousarray(scaled.T if patch.transposed else scaled, np.float32)

    def _delta(self, patch: _Patch, rows: npt.NDArray[np.intp], columns: slice) -> F32:
        """Rows and columns of the update, scaled."""
        made: F32 = delta(patch.update, self._adapter.weights, rows, columns) * np.float32(patch.scale)
        return made

    def _magnitude(self, patch: _Patch) -> F32:
        return self._read(patch.update.parts["magnitude"]).reshape(-1)

    def _whole_rows(self, name: str, transposed: bool, out: range) -> F32:
        """Output rows of the weight before the updates, all columns."""
        part = slice(out.start, out.stop)
        whole: F32 = self._before(name, None, part).T if transposed else self._before(name, part)
        return whole.reshape(len(whole), -1)

    def _read(self, name: str, rows: slice | None = None, columns: slice | None = None) -> F32:
        return self._adapter.weights.read(name, rows, columns)

    def _bias_updates(self, adapter: Adapter, rule: Rule | None) -> dict[str, tuple[str, float]]:
        found = {}
        for module, update in adapter.updates.items():
            for part, scale in (("bias", adapter.scales[module]), ("diff_b", 1.0)):
                if (stored := update.parts.get(part)) is None:
                    continue
                name = named(module + ".bias", rule)
                if name not in self._weights or self._weights[name].shape != adapter.weights[stored].shape:
                    message = f"the adapter changes the bias of {escape(module)}, which the base does not have"
                    raise FormatError(message, tensor=stored, code="adapter_base")
                found[name] = (stored, scale)
        return found


# Where the updates land


def _patches(base: Anatomy, adapter: Adapter) -> dict[str, list[_Patch]]:
    """Weight of the base → what changes it."""
    rule = rule_of(list(adapter.updates), base.weights)
    experts = {m: landed for m, u in adapter.updates.items() if (landed := _expert_patch(base, adapter, m, u))}
    whole = {
        module
        for module, u in adapter.updates.items()
        if u.kind == "norms" or (u.kind, "diff" in u.parts) == ("diff", False)
    }
    changing = {module: u for module, u in adapter.updates.items() if module not in whole}
    changing = {module: u for module, u in changing.items() if module not in experts}
    by_name = {module: named(module + ".weight", rule) for module in changing}
    missing = [update for module, update in changing.items() if by_name[module] not in base.weights]
    if not missing:
        found: dict[str, list[_Patch]] = defaultdict(list)
        for name, patch in experts.values():
            found[name].append(patch)
        for module, update in changing.items():
            weight = base.weights[by_name[module]]
            turned = _orientation(update, weight, adapter.transposed)
            patch = _Patch(update, adapter.scales[module], turned)
            # What has no formula is refused before it is asked for.
            if update.kind in ROTATIONS:
                rotation(update, adapter.weights, weight.shape[0] if turned else _width(weight.shape))
            elif update.kind not in ("ia3", "tokens") and len(update.shape) != 3:
                delta(update, adapter.weights, np.arange(1), slice(0, 1))
            found[weight.name].append(patch)
        return dict(found)
    by_place = _patches_by_place(base, adapter)
    if isinstance(by_place, dict):
        return by_place
    message = (
        f"the base {escape(base.checkpoint.source)} has no module for {len(missing)} of {len(changing)} updates: "
        f"{listed([update.module for update in missing])}{by_place}; is this the model that the adapter was trained on?"
    )
    raise FormatError(message, path=adapter.checkpoint.files[0].path, tensor=missing[0].first, code="adapter_base")


def _expert_patch(base: Anatomy, adapter: Adapter, module: str, update: Update) -> tuple[str, _Patch] | None:
    """The parameter that holds all experts and fits an update of ``target_parameters``, (E x in x out) or turned."""
    said = adapter.checkpoint.config.get("target_parameters")
    if len(update.shape) != 3 or not isinstance(said, list):
        return None
    words = {name.rpartition(".")[2] for name in said if isinstance(name, str)}
    wrapped = module.partition(".base_layer")[0]
    experts, out, inn = update.shape
    for shape, turned in (((experts, inn, out), True), ((experts, out, inn), False)):
        for name, weight in base.weights.items():
            holder, _, word = name.rpartition(".")
            ends = f".{holder}".endswith(f".{wrapped}") or f".{wrapped}".endswith(f".{holder}")
            if word in words and ends and weight.shape == shape:
                return name, _Patch(update, adapter.scales[module], turned)
    return None


def _width(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape[1:])) if len(shape) > 1 else 1


def _orientation(update: Update, weight: Weight, said: bool) -> bool:
    """Whether the weight is stored (in x out); only for a square one does the config decide."""
    if update.kind in ("ia3", "vera") or update.kind in ROTATIONS:
        return said
    if update.kind == "tokens":
        return False
    shape, mine = weight.shape, update.shape
    # A convolution of 1 x 1 is adapted as a matrix by some.
    straight = shape == mine or (len(mine) != len(shape) and mine[:1] == shape[:1] and _width(mine) == _width(shape))
    transposed = len(mine) == 2 and shape == mine[::-1]
    if update.embedding or not transposed:
        if straight:
            return False
    else:
        return said if straight else True
    message = f"{escape(weight.name)} of the base has shape {list(weight.shape)}, the update {list(update.shape)}"
    raise FormatError(message, tensor=update.first, code="adapter_base")


def _patches_by_place(base: Anatomy, adapter: Adapter) -> dict[str, list[_Patch]] | str:
    """The same through places; a string says why it can't be done."""
    mapped = match_adapter(adapter.weights.shapes, adapter.checkpoint.config)
    by_b: dict[str, list[Any]] = defaultdict(list)
    for assignment in mapped.assignments:
        by_b[assignment.view.weight].append(assignment)
    if any(u.kind != "lora" or "bias" in u.parts for u in adapter.updates.values()) or adapter.plain:
        return ""
    found: dict[str, list[_Patch]] = defaultdict(list)
    for module, update in adapter.updates.items():
        if update.parts["b"] not in by_b:
            return ""
        for assignment in by_b[update.parts["b"]]:
            place = replace(assignment.place, role=assignment.place.role.split(".")[0])
            if place not in base:
                return f" (the base has nothing at {escape(str(place))})"
            view = base[place].view
            n = assignment.view.shape[0]
            shape = update.shape if update.embedding else (n, update.shape[1])
            if view.shape != shape or view.index is not None or view.row_block:
                return f" ({escape(str(place))} of the base has shape {list(view.shape)}, the update {list(shape)})"
            stored = base.weights[view.weight].shape
            rows = np.full(stored[1] if view.transposed else stored[0], -1, np.intp)
            mine = assignment.view.rows.indices() if assignment.view.rows is not None else np.arange(n)
            if update.embedding:
                found[view.weight].append(_Patch(update, adapter.scales[module], False))
                continue
            rows[view.rows.indices() if view.rows is not None else np.arange(n)] = mine
            found[view.weight].append(_Patch(update, adapter.scales[module], view.transposed, rows))
    return dict(found)
