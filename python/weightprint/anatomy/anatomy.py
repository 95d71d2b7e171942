"""An anatomy: every weight of a checkpoint with its place, and canonical tensors read through it.

The table of families goes first, inference takes what it leaves, and what neither can place is ``unmapped``, by name:
nothing is dropped. Reading is lazy and partial: a view says which stored rows, in which order and transposed or not,
make a canonical tensor, so asking for ten rows of layer 7's key projection reads ten rows (or ten columns) of whatever
holds it.

*Folded norms.* In a pre-norm block a matrix W reads γ ⊙ x̂ + β, so W·diag(γ) acts on the bare normalised state x̂, and
its bias becomes b + W·β. Copies that move γ into W and reset it to one agree after folding (``fold_norms=True``).

*Products.* Multi-head latent attention stores q = W_qb · W_qa and, per head, k = [W_kb · W_kva ; rotary rows of W_kva],
v = W_vb · W_kva (DeepSeek-V2, eq. 9-19). With ``products=True`` these come out as the q, k and v of plain attention;
folding puts the latent's norm gain in between.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property, partial
from math import prod
from typing import Any

import numpy as np

from weightprint.anatomy.adapters.adapters import is_adapter, match_adapter
from weightprint.anatomy.adapters.dialects import updates_of
from weightprint.anatomy.adapters.summary import AdapterSummary, summaries
from weightprint.anatomy.family import Family
from weightprint.anatomy.match import match
from weightprint.anatomy.place import Assignment, Expert, Geometry, Place, View
from weightprint.anatomy.products import PRODUCTS
from weightprint.anatomy.roles import bias_of, matrix_of, role_of
from weightprint.checkpoint.checkpoint import Checkpoint, open
from weightprint.errors import TensorNotFoundError, UsageError
from weightprint.quant.weights import Weights
from weightprint.results.finding import Finding
from weightprint.results.shown import Shown
from weightprint.util.arrays import F32
from weightprint.util.escape import escape


class Anatomy(Shown):
    """The map of one checkpoint. Made by :func:`anatomy`; never changes; pickles with its checkpoint.

    Attributes:
        checkpoint: what it maps.
        weights: name → `Weight`: the stored tensors, quantised ones put together.
        assignments: one per canonical tensor, in file order.
        unmapped: names of the weights without a place, in file order.
        families: stack → the row of the table that it was recognised by; a stack that was inferred is not in it.
        geometry: stack → its sizes.
        findings: what was noticed, such as a fused tensor whose parts don't add up.

    Example (the models that ``weightprint demo`` writes):
        >>> import weightprint
        >>> model = weightprint.anatomy("weightprint-demo/moe")
        >>> model
        <Anatomy weightprint-demo/moe: deepseek_moe; decoder: 5 blocks; 98 canonical tensors, 0 weights unmapped>
        >>> model.geometry["decoder"].experts
        4
    """

    _report = "anatomy"

    checkpoint: Checkpoint
    weights: Weights
    assignments: tuple[Assignment, ...]
    unmapped: tuple[str, ...]
    families: Mapping[str, Family]
    geometry: Mapping[str, Geometry]
    findings: tuple[Finding, ...]

    def __init__(self, checkpoint: Checkpoint, *, values: bool = True, weights: Weights | None = None) -> None:
        weights = Weights(checkpoint) if weights is None else weights
        shapes = weights.shapes
        adapter = is_adapter(shapes)
        matched = (match_adapter if adapter else match)(shapes, checkpoint.config)
        assignments = list(matched.assignments)
        if matched.unmatched and not adapter:  # factors of low rank have no shape to infer from
            # Imported where most models never come: it takes a fifth of the start-up.
            from weightprint.anatomy.infer.infer import infer

            read = weights.read if values else None
            assignments += infer(shapes, matched.unmatched, matched.assignments, read)
        order = {name: k for k, name in enumerate(shapes)} if assignments else {}
        by_place: dict[Place, Assignment] = {}
        kept: list[Assignment] = []
        findings = [*weights.findings, *(Finding("anatomy", "note", note) for note in matched.notes)]
        for a in sorted(assignments, key=lambda a: order[a.view.weight]):
            first = by_place.setdefault(a.place, a)
            if first is a or a.place.part == "fixed":  # a block may have any number of buffers
                kept.append(a)
            else:
                findings.append(_two_claims(a, first))
        mapped = {a.view.weight for a in kept}
        # Of an adapter's factors the module is known by name, if not by place.
        factors = {name for update in updates_of(shapes)[0] for name in update.names} - mapped if adapter else set()
        self.__dict__.update(
            checkpoint=checkpoint,
            weights=weights,
            assignments=tuple(kept),
            unmapped=tuple(name for name in shapes if name not in mapped and name not in factors),
            families=dict(matched.families),
            geometry={**_counted(by_place), **matched.geometry},
            findings=tuple(findings),
            _by_place=by_place,
            adapter_factors=frozenset(factors),
            _is_adapter=adapter,
            _values=values,
        )

    _by_place: dict[Place, Assignment]
    adapter_factors: frozenset[str]  # adapters' tensors whose modules have no place
    _is_adapter: bool
    _values: bool

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"an Anatomy never changes: can't set {name!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(Anatomy, self.checkpoint, values=self._values), ()

    def __repr__(self) -> str:
        stacks = ", ".join(f"{name}: {g.blocks} blocks" for name, g in self.geometry.items())
        return (
            f"<Anatomy {escape(self.checkpoint.source)}: {self.family or 'unknown family'}; {stacks or 'no blocks'}; "
            f"{len(self.assignments):,} canonical tensors, {len(self.unmapped):,} weights unmapped>"
        )

    @property
    def source(self) -> str:
        """MODEL as it was named."""
        return self.checkpoint.source

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """All whose values it reads."""
        return (self.checkpoint,)

    @property
    def touched(self) -> frozenset[str]:
        """Weights whose values are not those that the files hold: what an adapter merged into it changes."""
        return frozenset()

    # What is where

    @cached_property
    def adapters(self) -> tuple[AdapterSummary, ...]:
        """The adapters in it; empty for most models."""
        if not self._is_adapter:
            return ()
        roles = {name: "+".join(matrix_of(a.place.role) for a in parts) for name, parts in self._by_weight.items()}
        return summaries(self.weights, roles)

    @property
    def family(self) -> str | None:
        """The families' names, main stack first, joined by ``+``; None when everything was inferred."""
        first = [self.main_stack] if self.main_stack in self.families else []
        names = dict.fromkeys(self.families[stack].name for stack in (*first, *self.families))
        return " + ".join(names) or None

    @cached_property
    def main_stack(self) -> str:
        """The stack that is meant when none is named: the decoder, else the one with the most parameters.

        A stack that the table knows goes before one that was inferred.
        """
        sizes: Counter[str] = Counter()
        for a in self.assignments:
            if a.place.block is not None:
                sizes[a.place.stack] += prod(a.view.shape)
        sizes = Counter({stack: n for stack, n in sizes.items() if stack in self.families}) or sizes
        return "decoder" if "decoder" in sizes or not sizes else sizes.most_common(1)[0][0]

    @cached_property
    def stacks(self) -> dict[str, list[Assignment]]:
        """The canonical tensors of each stack, in file order."""
        found: dict[str, list[Assignment]] = {}
        for a in self.assignments:
            found.setdefault(a.place.stack, []).append(a)
        return found

    def places(self) -> list[Place]:
        """All places, outside first, then block by block."""
        return sorted(self._by_place, key=lambda place: place.sort_key)

    def __contains__(self, place: object) -> bool:
        return place in self._by_place

    def __getitem__(self, place: Place) -> Assignment:
        """What sits at a place; raises TensorNotFoundError, which says what its block has."""
        if place not in self._by_place:
            raise self._no_such_place(place)
        return self._by_place[place]

    def of(self, weight: str) -> tuple[Assignment, ...]:
        """All canonical tensors that are cut from one weight."""
        return self._by_weight.get(weight, ())

    def parameters(self) -> dict[str, int]:
        """Elements by part, largest first, every weight counted once; those without a place under ``"unmapped"``."""
        counts: Counter[str] = Counter()
        shapes = self.weights.shapes
        for a in self.assignments:
            if not a.tied:
                counts[a.place.part] += prod(a.view.shape)
        counts["adapter"] += sum(prod(shapes[name]) for name in self.adapter_factors)
        counts["unmapped"] += sum(prod(shapes[name]) for name in self.unmapped)
        return {part: n for part, n in counts.most_common() if n}

    def to_dict(self) -> dict[str, Any]:
        """Everything known of the map, ready for JSON."""
        told = {"adapters": [adapter.to_dict() for adapter in self.adapters]} if self.adapters else {}
        return {
            **told,
            "family": self.family,
            "stacks": {
                name: {"family": f.name if (f := self.families.get(name)) else None, **g.to_dict()}
                for name, g in self.geometry.items()
            },
            "parameters": self.parameters(),
            "tensors": [a.to_dict() for a in self.assignments],
            "unmapped": list(self.unmapped),
            "findings": [finding.to_dict() for finding in self.findings],
        }

    # Values

    def tensor(
        self,
        block: int | None,
        role: str,
        *,
        expert: Expert = None,
        stack: str | None = None,
        rows: slice | None = None,
        columns: slice | None = None,
        fold_norms: bool = False,
        products: bool = False,
    ) -> F32:
        """One canonical tensor, float32, (out x in); reads only what the asked part needs.

        Args:
            block: number of the block; None for what stands outside (``"embedding"``, ``"head"``, ``"final_norm"``).
            role: see :data:`weightprint.anatomy.roles.ROLES`; a bias is ``"q_bias"``.
            expert: a routed expert's number, or ``"shared"``.
            stack: ``"decoder"``, ``"encoder"``, ``"vision"``, …; None: `main_stack`.
            rows: which canonical rows (elements of a vector), a slice without step; None: all.
            columns: which columns of a matrix; None: all.
            fold_norms: multiply the gain of the norm in front into the columns (and its offset into the bias). What no
                norm feeds comes out as it is. A norm gain itself comes out as it acts, with the family's offset.
            products: let MLA's low-rank pairs answer for q, k and v.

        Raises:
            TensorNotFoundError: nothing there; says what the block has.
            UsageError: a part that the tensor does not have.
        """
        place = Place(stack or self.main_stack, block, role, expert)
        if products and place not in self._by_place and role in PRODUCTS:

            def factor(role: str, rows: slice | None, columns: slice | None) -> F32:
                return self.tensor(block, role, stack=place.stack, rows=rows, columns=columns, fold_norms=fold_norms)

            return PRODUCTS[role](factor, self.geometry.get(place.stack), place, rows, columns)
        if not fold_norms:
            return self.read(self[place].view, rows, columns)
        if role_of(role).part == "norm":
            gain: F32 = self.read(self[place].view, rows) + np.float32(self.offset(place))
            return gain
        if role != matrix_of(role):
            return self._folded_bias(place, rows)
        values = self.read(self[place].view, rows, columns)
        norm = self.norm_before(place)
        if norm is None or values.ndim != 2:
            return values
        gain = self.tensor(norm.block, norm.role, stack=norm.stack, rows=columns, fold_norms=True)
        return values * gain if gain.size == values.shape[1] else values

    def norm_before(self, place: Place) -> Place | None:
        """The norm whose output the matrix at `place` reads, in a pre-norm stack; None where there is none."""
        family = self.families.get(place.stack)
        if family is not None and not family.pre_norm:
            return None
        candidates = (Place(place.stack, place.block, norm) for norm in role_of(matrix_of(place.role)).norms)
        return next((norm for norm in candidates if norm in self._by_place), None)

    def read(self, view: View, rows: slice | None = None, columns: slice | None = None) -> F32:
        """The part of a view: canonical rows and columns, float32."""
        chosen = range(*(rows or slice(None)).indices(view.shape[0] if view.shape else 1))
        if chosen.step != 1:
            raise UsageError("rows are read in runs: a slice with a step is not supported", code="bad_step")
        if view.rows is None:
            return self._stored(view, slice(chosen.start, max(chosen.start, chosen.stop)), columns)
        if view.rows.contiguous:
            first = view.rows.start + chosen.start
            return self._stored(view, slice(first, first + len(chosen)), columns)
        wanted = view.rows.indices()[chosen.start : chosen.start + len(chosen)]
        if not wanted.size:
            return self._stored(view, slice(0, 0), columns)
        first = int(wanted.min())
        return self._stored(view, slice(first, int(wanted.max()) + 1), columns)[wanted - first]

    def _stored(self, view: View, rows: slice, columns: slice | None) -> F32:
        """Rows before they are chosen from: of weight[index], transposed if the view is."""
        if view.transposed:
            columns, rows = rows, columns or slice(None)
        index = view.index
        if view.row_block and index is not None:
            start, stop, _ = rows.indices(view.row_block)
            rows, index = slice(index * view.row_block + start, index * view.row_block + stop), None
        values = self.weights.read(view.weight, rows, columns, index)
        return np.ascontiguousarray(values.T) if view.transposed else values

    def slices(self, place: Place, values: int = 1 << 20) -> Iterator[tuple[int, F32]]:
        """A canonical tensor in runs of whole rows of about `values` elements: (first row, rows)."""
        view = self[place].view
        n_rows = view.shape[0] if view.shape else 1
        step = max(1, values // max(1, prod(view.shape[1:])))
        for start in range(0, n_rows, step):
            yield start, self.read(view, slice(start, min(start + step, n_rows)))

    def offset(self, place: Place) -> float:
        """What acts there beyond what is stored: 1 for the gains of Gemma's norms, kept as distances from it."""
        family = self.families.get(place.stack)
        is_gain = role_of(place.role).part == "norm" and place.role == matrix_of(place.role)
        return family.norm_offset if is_gain and family and place.role not in family.plain_norms else 0.0

    # Inside

    @cached_property
    def _by_weight(self) -> dict[str, tuple[Assignment, ...]]:
        found: dict[str, list[Assignment]] = {}
        for a in self.assignments:
            found.setdefault(a.view.weight, []).append(a)
        return {name: tuple(parts) for name, parts in found.items()}

    def _folded_bias(self, place: Place, rows: slice | None) -> F32:
        """b + W·β: what the bias is once the norm's offset is folded; W·β alone where no bias is stored."""
        bias = self.read(self[place].view, rows) if place in self._by_place else None
        matrix = Place(place.stack, place.block, matrix_of(place.role), place.expert)
        norm = self.norm_before(matrix)
        offset = norm and Place(norm.stack, norm.block, bias_of(norm.role))
        if offset is None or offset not in self._by_place or matrix not in self._by_place:
            if bias is None:
                raise self._no_such_place(place)
            return bias
        moved = self.read(self[matrix].view, rows) @ self.read(self[offset].view)
        return moved if bias is None else bias + moved

    def _no_such_place(self, place: Place) -> TensorNotFoundError:
        here = [p for p in self._by_place if (p.stack, p.block) == (place.stack, place.block)]
        experts = [p.expert for p in here if p.role == place.role and p.expert is not None]
        if experts and place.expert is None:
            hint = f"; {len(experts)} experts have one: name the expert"
        elif here:
            where = "outside the blocks" if place.block is None else f"block {place.block}"
            roles = sorted({p.role for p in here}, key=lambda role: (len(role), role))
            hint = f"; {where} of {escape(place.stack)} has {', '.join(roles[:24])}"
        else:
            stacks = ", ".join(f"{escape(name)} (blocks 0..{g.blocks - 1})" for name, g in self.geometry.items())
            hint = f"; stacks: {stacks}" if stacks else "; no block was recognised"
        return TensorNotFoundError(f"nothing at {escape(str(place))}{hint}", tensor=str(place), code="no_such_place")


def anatomy(model: str | os.PathLike[str] | Checkpoint, *, values: bool = True) -> Anatomy:
    """Map a checkpoint: which tensor is layer 7's up-projection, however it is named, fused, transposed or quantised.

    Args:
        model: what `weightprint.open` takes, or an open Checkpoint.
        values: where names are not in the table, samples of values may be read to tell roles apart; False: headers
            only.

    Raises:
        FormatError, OSError, …: as `weightprint.open` does.

    Example (the models that ``weightprint demo`` writes):
        >>> import weightprint
        >>> model = weightprint.anatomy("weightprint-demo/moe")
        >>> model.tensor(2, "up", expert=1, rows=slice(0, 64)).shape  # float32, (out x in); reads 64 rows
        (64, 48)
        >>> model.parameters()["router"]
        960
    """
    return Anatomy(open(model), values=values)


def _counted(by_place: Mapping[Place, Assignment]) -> dict[str, Geometry]:
    """Blocks per stack, for stacks that no row of the table knows."""
    blocks: dict[str, set[int]] = {}
    for place in by_place:
        found = blocks.setdefault(place.stack, set())
        if place.block is not None:
            found.add(place.block)
    return {stack: Geometry(len(numbers)) for stack, numbers in blocks.items()}


def _two_claims(a: Assignment, first: Assignment) -> Finding:
    return Finding(
        "two_claims",
        "warning",
        f"{escape(a.view.weight)} and {escape(first.view.weight)} both look like {a.place}; the first one is taken",
        tensor=a.view.weight,
    )
