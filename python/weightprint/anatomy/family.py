"""What a row of the table of families says.

A family of models is one :class:`Family`: for each of its stacks a block template and two tables, module name → role.
Nothing about a family is code. Names are written in their shortest form, without the prefixes that wrapping adds
(``model.``, ``transformer.``, ``language_model.``): whatever stands before the block template in a checkpoint is the
prefix, and outside names may carry it or any leading part of it.

``"self_attn.q_proj": "q"`` covers ``….weight`` (or ``.gamma``, ``.scale``) as ``q``, ``….bias`` (``.beta``) as
``q_bias``, and a parameter of exactly that name. ``{e}`` stands for an expert's number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

__all__ = [
    "Cell", "Family", "Stack", "Table",
    "alternating", "experts", "grouped", "paired", "shared", "single", "stacked", "table", "transposed",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cell:
    """What one module's parameter holds.

    Attributes:
        roles: one role, or several that share the tensor along its output axis.
        layout: ``"whole"``; ``"stacked"``: one role's rows after the other's; ``"grouped"``: per key-value head, that
            head's queries, its key, its value (with as many key-value heads as heads: per head q, k, v);
            ``"alternating"``: row by row in turn.
        transposed: stored (in x out), as GPT-2's Conv1D and experts in one tensor often are.
        experts: None; ``"axis"``: the leading axis runs over experts; ``"rows"``: experts lie one below the other
            in a matrix; ``"shared"``: the expert that sees every token.
        pairs: the rows of each head are stored as rotary pairs (Meta's layout, and GGUF's for Llama).
        groups: with ``"grouped"``: so many groups of equal parts, whatever the heads (CodeGen's cores); 0: by heads.
    """

    roles: tuple[str, ...]
    layout: Literal["whole", "stacked", "grouped", "alternating"] = "whole"
    transposed: bool = False
    experts: Literal["axis", "rows", "shared"] | None = None
    pairs: bool = False
    groups: int = 0


def stacked(*roles: str) -> Cell:
    """Rows of the first role, then of the second, …"""
    return Cell(roles, "stacked")


def grouped(*roles: str, groups: int = 0) -> Cell:
    """For every key-value head: its queries, its key, its value; with `groups`, so many groups of equal parts."""
    return Cell(roles, "grouped", groups=groups)


def alternating(*roles: str) -> Cell:
    """Row 0 is the first role's, row 1 the second's, and so on in turn."""
    return Cell(roles, "alternating")


Table = dict[str, str | Cell]


def table(*parts: str | Table) -> Table:
    """``"attn.qkv=q|k|v attn.proj=o"``: names and their roles, ``|`` between stacked ones; tables are merged."""
    whole: Table = {}
    for part in parts:
        if isinstance(part, str):
            pairs = (entry.split("=") for entry in part.split())
            part = {name: stacked(*role.split("|")) if "|" in role else role for name, role in pairs}
        whole |= part
    return whole


def _cell(cell: str | Cell) -> Cell:
    return Cell((cell,)) if isinstance(cell, str) else cell


def transposed(cell: str | Cell) -> Cell:
    """Stored (in x out)."""
    return replace(_cell(cell), transposed=True)


def experts(cell: str | Cell, along: Literal["axis", "rows"] = "axis") -> Cell:
    """All experts in one tensor: along a leading axis, or one below the other."""
    return replace(_cell(cell), experts=along)


def shared(cell: str | Cell) -> Cell:
    """Of the expert that sees every token."""
    return replace(_cell(cell), experts="shared")


def paired(cell: str | Cell) -> Cell:
    """Each head's rows stored as rotary pairs."""
    return replace(_cell(cell), pairs=True)


@dataclass(frozen=True)
class Stack:
    """One run of blocks: ``block`` is a template with ``{b}``, ending in a dot; `inside` names follow it.

    `outside` are the tensors that belong to the stack but to no block. ``name`` is ``decoder``, ``encoder``,
    ``vision``, ``audio``, ``text``, ``mtp``. ``tied_head``: where no head is stored it is the embedding.
    """

    name: str
    block: str
    inside: Mapping[str, str | Cell]
    outside: Mapping[str, str | Cell] = field(default_factory=dict)
    tied_head: bool = True


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


def single(
    name: str,
    stack: str,
    block: str,
    inside: Table,
    outside: Table,
    model_types: tuple[str, ...] = (),
    *,
    pre_norm: bool = True,
    fixed: tuple[str, ...] = (),
    unsure: str = "",
) -> Family:
    """A family of one stack."""
    stacks = (Stack(stack, block, inside, outside),)
    return Family(name, stacks, model_types, pre_norm=pre_norm, fixed=fixed, unsure=unsure)
