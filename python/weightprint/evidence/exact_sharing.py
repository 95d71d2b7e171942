"""Exact sharing: the same bytes under any name, in any shard, in any order.

Two tensors are equal when dtype, shape and BLAKE3 digest of their raw bytes agree. Trivial tensors (constant, or
fewer than 64 elements or distinct values) count towards *identical* but are never evidence; neither are tensors that
an architecture may fix (position tables, inverse frequencies, filter banks): two strangers compute the same ones.
Position tables are told by name and, under any name, by value: a row of d/2 sines and d/2 cosines has sum of squares
d/2.

There is no p-value. Equal bytes of a learned tensor don't happen by chance: 64 distinct 16-bit values carry hundreds
of bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from weightprint.anatomy.roles import matrix_of
from weightprint.evidence.evidence import Details, Evidence, Shared, not_applied
from weightprint.evidence.pair import ModelPair
from weightprint.evidence.test import Test
from weightprint.fingerprint.model import ModelView, Tensor

_LISTED = 200  # names listed in details

_QUESTION = Evidence(
    test="exact_sharing",
    asked="Which tensors of B are in A bit for bit, whatever their names?",
    null="none: equality is checked, not estimated",
    assumes="a shared tensor was learned, not computed by a formula that both architectures use; known fixed tables "
    "are left out",
    blind_to="any change of a single bit: precision, order of rows, permutation, training",
    statistic_of="tensors of B found in A, trivial and fixed ones left out",
    effect_of="their share of B's parameters",
)


@dataclass(frozen=True)
class ExactSharing(Details):
    """Numbers of tensors, and the first names: ``renamed`` holds those of B and A. ``one_file``: A and B are the same
    files (device and inode), and no value was compared."""

    n_equal: int
    n_trivial: int
    n_fixed: int
    n_only_in_a: int
    n_only_in_b: int
    renamed: Sequence[tuple[str, str]]
    only_in_a: Sequence[str]
    only_in_b: Sequence[str]
    one_file: bool = False


def _mirrored(told: ExactSharing, names: Mapping[str, str], models: ModelPair) -> ExactSharing:
    return replace(
        told,
        n_only_in_a=told.n_only_in_b,
        n_only_in_b=told.n_only_in_a,
        only_in_a=told.only_in_b,
        only_in_b=told.only_in_a,
        renamed=[(old, new) for new, old in told.renamed],
    )


@partial(Test, details=ExactSharing, mirrored=_mirrored, exact_values=True, kept="identity")
def exact_sharing(models: ModelPair) -> Evidence:
    """Digests of all tensors of A against all of B. ``found`` lists every equal tensor that is evidence."""
    a, b = models.a, models.b
    if not models.budget.whole and not models.one_file:
        return not_applied(_QUESTION, "quick effort reads samples, and a digest needs every byte")
    if not b.tensors or (
        not models.one_file and any(t.digest is None for side in (a, b) for t in side.tensors.values())
    ):
        return not_applied(_QUESTION, "no digests to compare")
    in_a: dict[_Content, str] = {}
    for tensor in a.tensors.values():
        in_a.setdefault(_content(tensor), tensor.name)
    in_b = {_content(tensor) for tensor in b.tensors.values()}

    found: list[Shared] = []
    renamed: list[tuple[str, str]] = []
    trivial = fixed = 0
    only_b: list[str] = []
    for tensor in b.tensors.values():
        name, twin = in_a.get(_content(tensor)), a.tensors.get(tensor.name)
        if name is None:
            only_b.append(tensor.name)
            continue
        name = tensor.name if twin is not None and _content(twin) == _content(tensor) else name
        if name != tensor.name:
            renamed.append((tensor.name, name))
        if b.is_trivial(tensor):
            trivial += 1
        elif is_fixed(b, tensor):
            fixed += 1
        else:
            found.append(Shared(tensor.name, name, "exact", tensor.numel))
    only_a = [t.name for t in a.tensors.values() if _content(t) not in in_b]
    shared = sum(f.numel for f in found)
    says = (
        f"{len(found)} of {len(b.tensors)} tensors of B are in A bit for bit ({shared / max(b.numel, 1):.1%} of "
        f"B's parameters)"
    )
    if models.one_file:
        says = f"A and B are the same file (device and inode): {says}"
    if renamed:
        says += f", {len(renamed)} of the equal ones under another name"
    if trivial + fixed:
        says += f"; {trivial + fixed} more are equal but trivial or fixed, which shows nothing"
    return replace(
        _QUESTION,
        says=says,
        statistic=float(len(found)),
        effect=shared / max(b.numel, 1),
        n=len(b.tensors),
        found=tuple(found),
        details=ExactSharing(
            n_equal=len(b.tensors) - len(only_b),
            n_trivial=trivial,
            n_fixed=fixed,
            n_only_in_a=len(only_a),
            n_only_in_b=len(only_b),
            renamed=renamed[:_LISTED],
            only_in_a=only_a[:_LISTED],
            only_in_b=only_b[:_LISTED],
            one_file=models.one_file,
        ),
    )


#: Dtype, shape and digest; where none was taken, of one file, the name.
_Content = tuple[str, tuple[int, ...], str]


def _content(tensor: Tensor) -> _Content:
    return tensor.dtype, tensor.shape, tensor.name if tensor.digest is None else tensor.digest


def is_fixed(side: ModelView, tensor: Tensor) -> bool:
    """True for a table that an architecture computes: by its name, or by its values."""
    return is_position(tensor) or side.is_computed(tensor)


def is_position(tensor: Tensor) -> bool:
    """A table of positions: learned in some models, sines and cosines in others, which names don't tell apart."""
    return tensor.place is not None and matrix_of(tensor.place.role) in ("position", "relative_bias")
