"""Writes the pages beside it, one per verb, from the docstrings: ``python docs/api/make.py``. A test compares both."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import weightprint
from weightprint.compare.compare import Comparison
from weightprint.compare.recipe import Recipe
from weightprint.compare.recipe_parts import AdapterFit, Mix, Search, Weight
from weightprint.results.lineage import Edge, Lineage, Merge, Unplaced

ERRORS = tuple(getattr(weightprint, name) for name in weightprint.__all__ if name.endswith("Error"))
# Page → what it describes.
PAGES: dict[str, tuple[Any, ...]] = {
    "open": (weightprint.open, weightprint.Checkpoint, weightprint.TensorInfo, *ERRORS),
    "inspect": (
        weightprint.anatomy,
        weightprint.Anatomy,
        weightprint.Place,
        weightprint.merge_adapter,
        weightprint.Merged,
    ),
    "scan": (weightprint.scan, weightprint.Scan, weightprint.RowStats, weightprint.StatsTable),
    "check": (weightprint.check, weightprint.CheckReport, weightprint.Finding),
    "manifest": (weightprint.Manifest,),
    "diff": (weightprint.diff, weightprint.Diff),
    "compare": (weightprint.compare, Comparison),
    "fingerprint": (weightprint.fingerprint, weightprint.Fingerprint),
    "lineage": (weightprint.lineage, Lineage, Edge, Merge, Unplaced),
    "recipe": (weightprint.recipe, Recipe, Weight, Mix, AdapterFit, Search),
}


def page(name: str) -> str:
    """One page as Markdown."""
    made = "<!-- Made by docs/api/make.py from the docstrings: change those. -->"
    parts = [made, f"# {name}", *(part for entry in PAGES[name] for part in _described(entry))]
    return "\n\n".join(parts) + "\n"


def _described(entry: Any) -> Iterator[str]:
    yield f"## {entry.__name__}"
    if not inspect.isclass(entry):
        yield f"```python\nweightprint.{entry.__name__}{_signature(entry)}\n```"
        yield _prose(entry)
        return
    yield _prose(entry)
    if dataclasses.is_dataclass(entry) and "Attributes:" not in (entry.__doc__ or ""):
        yield "Fields: " + ", ".join(f"`{field.name}: {field.type}`" for field in dataclasses.fields(entry)) + "."
    for name, member in vars(entry).items():
        function = getattr(member, "__func__", member)  # a classmethod's
        if isinstance(member, property):
            yield f"**`.{name}`** {_prose(member)}"
        elif inspect.isfunction(function) and not name.startswith("_"):
            yield f"**`.{name}{_signature(function, skip=1)}`** {_prose(function)}"


def _signature(function: Any, skip: int = 0) -> str:
    """One line if it fits, else one parameter a line."""
    parts: list[str] = []
    signature = inspect.signature(function)
    for parameter in list(signature.parameters.values())[skip:]:
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in parts:
            parts.append("*")
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        stars = "**" * (parameter.kind is parameter.VAR_KEYWORD)
        parts.append(f"{stars}{parameter.name}: {parameter.annotation}{default}")
    short = f"({', '.join(parts)}) -> {signature.return_annotation}"
    if skip or len(short) < 80:
        return short
    return "(\n" + "".join(f"    {part},\n" for part in parts) + f") -> {signature.return_annotation}"


def _prose(entry: Any) -> str:
    """A docstring as Markdown: lists under Args, Raises and Attributes, fenced examples."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", inspect.cleandoc(entry.__doc__ or "")).replace("``", "`")
    out = []
    for section in re.split(r"\n\n(?=\w+(?: \(.*\))?:\n {4})", text):
        title, _, body = section.partition(":\n    ")
        if not body or not re.fullmatch(r"\w+(?: \(.*\))?", title):
            out.append(section)
            continue
        lines = inspect.cleandoc("    " + body)
        out.append(f"{title}:\n\n{_fenced(lines) if title.startswith('Example') else _listed(lines)}")
    return "\n\n".join(out)


def _listed(lines: str) -> str:
    entries = re.sub(r"\n +", " ", lines).split("\n")
    return "\n".join("- `{}`: {}".format(*entry.split(": ", 1)) if ": " in entry else entry for entry in entries)


def _fenced(lines: str) -> str:
    blocks = lines.split("\n\n")
    return "\n\n".join(f"```python\n{block}\n```" if block.startswith(">>>") else block for block in blocks)


if __name__ == "__main__":
    for name in PAGES:
        Path(__file__).with_name(f"{name}.md").write_text(page(name), "utf-8")
