"""How a stored tensor is cut into canonical ones: a cell of the table and the stack's sizes give regular row choices.

A canonical tensor is ``stored[expert]``, transposed where it is stored (in x out), then some of its rows. With H heads,
K key-value heads and head size d, of n rows:

    stacked q|k|v      q: H·d rows, then k and v: (n - H·d) / 2 rows each
    grouped q|k|v      K groups of (H/K)·d rows of q, d of k, d of v
    grouped otherwise  H groups (or as many as the cell says), the roles in equal parts
    stacked otherwise  equal parts
    alternating        row i belongs to role i mod (number of roles)

The answer is the pieces, or in words why they can't be.
"""

from __future__ import annotations

from dataclasses import dataclass

from weightprint.anatomy.family import Cell, Experts, Layout
from weightprint.anatomy.geometry import Sizes
from weightprint.anatomy.place import Expert, Rows
from weightprint.anatomy.roles import SHARED, matrix_of, role_of

_QKV = frozenset({"q", "k", "v"})
#: More experts than that are a broken header, not a model.
_MOST_EXPERTS = 65536


@dataclass(frozen=True, slots=True)
class Piece:
    """A View without the weight's name, and the role and expert it fills (None: as the name says)."""

    role: str
    shape: tuple[int, ...]
    expert: Expert = None
    index: int | None = None
    transposed: bool = False
    rows: Rows | None = None
    row_block: int = 0


def canonical_shape(
    cell: Cell, shape: tuple[int, ...], experts: int | None
) -> tuple[tuple[int, ...], int | None] | None:
    """Shape of one expert's part (or the whole), as (out x in), and how many experts; None if it can't be."""
    many: int | None = None
    if cell.experts is Experts.AXIS:
        if len(shape) < 2:
            return None
        many, shape = shape[0], shape[1:]
    elif cell.experts is Experts.ROWS:
        if not experts or not shape or shape[0] % experts:
            return None
        many, shape = experts, (shape[0] // experts, *shape[1:])
    if cell.transposed and len(shape) == 2:
        shape = shape[::-1]
    return shape, many


def cut(cell: Cell, roles: tuple[str, ...], shape: tuple[int, ...], sizes: Sizes) -> list[Piece] | str:
    """The pieces of a tensor of this shape, or why there are none."""
    inner = canonical_shape(cell, shape, sizes.geometry.experts)
    if inner is None:
        return f"shape {list(shape)} holds no whole number of experts"
    one, many = inner
    if many is not None and not 0 < many <= _MOST_EXPERTS:
        return f"shape {list(shape)} would be {many} experts"
    if not 0 < len(one) <= 2 and (len(roles) > 1 or cell.pairs):
        return f"shape {list(one)} is no matrix that holds {'|'.join(roles)}"
    rows = _rows(cell, roles, one, sizes)
    if isinstance(rows, str):
        return rows
    transposed = cell.transposed and len(shape) - (cell.experts is Experts.AXIS) == 2
    block = shape[0] // many if cell.experts is Experts.ROWS and many else 0
    numbers: list[int | None] = [None] if many is None else list(range(many))
    pieces = []
    for index in numbers:
        expert: Expert = SHARED if cell.experts is Experts.SHARED else index
        for role, chosen in zip(roles, rows, strict=True):
            out = one if chosen is None else (chosen.n, *one[1:])
            pieces.append(Piece(role, out, expert, index, transposed, chosen, block))
    return pieces


def _rows(cell: Cell, roles: tuple[str, ...], shape: tuple[int, ...], sizes: Sizes) -> list[Rows | None] | str:
    """Which rows each role gets."""
    size = sizes.geometry.head_dim
    if cell.layout is Layout.WHOLE:
        if not cell.pairs:
            return [None]
        return _paired([Rows(0, shape[0])], roles, size)
    n, parts = shape[0], len(roles)
    plain = [matrix_of(role) for role in roles]
    chosen: list[Rows]
    if cell.layout is Layout.ALTERNATING or (cell.layout is Layout.STACKED and not (set(plain) >= _QKV)):
        if n % parts:
            return f"{n} rows can't hold {' and '.join(roles)} in equal parts"
        each = n // parts
        chosen = [
            Rows(i, 1, parts, each) if cell.layout is Layout.ALTERNATING else Rows(i * each, each) for i in range(parts)
        ]
    elif cell.layout is Layout.STACKED:
        if sizes.q_rows is None:
            return f"{n} rows of {'|'.join(roles)}: neither config.json nor the other shapes say how many are queries"
        if n <= sizes.q_rows or (n - sizes.q_rows) % 2:
            return f"{n} rows can't hold {sizes.q_rows} rows of queries and as many keys as values"
        lengths = [sizes.q_rows if role == "q" else (n - sizes.q_rows) // 2 for role in plain]
        chosen = [Rows(sum(lengths[:i]), length) for i, length in enumerate(lengths)]
    elif cell.groups:
        if n % (parts * cell.groups):
            return f"{n} rows can't hold {' and '.join(roles)} in {cell.groups} groups of equal parts"
        each = n // (parts * cell.groups)
        chosen = [Rows(i * each, each, parts * each, cell.groups) for i in range(parts)]
    else:
        if size is None:
            return f"{'|'.join(roles)} lie head by head, and neither config.json nor shapes say the head size"
        if set(plain) >= _QKV:
            if sizes.q_rows is None:
                return (
                    f"{n} rows of {'|'.join(roles)}: neither config.json nor the other shapes say how many are queries"
                )
            groups, left = divmod(n - sizes.q_rows, 2 * size)
            if groups < 1 or left or sizes.q_rows % (groups * size):
                return (
                    f"{n} rows can't hold {sizes.q_rows} rows of queries and whole key and value heads of {size} rows"
                )
            lengths = [sizes.q_rows // groups if role == "q" else size for role in plain]
        else:
            groups, left = divmod(n, parts * size)
            if groups < 1 or left:
                return f"{n} rows can't hold {' and '.join(roles)} in heads of {size} rows"
            lengths = [size] * parts
        chosen = [Rows(sum(lengths[:i]), length, sum(lengths), groups) for i, length in enumerate(lengths)]
    return _paired(chosen, roles, size) if cell.pairs else list(chosen)


def _paired(chosen: list[Rows], roles: tuple[str, ...], size: int | None) -> list[Rows | None] | str:
    """The same rows, with those of queries and keys put from rotary pairs into halves."""
    if size is None or size % 2:
        return "rows lie in rotary pairs within heads, and neither config.json nor shapes say the head size"
    paired: list[Rows | None] = []
    for rows, role in zip(chosen, roles, strict=True):
        if matrix_of(role) not in ("q", "k"):
            paired.append(rows)
        elif rows.n % size:
            return f"{rows.n} rows of {role} are no whole number of heads of {size}"
        else:
            paired.append(Rows(rows.start, rows.length, rows.stride, rows.count, size))
    return paired


def fits(piece: Piece, hidden: int | None, rows_of: dict[str, set[int]]) -> str | None:
    """Why a canonical tensor contradicts its role: None if it doesn't.

    `rows_of`: rows seen of each role's matrix; under ``"down.columns"`` the columns of down, which are what gate and up
    write. A gate and an up that share a tensor unsaid show there.
    """
    shape, row = piece.shape, role_of(piece.role)
    matrix = matrix_of(piece.role)
    if matrix != piece.role and "." not in piece.role:
        size = shape[0] if len(shape) == 1 else None
        wanted = rows_of.get(matrix)
        if size is not None and wanted and size not in wanted:
            some = " or ".join(map(str, sorted(wanted)[:3]))
            return f"{size} values, where {matrix} has {some} rows"
        return None
    widths = rows_of.get("down.columns") if matrix in ("gate", "up") and len(shape) == 2 else None
    if widths and shape[0] not in widths:
        some = " or ".join(map(str, sorted(widths)[:3]))
        return f"{shape[0]} rows, where down reads {some}"
    if hidden is None:
        return None
    if row.axis == "channels":
        size = 1
        for n in shape:
            size *= n
        return None if size == hidden else f"{size} values, where the hidden size is {hidden}"
    if row.axis is None:
        return None
    if len(shape) != 2:
        # A convolution of width 1 is a matrix; what else stands outside blocks has axes of its own.
        matrix_only = row.part in ("attention", "ffn")
        return f"shape {list(shape)} is no matrix" if matrix_only and set(shape[2:]) != {1} else None
    across = shape[1] if row.axis == "reads" else shape[0]
    if across == hidden:
        return None
    return f"shape {list(shape)} (out x in) {row.axis} {across} channels, where the hidden size is {hidden}"
