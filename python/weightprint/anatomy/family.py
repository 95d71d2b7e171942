"""What a row of the table of families says.

A family of models is one :class:`Family`: for each of its stacks a block template and two tables, module name → role.
Nothing about a family is code. Names are written in their shortest form, without the prefixes that wrapping adds
(``model.``, ``transformer.``, ``language_model.``): whatever stands before the block template in a checkpoint is the
prefix, and outside names may carry it or any leading part of it.

``self_attn.q_proj=q`` covers ``….weight`` (or ``.gamma``, ``.scale``) as ``q``, ``….bias`` (``.beta``) as ``q_bias``,
and a parameter of exactly that name. ``{e}`` stands for an expert's number, ``{q,k,v}`` on both sides for one entry
each. What a parameter holds is written so:

=================  ====================================================================================================
``q``              one role
``q|k|v``          rows of q, then of k, then of v
``q/k/v``          for every key-value head: its queries, its key, its value
``o.T``            stored (in x out), as GPT-2's Conv1D and experts in one tensor often are
``[e]up``          a leading axis runs over experts
``shared:up``      of the expert that sees every token
=================  ====================================================================================================

Rarer ways of storing have functions: :func:`grouped`, :func:`alternating`, :func:`in_rows`, :func:`paired`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache
from itertools import cycle
from typing import Any


class Layout(StrEnum):
    """How roles share the rows of a tensor."""

    WHOLE = "whole"  # one role has all
    STACKED = "stacked"  # one role's rows after the other's
    #: Per key-value head, that head's queries, its key, its value (with as many key-value heads as heads: q, k, v).
    GROUPED = "grouped"
    ALTERNATING = "alternating"  # row by row in turn


class Experts(StrEnum):
    """Where in a tensor experts are."""

    AXIS = "axis"  # the leading axis runs over them
    ROWS = "rows"  # they lie one below the other in a matrix
    SHARED = "shared"  # it is that of the expert that sees every token


@dataclass(frozen=True, slots=True)
class Cell:
    """What one module's parameter holds.

    Attributes:
        roles: one role, or several that share the tensor along its output axis.
        layout: how they share it.
        transposed: stored (in x out).
        experts: where experts are in it; None: nowhere, or one tensor for each.
        pairs: the rows of each head are stored as rotary pairs (Meta's layout, and GGUF's for Llama).
        groups: if grouped: so many groups of equal parts, whatever the heads (CodeGen's cores); 0: by heads.
    """

    roles: tuple[str, ...]
    layout: Layout = Layout.WHOLE
    transposed: bool = False
    experts: Experts | None = None
    pairs: bool = False
    groups: int = 0


Table = dict[str, Cell]
#: Entries as text, or a table.
Part = str | Table

_BRACES = re.compile(r"\{([^{}]*,[^{}]*)\}")
_CELL = re.compile(r"(?P<experts>\[e\]|shared:)?(?P<roles>[\w|/]+)(?P<transposed>\.T)?")


@cache
def cell(text: str) -> Cell:
    """``"[e]gate|up.T"`` → a Cell."""
    found = _CELL.fullmatch(text)
    assert found is not None, text
    roles = tuple(re.split(r"[|/]", found["roles"]))
    layout = Layout.GROUPED if "/" in text else Layout.STACKED if "|" in text else Layout.WHOLE
    experts = {"[e]": Experts.AXIS, "shared:": Experts.SHARED}.get(found["experts"])
    return Cell(roles, layout, found["transposed"] is not None, experts)


def table(*parts: Part) -> Table:
    """``"attn.qkv=q|k|v attn.proj=o"``: names and what they hold; tables are merged, the last one counts."""
    whole: Table = {}
    for part in parts:
        if not isinstance(part, str):
            whole |= part
            continue
        for entry in part.split():
            names, held = (_each(text) for text in entry.split("="))
            assert len(held) in (1, len(names)), entry
            whole |= {name: cell(text) for name, text in zip(names, cycle(held), strict=False)}
    return whole


def _each(text: str) -> list[str]:
    """``"{q,k}_proj"`` → ``["q_proj", "k_proj"]``."""
    found = _BRACES.search(text)
    return [text] if found is None else [text[: found.start()] + w + text[found.end() :] for w in found[1].split(",")]


def under(prefix: str, *parts: Part) -> Table:
    """A table whose names stand behind `prefix`."""
    return {prefix + name: held for name, held in table(*parts).items()}


def grouped(text: str, groups: int) -> Cell:
    """So many groups of equal parts, whatever the heads."""
    return replace(cell(text), groups=groups)


def alternating(text: str) -> Cell:
    """Row 0 is the first role's, row 1 the second's, and so on in turn."""
    return replace(cell(text), layout=Layout.ALTERNATING)


def in_rows(text: str) -> Cell:
    """All experts in one matrix, one below the other."""
    return replace(cell(text), experts=Experts.ROWS)


def paired(text: str) -> Cell:
    """Each head's rows stored as rotary pairs."""
    return replace(cell(text), pairs=True)


@dataclass(frozen=True)
class Stack:
    """One run of blocks: ``block`` is a template with ``{b}``, ending in a dot; `inside` names follow it.

    `outside` are the tensors that belong to the stack but to no block. ``name`` is ``decoder``, ``encoder``,
    ``vision``, ``audio``, ``text``, ``mtp``. ``tied_head``: where no head is stored it is the embedding.
    """

    name: str
    block: str
    inside: Mapping[str, Cell]
    outside: Mapping[str, Cell] = field(default_factory=dict)
    tied_head: bool = True


def stack(name: str, block: str, *inside: Part, outside: Part = "", tied_head: bool = True) -> Stack:
    """A Stack whose tables are given in parts."""
    return Stack(name, block, table(*inside), table(outside), tied_head)


@dataclass(frozen=True)
class Family:
    """One row of the table.

    Attributes:
        name: the naming scheme, after the model that brought it: ``"llama"``.
        stacks: its runs of blocks.
        model_types: values of config.json's ``model_type`` that it is right for; they only break ties between rows
            that explain as many names.
        norm_offset: a norm's gain is this plus what is stored (Gemma: 1).
        plain_norms: roles of norms that are stored as they act all the same.
        pre_norm: its norms stand before what reads them, so they can be folded; False for BERT's order.
        fixed: patterns (globs on whole names) of tensors that the architecture sets.
        unsure: what names and shapes don't show and the row takes for granted; a note where config.json says no
            ``model_type`` at all.
    """

    name: str
    stacks: tuple[Stack, ...]
    model_types: tuple[str, ...] = ()
    norm_offset: float = 0.0
    plain_norms: tuple[str, ...] = ()
    pre_norm: bool = True
    fixed: tuple[str, ...] = ()
    unsure: str = ""


def row(name: str, *stacks: Stack, types: str | None = None, fixed: str = "", **traits: Any) -> Family:
    """A Family; `types` and `fixed` are words of a text, and a `model_type` is its name where no `types` are given."""
    return Family(name, stacks, tuple((name if types is None else types).split()), fixed=tuple(fixed.split()), **traits)


def single(name: str, of: str, block: str, *inside: Part, outside: Part = "", **traits: Any) -> Family:
    """A Family of one stack, which is called `of`."""
    return row(name, stack(of, block, *inside, outside=outside), **traits)
