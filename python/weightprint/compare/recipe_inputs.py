"""The models of a recipe, open and brought together: the child, its parents, the base, the candidates.

An adapter among the parents stands for its base with the adapter merged into it, so that its weight is the scale at
which it was folded into the child; the base is the one that is named, else the first parent that is a model. Where the
child is an adapter too, all must be, and they are compared as updates.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from weightprint.anatomy.adapters.adapters import is_adapter_alone, read_adapter
from weightprint.anatomy.adapters.merged import merge_adapter
from weightprint.anatomy.adapters.opened import opened
from weightprint.anatomy.anatomy import Anatomy
from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.compare.adapter_mixes import adapter_grams
from weightprint.compare.gram import Gram, Partners, measured
from weightprint.compare.partners import BlockMap, block_map, partners, reordered, signatures
from weightprint.compare.sparse_merges import Entries, entries
from weightprint.errors import UsageError, WeightprintError
from weightprint.fingerprint.live import Reads, finite_view, outline
from weightprint.fingerprint.model import ModelView, Tensor
from weightprint.util.escape import escape

__all__ = ["Lineup", "Model", "lineup", "models_in"]

Model = str | os.PathLike[str] | Checkpoint

_COMPARABLE = 0.5  # of the child's values in matrices must have a partner in a candidate


@dataclass
class Lineup:
    """Child and parents, open.

    Attributes:
        child: its anatomy.
        parents: theirs; of an adapter its base's with the adapter merged.
        names: the parents as they were named.
        base: number of the base among the parents, None where none was named.
        adapters: numbers of the parents that are adapters.
        of_adapters: child and parents are adapters, compared as updates.
        skipped: candidate → why it is not compared.
    """

    child: Anatomy
    parents: list[Anatomy]
    names: list[str]
    base: int | None
    adapters: tuple[int, ...]
    of_adapters: bool
    skipped: dict[str, str] = field(default_factory=dict)

    @cached_property
    def view(self) -> tuple[ModelView, Reads]:
        """The child's tensors."""
        view, reads = outline(self.child, "b")
        return finite_view(view), reads

    @cached_property
    def views(self) -> list[tuple[ModelView, Reads]]:
        """The parents' tensors."""
        return [(finite_view(view), reads) for view, reads in (outline(parent, "a") for parent in self.parents)]

    @cached_property
    def maps(self) -> list[BlockMap]:
        """Where each block of the child stands in each parent."""
        if self.of_adapters:
            return [{} for _ in self.parents]
        ours = signatures(self.view[0])
        return [block_map(ours, signatures(view)) for view, _ in self.views]

    @cached_property
    def matched(self) -> tuple[list[Partners], list[tuple[int, Tensor, Tensor]]]:
        """The child's tensors with their partners, and what has another shape."""
        return partners(self.view[0], [view for view, _ in self.views], self.maps)

    def grams(self, most: int | None = None, tick: Callable[[int], object] = lambda _: None) -> list[Gram]:
        """Of every tensor that a parent has; see :func:`weightprint.compare.gram.measured`."""
        if self.of_adapters:
            child, *parents = (read_adapter(a.checkpoint) for a in (self.child, *self.parents))
            return adapter_grams(child, parents)
        return measured(self.view[0], [view for view, _ in self.views], self.matched[0], most, tick)

    def entries(self, matrices: int | None = None, most: int | None = None) -> Entries:
        """A sample of entries of all; see :func:`weightprint.compare.sparse_merges.entries`."""
        if self.of_adapters:
            return Entries((), ())
        more = {} if matrices is None or most is None else {"matrices": matrices, "most": most}
        return entries(self.view[0], [view for view, _ in self.views], self.matched[0], **more)

    def share(self, number: int) -> float:
        """Share of the child's values in matrices that have a partner in this parent."""
        rows = [r for r in self.matched[0] if r.child.rank2]
        found = sum(r.child.numel for r in rows if r.parents[number] is not None)
        return found / max(1, sum(r.child.numel for r in rows))

    def reordered(self, number: int) -> bool:
        """Whether this parent's hidden units stand in another order than the child's."""
        return not self.of_adapters and reordered(self.view[0], self.views[number][0], self.matched[0], number)

    def only(self, keep: Sequence[int]) -> Lineup:
        """The same with some of the parents."""
        return Lineup(
            self.child,
            [self.parents[i] for i in keep],
            [self.names[i] for i in keep],
            keep.index(self.base) if self.base in keep else None,
            tuple(k for k, i in enumerate(keep) if i in self.adapters),
            self.of_adapters,
            self.skipped,
        )

    def refuse_unlike(self, named: int) -> None:
        """UsageError (code ``no_common_tensors``) for the first of the `named` parents that has no tensor of the child.

        The candidates behind them are left out and noted in `skipped`.
        """
        if self.of_adapters:
            return
        for number, name in enumerate(self.names[:named]):
            if any(row.parents[number] is not None for row in self.matched[0]):
                continue
            unfit = next(((c, p) for i, c, p in self.matched[1] if i == number), None)
            why = "none of its tensors stands where one of the child's does"
            if unfit is not None:
                ours, theirs = unfit
                shapes = f"is {list(ours.shape)} in the child and {list(theirs.shape)} there"
                why = f"no tensor has the child's shape: {escape(ours.name)} {shapes}"
            message = f"{escape(name)} can't be mixed into {escape(self.child.source)}: {why}"
            raise UsageError(
                message, path=name, tensor=None if unfit is None else unfit[0].name, code="no_common_tensors"
            )


def models_in(folder: str | os.PathLike[str]) -> list[str]:
    """The models of a folder: its subfolders and weight files, in the order of their names.

    Raises UsageError (code ``no_candidates``): there are none.
    """
    inside = sorted(Path(folder).iterdir()) if Path(folder).is_dir() else []
    found = [
        str(p) for p in inside if not p.name.startswith(".") and (p.is_dir() or p.suffix in (".safetensors", ".gguf"))
    ]
    if not found:
        raise UsageError(f"{escape(os.fspath(folder))} holds no models", path=os.fspath(folder), code="no_candidates")
    return found


@contextmanager
def lineup(child: Model, parents: Sequence[Model], base: Model | None, candidates: Iterable[Model]) -> Iterator[Lineup]:
    """Open all; what was opened here is closed behind it.

    Raises:
        UsageError: no parent; an adapter without a base; adapters beside models where the child is an adapter.
        FormatError, OSError, …: a named model can't be read. Candidates that can't are skipped.
    """
    with ExitStack() as stack:
        ours = stack.enter_context(opened(child, values=False))
        named = [base, *parents] if base is not None else [*parents]
        found = [stack.enter_context(opened(model, values=False)) for model in named]
        skipped: dict[str, str] = {}
        others: list[Anatomy] = []
        for model in candidates:
            try:
                others.append(stack.enter_context(opened(model, values=False)))
            except (WeightprintError, OSError) as error:
                skipped[_name(model)] = str(error)
        names = [anatomy.source for anatomy in found]
        alone = [is_adapter_alone(list(anatomy.weights)) for anatomy in found]
        of_adapters = is_adapter_alone(list(ours.weights))
        if not found and not others:
            raise UsageError("name at least one parent, or a folder of candidates", code="no_parents")
        if of_adapters and not all(alone):
            model = found[alone.index(False)].source
            message = f"{escape(ours.source)} is an adapter and {escape(model)} is none: give adapters alone as parents"
            raise UsageError(message, path=ours.source, code="adapter_alone")
        merged = [
            _merged(number, found, alone) if one and not of_adapters else found[number]
            for number, one in enumerate(alone)
        ]
        for anatomy in others:
            if _files(anatomy) == _files(ours):
                skipped[anatomy.source] = "the child itself"
            elif is_adapter_alone(list(anatomy.weights)) != of_adapters:
                skipped[anatomy.source] = "an adapter" if not of_adapters else "no adapter"
            else:
                merged.append(anatomy)
                names.append(anatomy.source)
        adapters = tuple(number for number, one in enumerate(alone) if one and not of_adapters)
        made = Lineup(ours, merged, names, 0 if base is not None else None, adapters, of_adapters, skipped)
        made.refuse_unlike(len(found))
        if others and not of_adapters:
            unlike = [i for i in range(len(found), len(names)) if made.share(i) < _COMPARABLE]
            skipped |= {
                names[i]: "less than half of the child's matrices have a partner of their shape in it" for i in unlike
            }
            made = made.only([i for i in range(len(names)) if i not in unlike])
            if not made.names:
                message = f"none of {len(others)} candidates has the child's shapes"
                raise UsageError(message, path=ours.source, code="no_common_tensors")
        yield made


def _merged(number: int, found: Sequence[Anatomy], alone: Sequence[bool]) -> Anatomy:
    model = next((a for a, one in zip(found, alone, strict=True) if not one), None)
    if model is None:
        name = escape(found[number].source)
        message = f"{name} is an adapter: name its base too, as `recipe CHILD BASE {name}`"
        raise UsageError(message, path=found[number].source, code="adapter_alone")
    return merge_adapter(model, found[number].checkpoint)


def _files(anatomy: Anatomy) -> list[str]:
    return [os.path.realpath(file.path) for file in anatomy.checkpoint.files]


def _name(model: Model) -> str:
    return model.source if isinstance(model, Checkpoint) else os.fspath(model)
