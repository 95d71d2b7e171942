"""What is true of a zoo: who descends from whom, which block came from which, how much training lies between.

Read from the truth.json of every model and the zoo's PLAN.json (the split, vocabularies, shared initialisations);
nothing here looks at weights. The one thing taken from the files themselves is the list of shapes, which says whether
two models have one architecture.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from .model_folder import Truth

Layers = dict[int, int | None]

#: Steps in which every parent but the first gives rows of the token tables and no block.
ROWS_ONLY = frozenset({"vocabulary_stitching", "embedding_replaced"})


@dataclass(frozen=True)
class Member:
    """One model: its folder, its truth, and what its header says of its shape."""

    name: str
    folder: Path
    truth: Truth
    split: str | None
    vocabulary: str
    init_of: str
    teacher: str
    shape: str
    parameters: int
    nbytes: int
    layers: int


@dataclass(frozen=True)
class FamilyTree:
    """All models of a zoo by name."""

    members: Mapping[str, Member]

    @classmethod
    def read(cls, zoo: Path) -> FamilyTree:
        """Every folder of `zoo` with a truth.json; raises SystemExit if there is none."""
        planned = zoo / "PLAN.json"
        plan = json.loads(planned.read_text()) if planned.exists() else {}
        found = {
            path.parent.name: _member(path.parent, plan.get(path.parent.name, {}))
            for path in sorted(zoo.glob("*/truth.json"))
        }
        # A model whose parent is not there (a build that is still running) has no known place in the tree yet.
        while orphans := [n for n, m in found.items() if any(p not in found for p in (*m.truth.parents, *_named(m)))]:
            for name in orphans:
                del found[name]
        if not found:
            raise SystemExit(f"{zoo} holds no model with a truth.json; `python -m benches.lineage build` makes them")
        return cls(found)

    @property
    def roots(self) -> list[str]:
        """The models that were initialised on their own, by name."""
        return [name for name, m in self.members.items() if m.truth.roots == (name,)]

    @cached_property
    def initialisation(self) -> Mapping[str, str]:
        """Root → the root that names its random initialisation: same form, same shapes, same seed."""
        out: dict[str, str] = {}
        first: dict[tuple[str, str, int], str] = {}
        plain_first = sorted(self.roots, key=lambda n: (self.members[n].truth.kind != "root", n))
        for name in plain_first:
            member = self.members[name]
            if member.init_of in out:
                out[name] = out[member.init_of]
                continue
            seed = member.truth.init_seed
            key = (member.truth.form, member.shape, -1 if seed is None else seed)
            out[name] = name if seed is None else first.setdefault(key, name)
        return out

    def clusters(self, name: str) -> frozenset[str]:
        """The independent initialisations whose weights are in a model."""
        return frozenset(self.initialisation[root] for root in self.members[name].truth.roots)

    def side(self, name: str) -> str:
        """`fit`, `test`, or `between` for a model with roots on both sides."""
        sides = {self._side_of_root(root) for root in self.clusters(name)}
        return sides.pop() if len(sides) == 1 else "between"

    def _side_of_root(self, root: str) -> str:
        stated = self.members[root].split
        return stated or ("fit" if hashlib.sha256(root.encode()).digest()[0] % 2 else "test")

    def texts(self, name: str) -> frozenset[str]:
        """What the roots of a model were trained on, and in which vocabulary."""
        roots = (self.members[root] for root in self.members[name].truth.roots)
        return frozenset(f"{root.vocabulary} {root.truth.text}" for root in roots if root.truth.text)

    def teachers(self, name: str) -> frozenset[str]:
        """Initialisations that a model's roots were distilled from: no weights of theirs are in it."""
        students = (self.members[root] for root in self.members[name].truth.roots)
        named = {p for s in students if s.truth.kind == "distilled" for p in (*s.truth.parents, s.teacher)}
        parents = named & self.members.keys()
        return frozenset().union(*(self.clusters(parent) for parent in parents)) if parents else frozenset()

    # Descent

    def paths(self, name: str) -> Mapping[str, tuple[str, ...]]:
        """Every model whose weights are in `name`, itself first → the way up to it, from `name`; shortest first."""
        out: dict[str, tuple[str, ...]] = {name: (name,)}
        queue = [name]
        while queue:
            here = queue.pop(0)
            truth = self.members[here].truth
            if truth.kind in ("shared_init", "distilled"):
                continue  # its parents gave it no trained weights
            for parent in truth.parents:
                if parent not in out:
                    out[parent] = (*out[here], parent)
                    queue.append(parent)
        return out

    def meet(self, a: str, b: str) -> str | None:
        """The latest model that both descend from (or one of the two); None for strangers."""
        ours, theirs = self.paths(a), self.paths(b)
        common = [name for name in ours if name in theirs]
        return min(common, key=lambda n: (len(ours[n]) + len(theirs[n]), n)) if common else None

    def later(self, a: str, b: str) -> str | None:
        """`"a"` or `"b"` if one descends from the other."""
        met = self.meet(a, b)
        return None if met not in (a, b) or a == b else "b" if met == a else "a"

    def operations(self, ancestor: str, child: str) -> list[Mapping[str, Any]]:
        """All that was done from the ancestor to the child, in order."""
        path = self.paths(child).get(ancestor, (child,))
        return [operation for name in reversed(path[:-1]) for operation in self.members[name].truth.operations]

    def training(self, a: str, b: str) -> float | None:
        """Tokens seen by either since they parted, as a multiple of what their common root had seen."""
        met = self.meet(a, b)
        if met is None:
            return None
        seen = [self.members[name].truth.total_tokens for name in (a, b, met)]
        root = max(self.members[r].truth.total_tokens for r in self.members[met].truth.roots)
        return max(0, seen[0] + seen[1] - 2 * seen[2]) / root if root else None

    # Maps

    def layers(self, ancestor: str, child: str) -> Layers:
        """Block of the child → block of the ancestor that it was made from, None for a new one."""
        path = self.paths(child)[ancestor]
        out: Layers = {i: i for i in range(self._depth(child))}
        for here, above in itertools.pairwise(path):
            if self._gave_rows_only(here, above):
                return dict.fromkeys(out)
            stated = {row[0]: row[1] for row in self.members[here].truth.layer_map.get(above, ())}
            depth = self._depth(above)
            out = {i: None if j is None else stated.get(j, j if j < depth else None) for i, j in out.items()}
        return out

    def _depth(self, name: str) -> int:
        """Blocks; those of its parent where it has no config and only its names were changed."""
        member = self.members[name]
        if member.layers or not member.truth.parents or member.truth.layer_map:
            return member.layers
        return self._depth(member.truth.parents[0])

    def _gave_rows_only(self, child: str, parent: str) -> bool:
        """This parent's blocks are not in the child: only rows of its token tables are."""
        truth = self.members[child].truth
        of_two = {o["name"] for o in truth.operations if o["name"] in ROWS_ONLY or str(o["name"]).endswith("merge")}
        return parent != truth.parents[0] and bool(of_two) and of_two <= ROWS_ONLY

    def layer_truth(self, a: str, b: str) -> dict[int, set[int | None]] | None:
        """Block of B → the blocks of A that came from the same one; {None} where there is none. None for strangers."""
        met = self.meet(a, b)
        if met is None:
            return None
        ours, theirs = self.layers(met, a), self.layers(met, b)
        out: dict[int, set[int | None]] = {}
        for i, origin in theirs.items():
            found: set[int | None] = {j for j, from_there in ours.items() if from_there == origin}
            out[i] = found if origin is not None and found else {None}
        return out

    def expert_truth(self, a: str, b: str) -> dict[tuple[int, int | None], set[tuple[int, int | None]]] | None:
        """(block, expert) of B → the blocks and experts of A in it, where experts were made, moved or merged on the way
        down from A; None for an FFN that is dense, and the whole where not known."""
        path = self.paths(b).get(a)
        if path is None:
            return None
        made = [name for name in path[:-1] if self.members[name].truth.expert_map]
        if len(made) != 1:
            return None
        below = self.layers(made[0], b)
        above = self.layers(a, path[path.index(made[0]) + 1])
        stated: dict[tuple[int, int | None], set[tuple[int, int | None]]] = defaultdict(set)
        for row in self.members[made[0]].truth.expert_map:
            stated[row[0], row[1]].add((row[2], row[4] if len(row) > 4 else None))
        out: dict[tuple[int, int | None], set[tuple[int, int | None]]] = {}
        for layer, there in below.items():
            for (block, expert), origins in stated.items():
                sources = {(up, e) for origin, e in origins if (up := above.get(origin)) is not None}
                if block == there and sources:
                    out[(layer, expert)] = sources
        return out

    def __iter__(self) -> Iterator[str]:
        return iter(self.members)

    def __getitem__(self, name: str) -> Member:
        return self.members[name]


def _named(member: Member) -> tuple[str, ...]:
    return tuple(root for root in member.truth.roots if root != member.name)


def _member(folder: Path, plan: Mapping[str, Any]) -> Member:
    raw = json.loads((folder / "truth.json").read_text())
    known = {f.name for f in fields(Truth)}
    values = {key: value for key, value in raw.items() if key in known}
    for key in ("roots", "parents", "operations"):
        values[key] = tuple(values.get(key, ()))
    config = json.loads((folder / "config.json").read_text()) if (folder / "config.json").exists() else {}
    shapes: dict[str, list[int]] = {}
    nbytes = 0
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as stream:
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        shapes |= {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
        nbytes += file.stat().st_size
    layers = next((int(config[key]) for key in ("num_hidden_layers", "n_layer") if key in config), 0)
    numel = sum(math.prod(shape) for shape in shapes.values())
    text = json.dumps(sorted(shapes.items()))
    return Member(
        name=folder.name,
        folder=folder,
        truth=Truth(**values),
        split=plan.get("split", raw.get("split")),
        vocabulary=str(plan.get("recipe", {}).get("vocabulary", "")),
        init_of=str(plan.get("init_of", "")),
        teacher=str(plan.get("teacher", "")),
        shape=hashlib.sha256(text.encode()).hexdigest()[:16],
        parameters=numel,
        nbytes=nbytes,
        layers=layers,
    )
