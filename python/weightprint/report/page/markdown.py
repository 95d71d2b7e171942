"""Results as Markdown, for issues and model cards: at most 60 lines, names escaped, the map as a Mermaid drawing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from weightprint.anatomy.parameters import parts
from weightprint.report.check import headline as check_headline
from weightprint.report.diff import headline as diff_headline
from weightprint.report.diff import is_number, order
from weightprint.report.format import byte_count, count, number, percent
from weightprint.report.page.compare import maps_of, rate_words
from weightprint.report.page.map_data import StackMap
from weightprint.report.page.map_drawing import map_words
from weightprint.report.recipe import facts, folded, is_short, layer_table, sentence
from weightprint.report.screen.screen import rows
from weightprint.util.escape import markdown
from weightprint.util.ranges import spans
from weightprint.verdict.wording import headline

if TYPE_CHECKING:
    from weightprint.anatomy.anatomy import Anatomy
    from weightprint.check.check import CheckReport
    from weightprint.checkpoint.checkpoint import Checkpoint
    from weightprint.compare.compare import Comparison
    from weightprint.compare.recipe import Recipe
    from weightprint.diff.diff import Diff
    from weightprint.results.finding import Finding

__all__ = ["check", "compare", "diff", "inspect", "recipe"]

LINES = 60
_RUNS = 8  # boxes on either side of a Mermaid drawing
_LISTED = 40  # tensors of a diff
_WIDE = 400  # characters of a cell
_PARENTS = 8  # of a recipe that are listed
_HEAD = ("Child", "Recipe", "Weight")  # facts of a recipe that stand elsewhere


def compare(comparison: Comparison, command: str = "") -> str:
    """The verdict, the map, what was done, for and against, digests, and how to repeat it."""
    result = comparison.result
    word = headline(result.readings or (result.name,))
    said: dict[str, list[str]] = {"How often wrong": [rate_words(comparison)]}
    for row in rows(comparison):
        if isinstance(row.says, str) and row.label != "Error rate":
            said.setdefault(row.label, []).append(row.says)
    maps = maps_of(comparison)
    lines = [f"## {word[0].upper()}{word[1:]}", "", shown(result.sentence, _WIDE), ""]
    for side, model in (("A", comparison.a), ("B", comparison.b)):
        digest = f", digest of all tensors {model.digest}" if model.digest else ""
        lines.append(f"- **{side}** {_name(model.source)}: {count(model.n_parameters)} parameters{digest}")
    order = ["How sure", *said]
    lines += ["", "| | |", "| :-- | :-- |"]
    lines += [
        f"| {label} | {shown('; '.join(said[label]), _WIDE)} |" for label in dict.fromkeys(order) if label in said
    ]
    if drawn := _mermaid(maps):
        lines += ["", *drawn, "", shown(map_words(maps), _WIDE)]
    p = comparison.parameters
    lines += ["", f"weightprint {comparison.version}, effort {p.get('effort')}, seed {p.get('seed')}."]
    if command:
        lines[-1] += f" To repeat it: {_name(command)}"
    return _text(lines)


def diff(found: Diff) -> str:
    """How many tensors of each kind, and those that changed most."""
    differ = order(found, everything=False)
    relative = found.table.column("relative").tolist()
    differ.sort(key=lambda k: -relative[k] if is_number(relative[k]) else -math.inf)
    table = found.table.take(differ[:_LISTED]).to_records()
    lines = [f"## {'The same' if found.same else 'Not the same'}", "", shown(diff_headline(found), _WIDE), ""]
    lines += [f"- **A** {_name(found.a)}", f"- **B** {_name(found.b)}"]
    cells = [(_name(r["name"]), r["status"].replace("_", " "), number(r["relative"])) for r in table]
    more = ["", f"… and {len(differ) - len(cells):,} more."] * (len(differ) > len(cells))
    return _text([*lines, *_table(("tensor", "status", "relative change"), cells, _LISTED), *more])


def check(report: CheckReport) -> str:
    """Sound or not, and the worst findings."""
    lines = [
        f"## {'Sound' if report.sound else 'Not sound'}: {_name(report.source)}",
        "",
        shown(check_headline(report), _WIDE),
    ]
    cells = [(f.severity, shown(f.code), shown(f.message, _WIDE)) for f in report.findings]
    return _text([*lines, *_table(("severity", "code", "finding"), cells, 40)])


def recipe(found: Recipe) -> str:
    """The sentence, the parents, the mix as a Mermaid drawing, its layers in runs, and the configuration if short."""
    lines = [f"## {(found.method or 'not explained').replace('_', ' ').capitalize()}", ""]
    lines += [shown(sentence(found), None), "", f"- **Child** {_name(found.child)}"]
    lines += [f"- **P{k}** {_name(name)}" for k, name in enumerate(found.parents[:_PARENTS], 1)]
    lines += [f"- and {len(found.parents) - _PARENTS:,} more"] * (len(found.parents) > _PARENTS)
    lines += [f"- {label}: {shown(words, _WIDE)}" for label, words in facts(found) if label not in _HEAD]
    places = {name: k for k, name in enumerate(found.parents, 1)}
    drawn = [w for w in sorted(found.weights, key=lambda w: -abs(w.value))[:_PARENTS] if w.parent in places]
    if drawn and found.explained:
        arrows = [f'  p{places[w.parent]}["P{places[w.parent]}"] -- "{w.value:.2f}" --> c["child"]' for w in drawn]
        lines += ["", "```mermaid", "flowchart LR", *arrows, "```"]
    made = (found.mergekit() or "").rstrip("\n").split("\n")
    again = (
        ["", "To make it again with mergekit:", "", "~~~~~~~~", *made, "~~~~~~~~"]
        if made[0] and is_short(made, 14)
        else []
    )
    rows = folded(found.layers, min(20, LINES - len(lines) - len(again) - 6))
    heads, cells = layer_table(rows, found.parents) if rows else ([], [])
    lines += _table(heads, [[shown(cell) for cell in row] for row in cells], len(rows))
    return _text([*lines, *again])


def inspect(checkpoint: Checkpoint, anatomy: Anatomy | None, noticed: Sequence[Finding] = ()) -> str:
    """Family, sizes, parameters by part, findings."""
    family = anatomy.family if anatomy is not None else None
    lines = [f"## {_name(checkpoint.source)}: {shown(family or 'no family recognised')}", ""]
    size = f"{count(checkpoint.n_parameters)} parameters, {byte_count(checkpoint.n_bytes)}"
    lines.append(f"{checkpoint.n_tensors:,} tensors, {size} in {len(checkpoint.files):,} files")
    if anatomy is not None:
        found = parts(anatomy)
        total = sum(part.n_parameters for part in found) or 1
        cells = [(part.part, count(part.n_parameters), percent(part.n_parameters / total)) for part in found]
        lines += _table(("part", "parameters", "share"), cells, 20)
    findings = [*checkpoint.findings, *(anatomy.findings if anatomy is not None else ()), *noticed]
    cells = [(f.severity, shown(f.code), shown(f.message, _WIDE)) for f in findings]
    return _text([*lines, *_table(("severity", "code", "finding"), cells, 15)])


def shown(text: str, limit: int | None = 200) -> str:
    """Text in which nothing is markup, and no address becomes a link by itself."""
    return markdown(text, limit).replace("://", "\\://")


def _mermaid(maps: Sequence[StackMap]) -> list[str]:
    """Runs of blocks of A and B as boxes, arrows between them; no names of stacks, which anybody may choose."""
    stack = next((stack for stack in maps if stack.links), None)
    if stack is None:
        return []
    runs: list[list[float]] = []  # first block of B, first of A, blocks, shares summed
    for link in sorted(stack.links, key=lambda link: (link.b, -link.share)):
        if runs and (link.b, link.a) == (runs[-1][0] + runs[-1][2], runs[-1][1] + runs[-1][2]):
            runs[-1][2] += 1
            runs[-1][3] += link.share
        else:
            runs.append([link.b, link.a, 1, link.share])
    if len(runs) > _RUNS:
        return []
    lines = ["```mermaid", "flowchart LR"]
    for i, (b, a, n, share) in enumerate(runs):
        of_a, of_b = (
            _blocks(blocks, int(first), int(n)) for blocks, first in ((stack.blocks_a, a), (stack.blocks_b, b))
        )
        lines.append(f'  a{i}["A {of_a}"] -- "{share / n:.0%}" --> b{i}["B {of_b}"]')
    for kind, blocks, places in (
        ("A", stack.blocks_a, sorted(stack.unused)),
        ("B", stack.blocks_b, [i for i, state in enumerate(stack.states) if state == "absent"]),
    ):
        if places:
            what = "not in B" if kind == "A" else "not found in A"
            lines.append(f'  {kind}x["{kind} {spans([blocks[i] for i in places])}: {what}"]')
    return [*lines, "```"]


def _blocks(blocks: Sequence[int], first: int, n: int) -> str:
    return spans(blocks[first : first + n])


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]], limit: int) -> Iterable[str]:
    """A table of escaped cells with its first `limit` rows; nothing where there are none."""
    if not rows:
        return
    yield from ("", f"| {' | '.join(headers)} |", f"|{' :-- |' * len(headers)}")
    yield from (f"| {' | '.join(row)} |" for row in rows[:limit])
    if len(rows) > limit:
        yield from ("", f"… and {len(rows) - limit:,} more.")


def _name(name: str) -> str:
    """As text, since nothing can be escaped inside a code span."""
    return shown(name, 120)


def _text(lines: Sequence[str]) -> str:
    kept = lines if len(lines) <= LINES else [*lines[: LINES - 1], "…"]
    return "\n".join(kept) + "\n"
