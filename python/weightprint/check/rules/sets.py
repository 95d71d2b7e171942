"""Is this all of it, and only it? Parts of a set, and folders that hold a model twice, or two."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from weightprint import _core
from weightprint.anatomy.adapters.adapters import is_adapter
from weightprint.check.context import CheckContext, listed
from weightprint.checkpoint.checkpoint import Checkpoint, open_tolerant
from weightprint.checkpoint.locate import INDEX_BYTES, Location, read_small, sets_of
from weightprint.errors import WeightprintError
from weightprint.results.finding import Finding
from weightprint.util.escape import escape

_SMALL_JSON = 1_000_000
#: diffusers keeps both.
_AVERAGED = re.compile(r"[._-](?:non_)?ema[._-]")
_PAIRS, _VALUES, _TRIED = 12, 4096, 400


def gguf_parts(context: CheckContext) -> Iterator[Finding]:
    """What a split GGUF file says of its set: how many files, and how many tensors in all of them."""
    metadata, files = context.checkpoint.metadata, context.checkpoint.files
    count, number, tensors = (_whole(metadata.get(f"split.{key}")) for key in ("count", "no", "tensors.count"))
    if context.location.missing or not count or count <= 1:
        return
    path = files[0].path
    if len(files) < count:
        if not any(finding.code == "part_of_set" for finding in context.location.findings):
            which = f"file {number + 1} of {count}" if len(files) == 1 and number is not None else f"{len(files)} files"
            message = f"by its metadata this is {which} of a set of {count}: look at the whole set"
            yield Finding("part_of_set", "warning", message, path)
    elif tensors is not None and tensors != context.checkpoint.n_tensors:
        here = context.checkpoint.n_tensors
        what = f"{tensors - here:,} are missing" if here < tensors else f"{here - tensors:,} are too many"
        message = f"the metadata say that the {count} files hold {tensors:,} tensors, and {here:,} are here: {what}"
        yield Finding("split_tensors", "error", message, path)


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() and len(text) < 10 else None


def stale_index(context: CheckContext) -> Iterator[Finding]:
    """Of an index of another save: whether what was read instead holds all that it names."""
    stale = next((finding for finding in context.location.findings if finding.code == "stale_index"), None)
    if stale is None or stale.path is None:
        return
    _, weight_map, _ = _core.parse_index(read_small(Path(stale.path), INDEX_BYTES, "index"))
    absent = [name for name, _ in weight_map if name not in context.checkpoint]
    if absent:
        message = f"{len(absent):,} of {len(weight_map):,} tensors that the index names are not here: {listed(absent)}"
        yield Finding("tensor_lost", "error", message, stale.path)
    else:
        message = f"the files that are here hold all {len(weight_map):,} tensors that the stale index names"
        yield Finding("stale_index_complete", "note", message, stale.path)


def modules(context: CheckContext) -> Iterator[Finding]:
    """sentence-transformers' modules.json: modules with weights of their own, in folders beside."""
    path = Path(context.location.root) / "modules.json"
    try:
        listed_modules = json.loads(read_small(path, _SMALL_JSON, "modules"))
    except (OSError, ValueError, RecursionError, WeightprintError):
        return
    for entry in listed_modules if isinstance(listed_modules, list) else ():
        folder, kind = (entry.get(key) for key in ("path", "type")) if isinstance(entry, dict) else (None, None)
        if not isinstance(folder, str) or not isinstance(kind, str) or not folder or not kind.endswith((".Dense",)):
            continue
        if ".." in Path(folder).parts or Path(folder).is_absolute():
            continue
        place = path.parent / folder
        has = any((place / name).is_file() for name in ("model.safetensors", "pytorch_model.bin"))
        code, severity = ("other_module", "note") if has else ("module_missing", "error")
        what = "is a model of its own, to be checked by itself" if has else "holds no weights"
        message = f"modules.json names {escape(folder, 120)}, which {what}"
        yield Finding(code, severity, message, str(path))  # type: ignore[arg-type]


def second_copies(context: CheckContext) -> Iterator[Finding]:
    """Model files beside the ones that are read: the same model once more, or another one."""
    for names in sets_of(context.location.beside):
        files = tuple(os.path.join(context.location.root, name) for name in names)
        with open_tolerant(Location(context.location.source, "file", context.location.root, files)) as other:
            yield from _beside(context.checkpoint, other, names)


def _beside(read: Checkpoint, other: Checkpoint, names: Sequence[str]) -> Iterator[Finding]:
    shown, path = listed(names), os.path.join(read._location.root, names[0])
    if len(other.files) < len(names):
        yield Finding("unread_file", "warning", f"beside the model, and can't be read: {shown}", path)
        return
    if not other.n_tensors or is_adapter(other.names()) != is_adapter(read.names()):
        yield Finding("other_files", "note", f"beside the model, and no copy of it: {shown}", path)
        return
    ours, theirs = ({info.name: info for info in c.tensors} for c in (read, other))
    common = [name for name in ours if name in theirs]
    renamed = 2 * len(common) < min(len(ours), len(theirs))
    pairs: list[tuple[str, str]] = []
    if renamed:
        same_form = Counter(i.shape for i in read.tensors) == Counter(i.shape for i in other.tensors)
        if not same_form and read.n_parameters != other.n_parameters:
            message = f"beside the model, under names of its own, and no copy of it: {shown}"
            yield Finding("other_files", "warning", message, path)
            return
    else:
        pairs = [(name, name) for name in common if ours[name].shape == theirs[name].shape]
        if 2 * len(pairs) < len(common):
            message = f"two different models in one folder: {shown} holds {other.n_tensors:,} tensors of "
            message += f"{other.n_parameters:,} numbers, what is read {read.n_tensors:,} of {read.n_parameters:,}; "
            message += "most tensors of one name have other shapes. Loaders differ in which they take: move one away"
            yield Finding("another_model", "warning", message, path)
            return
    if renamed:
        differing = _without_equal(read, other)
    else:
        step = max(1, len(pairs) // _PAIRS)
        differing = [a for a, b in pairs[::step] if not _same(read, a, other, b)]
    if differing and _AVERAGED.search(names[0]):
        message = f"beside the model, the same before or after averaging (EMA), with other values: {shown}"
        yield Finding("other_files", "note", message, path)
    elif differing:
        message = f"two different models in one folder: {shown} holds the same tensors with other values, such as "
        yield Finding("another_model", "warning", f"{message}{listed(differing)}. Move one away", path)
    else:
        how = "under other names" if renamed else "as it is" if _dtypes(read) == _dtypes(other) else "in other types"
        yield Finding("second_copy", "note", f"the same model once more, {how}: {shown}", path)


def _dtypes(checkpoint: Checkpoint) -> Counter[str]:
    return Counter(info.dtype for info in checkpoint.tensors)


def _without_equal(a: Checkpoint, b: Checkpoint) -> list[str]:
    """Of some matrices of `a`, those that no tensor of their shape in `b` equals; rare shapes are looked at first."""
    theirs: dict[tuple[int, ...], list[str]] = {}
    for info in b.tensors:
        theirs.setdefault(info.shape, []).append(info.name)
    ours = [info for info in a.tensors if len(info.shape) > 1 and info.shape in theirs]
    ours.sort(key=lambda info: len(theirs[info.shape]))
    return [
        info.name
        for info in ours[:_PAIRS]
        if not any(_same(a, info.name, b, name) for name in theirs[info.shape][:_TRIED])
    ]


def _same(a: Checkpoint, name: str, b: Checkpoint, other: str) -> bool:
    """Whether the first row of both holds the same values, as far as their types can tell."""
    x, y = (_first_row(c, n) for c, n in ((a, name), (b, other)))
    if x.size != y.size or np.iscomplexobj(x) != np.iscomplexobj(y):
        return False
    dtypes = {c.find(n).dtype for c, n in ((a, name), (b, other))}
    if len(dtypes) == 1:
        return bool(np.array_equal(x, y, equal_nan=True))
    bits = min(_MANTISSA.get(dtype, 0) for dtype in dtypes)
    with np.errstate(invalid="ignore", over="ignore"):
        near = np.abs(x - y) <= 2.0**-bits * np.maximum(np.abs(x), np.abs(y)) + 1e-6
    return bool(np.mean(near | ~np.isfinite(x) | ~np.isfinite(y)) > 0.99)


#: Half a step of the format is at most 2 to the minus this of a value.
_MANTISSA = {"F64": 24, "F32": 24, "F16": 11, "BF16": 8, "F8_E4M3": 4, "F8_E5M2": 3}


def _first_row(checkpoint: Checkpoint, name: str) -> npt.NDArray[Any]:
    row = checkpoint.read(name, 0, 1)
    return np.asarray(row).reshape(-1)[:_VALUES]
