"""A digest of what code computes, not of where it lies: stored scores stay good when files are moved, renamed or split.

    Python   every top-level definition without comments, docstrings, imports and `__all__`, as its syntax tree prints
    Rust     every top-level item without comments, visibility, `use` and `mod` lines, paths of modules and tests

Each is hashed, and the digest is of the sorted set. So moving a definition, or merging two that are the same, changes
nothing; changing a constant, or the name of anything but a module, does. What it cannot see: that a name is now
imported from a file where another definition of the same name stands, if both were there before. Python prints trees
a little differently from version to version, and then all digests change.
"""

from __future__ import annotations

import ast
import hashlib
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["Source", "commit", "digest", "reached", "rust_items", "sources"]


@dataclass(frozen=True)
class Definition:
    """One top-level statement: the names it binds, the names it uses, and its text."""

    binds: frozenset[str]
    uses: frozenset[str]
    text: str


@dataclass(frozen=True)
class Source:
    """One Python file: its definitions, and name → (module, name there) of what it imports by absolute paths."""

    definitions: tuple[Definition, ...]
    imports: Mapping[str, tuple[str, str]]

    @classmethod
    def read(cls, text: str) -> Source:
        """Raises SyntaxError."""
        tree = ast.parse(text)
        imports = {
            alias.asname or alias.name: (node.module or "", alias.name)
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and not node.level
            for alias in node.names
        }
        return cls(tuple(map(_definition, _Bare().visit(tree).body)), imports)


class _Bare(ast.NodeTransformer):
    """Drops what computes nothing. A body may be left empty: trees are printed here and never run."""

    def visit_Import(self, node: ast.AST) -> None:
        return None

    visit_ImportFrom = visit_Import

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | None:
        self.generic_visit(node)
        return node if node.body or node.orelse else None  # nothing but imports for types

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        named = [target.id for target in node.targets if isinstance(target, ast.Name)]
        return None if named == ["__all__"] else self.generic_visit(node)


def _definition(node: ast.stmt) -> Definition:
    names = [n for n in ast.walk(node) if isinstance(n, ast.Name)]
    own = getattr(node, "name", None)
    stored = {own} if own else {n.id for n in names if isinstance(n.ctx, ast.Store)}
    return Definition(frozenset(stored), frozenset(n.id for n in names), ast.unparse(node))


def sources(root: Path, leave_out: frozenset[str] = frozenset()) -> dict[str, Source]:
    """Module → its source, of a package's folder; `leave_out` names files and folders, relative to it."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        inside = path.relative_to(root)
        if not leave_out & {inside.as_posix(), *(parent.as_posix() for parent in inside.parents)}:
            parts = [root.name, *inside.with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = Source.read(path.read_text("utf-8"))
    return found


def reached(known: Mapping[str, Source], module: str, name: str) -> Iterator[str]:
    """The texts of a definition and of all that it uses, through imports, as far as their modules are `known`."""
    queue, seen = [(module, name)], set()
    while queue:
        at = queue.pop()
        if at in seen or at[0] not in known:
            continue
        seen.add(at)
        source = known[at[0]]
        if at[1] in source.imports:
            queue.append(source.imports[at[1]])
        for definition in source.definitions:
            if at[1] in definition.binds:
                yield definition.text
                queue += [(at[0], used) for used in definition.uses]


def digest(texts: Iterable[str]) -> str:
    """Of the set of texts, in whatever order and however often they come."""
    each = sorted({hashlib.sha256(text.encode()).hexdigest() for text in texts})
    return hashlib.sha256("\n".join(each).encode()).hexdigest()[:12]


_COMMENT = r"//[^\n]*|/\*.*?\*/"
_RUST = re.compile(
    rf"""(?P<comment>{_COMMENT})|(?P<token>b?r(?P<fence>\#*)".*?"(?P=fence)|b?"(?:\\.|[^"\\])*"
    |b?'(?:\\u\{{\w+\}}|\\x\w\w|\\.|[^'\\])'|'\w+|\w+|::|\S)""",
    re.DOTALL | re.VERBOSE,
)
_VISIBILITY = re.compile(r"\bpub (?:\( (?:crate|super|self|in [^)]*) \) )?")
_NOT_COUNTED = re.compile(r"(?:# \[ [^\]]*\] )*(?:use|mod|extern crate) |# ! \[|(?:# \[ .*?\] )*# \[ cfg \( test \) \]")
_ENDS_WITH_SEMICOLON = re.compile(r"(?:# \[ [^\]]*\] )*(?:use|static|const (?!fn |unsafe |extern )|type) ")


def rust_items(folder: Path) -> Iterator[str]:
    """The top-level items of all files below a crate's folder, tokens apart by one space."""
    files = sorted(folder.rglob("*.rs"))
    modules = {path.stem for path in files} | {path.name for path in folder.rglob("*") if path.is_dir()}
    inside = re.compile(rf"(?:\b(?:{'|'.join(sorted({'crate', 'super', 'self', *modules}))}) :: )+(?=\w)")
    for path in files:
        for item in _items(path.read_text("utf-8")):
            if not _NOT_COUNTED.match(item):
                yield inside.sub("", item)


def _items(text: str) -> Iterator[str]:
    depth, item = 0, ""
    for match in _RUST.finditer(text):
        token = match["token"]
        if token is None:
            continue
        depth += (token in "([{") - (token in ")]}") if len(token) == 1 else 0
        if token in ")]}" and item.endswith(", "):
            item = item[:-2]  # the comma that only a broken line has
        item += f"{token} "
        whole = token == ";" or (token == "}" and not _ENDS_WITH_SEMICOLON.match(_VISIBILITY.sub("", item)))
        if depth == 0 and (whole or (token == "]" and item.startswith("# ! "))):
            yield _VISIBILITY.sub("", item)
            item = ""
    if item.strip():
        raise ValueError(f"an item without an end: {item[:80]}")


@cache
def commit(folder: Path) -> str | None:
    """The commit that is checked out there, with a `+` where files differ from it; None without git."""

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True).stdout

    try:
        changed = git("status", "--porcelain", "--untracked-files=no").strip()
        return git("rev-parse", "--short=7", "HEAD").strip() + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
