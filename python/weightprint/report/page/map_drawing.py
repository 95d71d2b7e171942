"""The map: the stacks of A and B side by side, a ribbon from each block of B to the block of A that it came from.

A ribbon is as dark as the share of the block that was found is large; one that leads to another depth has another
colour and a dashed edge. Blocks of A that nothing leads to are dashed, blocks of B that were looked for and not found
are hatched, blocks that could not be told are hollow. Experts stand below in a grid of their own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from markupsafe import Markup

from weightprint.report.format import count
from weightprint.report.page.map_data import CALLED, Cap, ExpertCell, StackMap
from weightprint.report.page.svg import Drawing, frame, joined, label, path, rect
from weightprint.util.ranges import spans

__all__ = ["expert_drawing", "expert_words", "map_drawing", "map_words"]

_TALLEST = 560.0  # pixels of all blocks of a stack
_ROW = (8.0, 22.0)  # pixels of one block
_CAP = 20.0
_LEFT, _WIDE, _RIGHT = 9.0, 29.0, 62.0  # percent: A's boxes begin, boxes are so wide, B's boxes begin
_SHADES = 5
_FEW = 16  # experts that can be told apart inside a block of the map


def map_drawing(maps: Sequence[StackMap], *, names: tuple[str, str] = ("A", "B")) -> Drawing:
    """Every stack, one below the other."""
    top, parts = 0.0, []
    for stack in maps:
        drawn, height = _stack(stack, top, names, several=len(maps) > 1)
        parts.append(drawn)
        top += height + 18
    return Drawing("map", f"Where the layers of B come from. {map_words(maps)}", max(1.0, top - 18), joined(parts))


def map_words(maps: Sequence[StackMap]) -> str:
    """The map in a few sentences, for those who don't see it."""
    out = []
    for stack in maps:
        found = [i for i, state in enumerate(stack.states) if state == "found"]
        head, n = f"{stack.b or stack.a}: " if len(maps) > 1 else "", len(stack.blocks_b)
        if n and not found and set(stack.states) == {"open"}:
            out.append(f"{head}Of the {n:,} layers of B none could be told.")
            continue
        if n and not found and set(stack.states) == {"absent"}:
            out.append(f"{head}All {n:,} layers of B were looked for, and none was found in A.")
            continue
        out.append(f"{head}{len(found):,} of {n:,} layers of B were found in A")
        moved = {link.b for link in stack.links if link.moved}
        out[-1] += f", {len(moved):,} of them at another depth." if moved else "."
        if stack.unused and stack.links:
            out.append(f"In A only: {_listed(stack.blocks_a, stack.unused)}.")
        if stack.doubled:
            out.append(f"In B several times: {_listed(stack.blocks_a, stack.doubled)} of A.")
        if words := expert_words(stack):
            out.append(words)
        if gone := [i for i, state in enumerate(stack.states) if state == "absent"]:
            out.append(f"Looked for and not found: {_listed(stack.blocks_b, gone)} of B.")
    return " ".join(out)


def _listed(blocks: Sequence[int], places: Sequence[int] | frozenset[int]) -> str:
    numbers = [blocks[i] for i in sorted(places)]
    return f"layer{'s' * (len(numbers) != 1)} {spans(numbers)}"


def _stack(stack: StackMap, top: float, names: tuple[str, str], *, several: bool) -> tuple[Markup, float]:
    """One stack, and its height."""
    longest = max(len(stack.blocks_a), len(stack.blocks_b), 1)
    step = min(_ROW[1], max(_ROW[0], _TALLEST / longest))
    above, below = ([cap for cap in stack.caps if cap.above is side] for side in (True, False))
    parts, y = [], top + 14
    for x, name, of, blocks in (
        (_LEFT, names[0], stack.a, stack.blocks_a),
        (_RIGHT, names[1], stack.b, stack.blocks_b),
    ):
        parts.append(label(x, y, f"{name} · {of}" if several and of else name, "strong"))
        n = f"{len(blocks)} layer{'s' * (len(blocks) != 1)}" if of else "no such stack"
        parts.append(label(x, y + 15, n, "dim") if several else label(x + _WIDE, y, n, "dim", anchor="end"))
    y += 15 * several
    y += 10
    for cap in above:
        parts.append(_cap(cap, y))
        y += _CAP + 4
    y += 4 * bool(above)
    parts += [_ribbons(stack, y, step), *_boxes(stack, y, step), _ticks(stack, y, step)]
    y += longest * step + 6
    for cap in below:
        parts.append(_cap(cap, y))
        y += _CAP + 4
    return joined(parts), y - top


def _ribbons(stack: StackMap, y: float, step: float) -> Markup:
    drawn = []
    half = 0.42
    for link in sorted(stack.links, key=lambda link: link.share):
        a, b = link.a + 0.5, link.b + 0.5
        d = (
            f"M0 {a - half:.2f}C50 {a - half:.2f} 50 {b - half:.2f} 100 {b - half:.2f}"
            f"V{b + half:.2f}C50 {b + half:.2f} 50 {a + half:.2f} 0 {a + half:.2f}Z"
        )
        words = f"B {stack.blocks_b[link.b]} from A {stack.blocks_a[link.a]}: {link.share:.0%} of it found"
        drawn.append(path(d, f"ribbon {'moved' if link.moved else 'kept'} s{_shade(link.share)}", words))
    rows = max(len(stack.blocks_a), len(stack.blocks_b), 1)
    gap = _RIGHT - _LEFT - _WIDE
    inside = frame(_LEFT + _WIDE, y, gap, rows * step, (100.0, float(rows)), joined(drawn))
    if stack.links or not (stack.a and stack.b):
        return inside
    middle = y + rows * step / 2 - 4
    words = "no layer found" if "absent" in stack.states else "not told"
    return inside + label(_LEFT + _WIDE + gap / 2, middle, words, "dim", anchor="middle")


def _boxes(stack: StackMap, y: float, step: float) -> list[Markup]:
    out = []
    every = 1 if step >= 14 else 5 if step >= 10 else 10
    look = {"rx": 2} if step >= 14 else {"style": "stroke-width:.6"}
    doubled, unused = stack.doubled, stack.unused if stack.links else frozenset()
    for x, blocks, anchor, side in (
        (_LEFT, stack.blocks_a, "end", "a"),
        (_RIGHT, stack.blocks_b, "start", "b"),
    ):
        for i, block in enumerate(blocks):
            top = y + i * step + 1
            if side == "a":
                kind = "dropped" if i in unused else "plain"
                words = f"A {block}" + (": not in B" if i in unused else ": in B several times" if i in doubled else "")
            else:
                kind = {"found": "plain", "absent": "absent", "open": "hollow"}[stack.states[i]]
                words = f"B {block}" + {"found": "", "absent": ": not found", "open": ": not told"}[stack.states[i]]
            out.append(rect(x, top, _WIDE, step - 2, f"block {kind}", words, **look))
            if block % every == 0 or i == len(blocks) - 1 or every == 1:
                at, dx = (x, -6) if anchor == "end" else (x + _WIDE, 6)
                out.append(label(at, top + step / 2 + 3, str(block), "dim small", anchor=anchor, dx=dx))
            note = {"dropped": "not in B", "absent": "not found"}.get(kind)
            if note and step >= 14:
                out.append(label(x + _WIDE / 2, top + step / 2 + 3, note, "dim small", anchor="middle"))
    return out


def _ticks(stack: StackMap, y: float, step: float) -> Markup:
    """The experts inside B's blocks."""
    if not 0 < stack.experts <= _FEW:
        return Markup("")
    rows, inset = len(stack.blocks_b), 0.6
    inside = frame(
        _RIGHT + inset, y, _WIDE - 2 * inset, rows * step, (float(stack.experts), float(rows)), _cells(stack, 0.2)
    )
    return inside


def _cells(stack: StackMap, margin: float) -> Markup:
    """Every expert as a cell of one by one, those that look alike in one path."""
    by_kind: dict[str, list[ExpertCell]] = defaultdict(list)
    for cell in stack.cells:
        kind = "none" if cell.share < 0.05 else f"{'moved' if cell.moved else 'kept'} s{_shade(cell.share)}"
        by_kind[kind].append(cell)
    # Experts of another number are thinner, so that colour is not all that tells them.
    thin = {kind: margin + 0.14 * kind.startswith("moved") for kind in by_kind}
    drawn = [
        path(_runs(cells, thin[kind]), f"cell {kind}") for kind, cells in sorted(by_kind.items()) if kind != "none"
    ]
    drawn.append(
        path(
            "".join(f"M{c.column} {c.row}l1 1M{c.column} {c.row + 1}l1-1" for c in by_kind.get("none", ())),
            "heat crossed",
        )
    )
    if stack.experts <= 64:
        lines = "".join(f"M{x} 0V{len(stack.blocks_b)}" for x in range(1, stack.experts))
        drawn.append(path(lines, "grid"))
    return joined(drawn)


def _cap(cap: Cap, y: float) -> Markup:
    parts = []
    for x, there, rows in ((_LEFT, cap.in_a, cap.rows[0]), (_RIGHT, cap.in_b, cap.rows[1])):
        kind = "dropped" if not there else "plain"
        if x == _RIGHT and there:
            kind = {"found": "plain", "absent": "absent", "open": "hollow"}[cap.state]
        name = CALLED.get(cap.name, cap.name)
        words = f"{name}: {rows:,} rows" if rows else name
        parts.append(rect(x, y, _WIDE, _CAP - 2, f"block {kind}", words if there else f"no {name}", rx=8))
        words = f"{name}, {count(rows)}" if rows else name
        parts.append(label(x + _WIDE / 2, y + _CAP / 2 + 3, words if there else f"no {name}", "small", anchor="middle"))
    if cap.in_a and cap.in_b and cap.share > 0:
        d = "M0 .1H100V.9H0Z"
        words = f"{cap.name}: {cap.share:.0%} of B's found in A"
        ribbon = path(d, f"ribbon kept s{_shade(cap.share)}", words)
        parts.append(frame(_LEFT + _WIDE, y, _RIGHT - _LEFT - _WIDE, _CAP - 2, (100.0, 1.0), ribbon))
    return joined(parts)


def _shade(share: float) -> int:
    """1 to 5: a tenth, a third, … nearly all."""
    return min(_SHADES, int(share * _SHADES + 1e-9) + 1)


def expert_drawing(stack: StackMap) -> Drawing | None:
    """Experts of B as a grid, blocks down and experts across; None where there are few, which the map shows."""
    if stack.experts <= _FEW:
        return None
    rows = len(stack.blocks_b)
    step = min(16.0, max(5.0, 320.0 / max(rows, 1)))
    width, top = 84.0, 20.0
    parts = [label(8, 12, "experts →", "dim small"), label(92, 12, f"{stack.experts:,}", "dim small", anchor="end")]
    parts.append(frame(8, top, width, rows * step, (float(stack.experts), float(rows)), _cells(stack, 0.06)))
    every = 1 if step >= 12 else 10
    for i, block in enumerate(stack.blocks_b):
        if i % every == 0 or i == rows - 1:
            parts.append(label(8, top + (i + 0.5) * step + 3, str(block), "dim small", anchor="end", dx=-6))
    return Drawing("experts", expert_words(stack), top + rows * step + 6, joined(parts))


def expert_words(stack: StackMap) -> str:
    """How many experts of B were found; empty where B has none."""
    if not stack.cells:
        return ""
    found = sum(cell.share >= 0.05 for cell in stack.cells)
    mean = sum(cell.share for cell in stack.cells) / len(stack.cells)
    moved = sum(cell.moved and cell.share >= 0.05 for cell in stack.cells)
    words = f"{found:,} of {len(stack.cells):,} experts of B were found in A"
    words += f", {100 * mean:.0f} % of their weights on average"
    return words + (f"; {moved:,} have another number there (drawn thinner)." if moved else ".")


def _runs(cells: Sequence[ExpertCell], margin: float) -> str:
    """Cells as runs along rows, so that what is alike costs nothing; `margin` above and below."""
    runs: list[list[int]] = []
    for row, column in sorted((cell.row, cell.column) for cell in cells):
        if runs and runs[-1][0] == row and runs[-1][1] + runs[-1][2] == column:
            runs[-1][2] += 1
        else:
            runs.append([row, column, 1])
    tall = f"{1 - 2 * margin:g}"
    return "".join(f"M{x} {y + margin:g}h{n}v{tall}h-{n}z" for y, x, n in runs)
