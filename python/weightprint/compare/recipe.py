"""Which mix of which parents a model is: weights, method, layer by layer, and what no parent explains.

One pass makes inner products of child and parents tensor by tensor (:mod:`weightprint.compare.gram`); all fits are made
from these (:mod:`weightprint.compare.mixing`), the method is told by what only it leaves
(:mod:`weightprint.compare.merge_methods`, :mod:`weightprint.compare.sparse_merges`), and of many candidates the fewest
that explain the child are taken (:mod:`weightprint.compare.candidates`).
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import numpy as np

from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.compare.candidates import narrowed, selected
from weightprint.compare.gram import total
from weightprint.compare.merge_methods import Method, body, kept, mixed_whole
from weightprint.compare.mergekit_yaml import mergekit_yaml
from weightprint.compare.mixing import LEFT_BY_ROUNDING, cosines, fit, left
from weightprint.compare.recipe_inputs import Lineup, Model, lineup, models_in
from weightprint.compare.recipe_parts import (
    AdapterFit,
    Mix,
    Search,
    Weight,
    adapter_fit,
    layers,
    named,
    notes,
    roles,
    unexplained,
    unknown_origin,
    weights,
)
from weightprint.compare.sketched_mix import NOTES, sketched_grams, sketched_weights
from weightprint.compare.sparse_merges import Entries, chosen
from weightprint.errors import UsageError
from weightprint.fingerprint.fingerprint import Fingerprint, all_kept
from weightprint.results.saving import json_value, to_json
from weightprint.results.shown import Shown
from weightprint.util.escape import escape
from weightprint.util.progress import Meter, Progress

__all__ = ["AdapterFit", "Mix", "Recipe", "Search", "Weight", "recipe"]

SCHEMA_VERSION = 1
_MANY = 4  # more parents than these are candidates
_SAMPLE = 1 << 16  # values of a tensor, where candidates are looked through
_ENTRIES = (2, 1 << 13)  # matrices, and values of each
_TRIED = 6  # tensors that a set of candidates is tried on first


@dataclass(frozen=True)
class Recipe(Shown):
    """What `recipe` found. Frozen; prints as the command does; ``to_dict`` is the JSON contract.

    Attributes:
        child: MODEL as it was named.
        parents: those that take part, as they were named.
        base: the one that differences are taken from, None where there is none.
        method: ``"copy"``, ``"passthrough"``, ``"linear"``, ``"task_arithmetic"``, ``"slerp"``, ``"ties"``,
            ``"dare_linear"`` or ``"dare_ties"``; None where none explains the child.
        parameters: of the method.
        reproduces: share of the values that the method gives back up to rounding, None without one.
        weights: the parents', over all layers.
        sum_to_one: the weights do.
        layers: the mix layer by layer.
        roles: the mix role by role, what stands outside the layers included.
        unexplained: share of the squared values (with a base: of the squared change from it) that no given parent
            explains.
        dtype: the type that most of the child is stored in.
        unknown_origin: share of the weights that come from none of the parents: another model, or training since.
        adapters: of the parents that are adapters.
        search: where parents were looked for among candidates.
        notes: what was left out, and what could not be aligned.
        seconds: it took.
        bytes_read: of all models.
        version: of weightprint.
        compared: ``"weights"``, or ``"fingerprints"``: no method is told then.

    Example (the models that ``weightprint demo`` writes):
        >>> import weightprint
        >>> recipe = weightprint.recipe("weightprint-demo/finetune", ["weightprint-demo/parent"])
        >>> recipe.explained, recipe.method
        (False, None)
        >>> weightprint.recipe("weightprint-demo/parent", ["weightprint-demo/parent"]).method
        'copy'
    """

    _report = "page.recipe"

    child: str
    parents: tuple[str, ...]
    base: str | None
    method: str | None
    parameters: Mapping[str, Any]
    reproduces: float | None
    weights: tuple[Weight, ...]
    sum_to_one: bool
    layers: tuple[Mix, ...]
    roles: tuple[Mix, ...]
    unexplained: float
    unknown_origin: float
    dtype: str
    adapters: tuple[AdapterFit, ...] = ()
    search: Search | None = None
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    bytes_read: int = 0
    version: str = field(default="")
    compared: str = "weights"

    @property
    def explained(self) -> bool:
        """A known method makes the child of these parents, up to rounding."""
        return self.method is not None

    @property
    def answer(self) -> bool:
        """What the exit code says: the adapters are in it, where some were given; else `explained`."""
        return all(fit.present for fit in self.adapters) if self.adapters else self.explained

    def mergekit(self) -> str | None:
        """The mergekit configuration that would do it again, YAML; None without a method."""
        return mergekit_yaml(self)

    def to_dict(self) -> dict[str, Any]:
        """The JSON contract: keys in its order, only finite numbers."""
        head = {"schema_version": SCHEMA_VERSION, "explained": self.explained}
        return dict(json_value({**head, **asdict(self), "mergekit": self.mergekit()}))

    @classmethod
    def from_dict(cls, out: Mapping[str, Any]) -> Recipe:
        """The recipe whose `to_dict` this is."""
        made = {key: out[key] for key in cls.__dataclass_fields__ if key in out}
        mixes = {key: tuple(_mix(row) for row in out[key]) for key in ("layers", "roles")}
        search = out["search"]
        if search is not None:
            steps = tuple((name, gain, p) for name, gain, p in search["steps"])
            search = Search(search["candidates"], steps, tuple(search["near"]), search["skipped"])
        return cls(
            **{
                **made,
                **mixes,
                "parents": tuple(out["parents"]),
                "weights": tuple(Weight(**row) for row in out["weights"]),
                "adapters": tuple(AdapterFit(**row) for row in out["adapters"]),
                "notes": tuple(out["notes"]),
                "search": search,
            }
        )

    def to_json(self, indent: int | None = 2) -> str:
        """`to_dict` as JSON text."""
        return to_json(self.to_dict(), indent)

    def to_pandas(self) -> Any:
        """One row per layer, as a pandas DataFrame: a column per parent."""
        import pandas

        rows = [
            {"layer": mix.where, **dict(zip(self.parents, mix.weights, strict=True)), "unexplained": mix.unexplained}
            for mix in self.layers
        ]
        return pandas.DataFrame(rows)

    def __repr__(self) -> str:
        found = self.method or f"{self.unexplained:.1%} unexplained"
        return f"<Recipe {escape(self.child)} of {len(self.parents)} parents: {found}>"


def _mix(row: Mapping[str, Any]) -> Mix:
    source = row["source"]
    return Mix(**{**row, "weights": tuple(row["weights"]), "source": None if source is None else (*source,)})


def recipe(
    child: Model | Fingerprint,
    parents: Sequence[Model | Fingerprint] = (),
    *,
    base: Model | Fingerprint | None = None,
    candidates: str | os.PathLike[str] | Iterable[Model] = (),
    seed: int = 0,
    progress: Progress | None = None,
) -> Recipe:
    """Say which mix of which parents a model is, by which method, and what none of them explains.

    Args:
        child: what `weightprint.open` takes, ``base+adapter``, an open Checkpoint, or a fingerprint. With one
            fingerprint all are compared as such: weights with intervals, and no method.
        parents: the same; adapters stand for their base with the adapter merged. More than four are searched through
            like candidates.
        base: the model that differences are taken from (task arithmetic, TIES, DARE); it is a parent too.
        candidates: a folder of models, or models, of which the fewest that explain the child are taken.
        seed: fixes which blocks are drawn for the intervals.
        progress: called as ``progress(bytes_done, bytes_total)``.

    Raises:
        UsageError: no parents; a parent of other shapes (its tensor is named); an adapter without its base;
            candidates beside a fingerprint; fingerprints of different seeds.
        FileChangedError: a file changed while it was read.
        FormatError, OSError, …: as `weightprint.open` does.

    Example (the models that ``weightprint demo`` writes):
        >>> import weightprint
        >>> recipe = weightprint.recipe("weightprint-demo/finetune", ["weightprint-demo/parent"])
        >>> round(recipe.weights[0].value, 1), recipe.explained  # trained on: no mix of the parent
        (1.0, False)
    """
    started = time.perf_counter()
    if isinstance(parents, str | os.PathLike | Checkpoint | Fingerprint):
        parents = [parents]
    kept = all_kept([child, *([] if base is None else [base]), *parents], progress)
    if kept is not None:
        if candidates:
            message = "candidates are looked through by their values: name the fingerprints as parents"
            raise UsageError(message, code="needs_weights")
        return _of_kept(kept[0], kept[1:], base is not None, seed, started)
    child, base, parents = cast("Model", child), cast("Model | None", base), cast("Sequence[Model]", parents)
    more = models_in(candidates) if isinstance(candidates, str | os.PathLike) else list(candidates)
    with lineup(child, parents, base, more) as models, np.errstate(all="ignore"):
        search = None
        if more or len(models.names) > _MANY + (base is not None):
            models, search = _searched(models)
        found = _recipe(models, search, seed, progress, started)
        for anatomy in (models.child, *models.parents):
            for checkpoint in anatomy.checkpoints:
                checkpoint.check_unchanged()
    return found


def _searched(models: Lineup) -> tuple[Lineup, Search]:
    """The lineup of the parents that were found, or of the nearest where none explain the child."""
    grams = models.grams(_SAMPLE)
    n = len(models.names)
    whole = [i for i in range(n) if models.share(i) > 1 - 1e-9 or models.of_adapters]
    sample = models.only(whole).entries(*_ENTRIES) if len(whole) > 1 else Entries((), ())
    equal = np.zeros(n)
    if sample.values:
        equal[whole] = sample.equal
    if models.base is not None:
        equal[models.base] = 1.0
    some = body(grams)[:: max(1, len(body(grams)) // _TRIED)] or grams

    def mixed(keep: Sequence[int]) -> Method | None:
        tried = [narrowed(g, keep) for g in some]
        rest = sum(left(g.products, fit(g.products, kept(g))) for g in tried)
        if rest > (LEFT_BY_ROUNDING + 1) * float(total(tried)[1].sum()) and body(grams):
            return None
        at = keep.index(models.base) if models.base in keep else None
        return mixed_whole([narrowed(g, keep) for g in grams], at, [models.maps[i] for i in keep])

    def sparse(keep: Sequence[int], base: int) -> Method | None:
        if not sample.values or not set(keep) <= set(whole):
            return None
        return chosen(sample.of([whole.index(i) for i in keep]), [keep.index(base)])

    parents, near, steps, explained = selected(grams, equal, mixed, sparse)
    taken = parents or [int(np.argmax(cosines(total(grams)[0])))]
    told = tuple((models.names[s.candidate], s.gain, s.log10_p) for s in steps)
    relatives = [*([] if explained else taken), *near]
    search = Search(n, told, tuple(models.names[i] for i in relatives), models.skipped)
    if models.base is not None and models.base not in taken:
        taken = [models.base, *taken]
    return models.only(sorted(taken)), search


def _recipe(models: Lineup, search: Search | None, seed: int, progress: Progress | None, started: float) -> Recipe:
    n_bytes = sum(anatomy.checkpoint.n_bytes for anatomy in (models.child, *models.parents))
    done, part = 0, Meter(progress, n_bytes).part()

    def tick(n: int) -> None:
        nonlocal done
        done += n
        part(min(done, n_bytes), n_bytes)

    grams = models.grams(None, tick)
    method = mixed_whole(grams, models.base, models.maps)
    if method is None:
        bases = range(len(models.names)) if models.base is None else [models.base]
        method = chosen(models.entries(), bases)
    base = models.base if method is None else method.parameters.get("base", models.base)
    from weightprint import __version__  # the package's own root, which loads this file

    told = weights(grams, models.names, method, seed)
    return Recipe(
        child=models.child.source,
        parents=tuple(models.names),
        base=None if base is None else models.names[base],
        method=None if method is None else method.name,
        parameters={} if method is None else named(method.parameters, models.names),
        reproduces=None if method is None else method.reproduces,
        weights=told,
        sum_to_one=abs(sum(w.value for w in told) - 1) <= 0.005,
        layers=layers(grams, models.names, method, base),
        roles=roles(grams, base),
        unexplained=unexplained(grams, base, method),
        unknown_origin=0.0 if method is not None else unknown_origin(grams),
        dtype=_dtype((w.dtype, w.numel) for w in models.child.weights.values()),
        adapters=tuple(adapter_fit(grams, models, number, method, seed) for number in models.adapters),
        search=search,
        notes=notes(grams, models),
        seconds=time.perf_counter() - started,
        bytes_read=done,
        version=__version__,
    )


def _of_kept(child: Fingerprint, parents: Sequence[Fingerprint], with_base: bool, seed: int, started: float) -> Recipe:
    """From fingerprints; the base, where one was named, is the first of the parents."""
    if not parents:
        raise UsageError("name at least one parent", code="no_parents")
    names, base = [parent.source for parent in parents], 0 if with_base else None
    with np.errstate(all="ignore"):
        grams = sketched_grams(child, parents)
        told = sketched_weights(grams, parents, seed)
    from weightprint import __version__  # the package's own root, which loads this file

    return Recipe(
        child=child.source,
        parents=tuple(names),
        base=names[0] if with_base else None,
        method=None,
        parameters={},
        reproduces=None,
        weights=told,
        sum_to_one=abs(sum(w.value for w in told) - 1) <= 0.005,
        layers=layers(grams, names, None, base),
        roles=roles(grams, base),
        unexplained=unexplained(grams, base, None),
        unknown_origin=unknown_origin(grams),
        dtype=_dtype((t.dtype, t.numel) for t in child.tensors.values()),
        notes=NOTES,
        seconds=time.perf_counter() - started,
        bytes_read=sum(int(f.summary["n_bytes"]) for f in (child, *parents) if f.seconds is not None),
        version=__version__,
        compared="fingerprints",
    )


def _dtype(tensors: Iterable[tuple[str, int]]) -> str:
    """The dtype of most values, of (dtype, values) by tensor."""
    sizes: Counter[str] = Counter()
    for dtype, numel in tensors:
        sizes[dtype] += numel
    return max(sizes, key=lambda dtype: sizes[dtype], default="F32")
