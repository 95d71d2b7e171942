"""Which files are meant by MODEL?

MODEL is a file, a directory, an index JSON, or ``org/name[@revision]`` (also ``hf://…``) in the local hub cache.
Nothing is ever downloaded. A directory is read as loaders read it: ``model.safetensors``, else its index, else an
adapter, else every ``*.safetensors``, else its one GGUF model; where that leaves a choice, the choice is a finding or,
if it can't be made safely, an error that names the candidates.

A downloaded folder is not trusted: the shard names in an index are plain file names (checked by the core), and a link
may leave its folder only within the model's own part of a hub cache, where links into ``blobs`` are the normal layout.
A file that the user names directly is followed wherever it points.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

from weightprint import _core
from weightprint.errors import FormatError, LimitError, ShardMissingError, UnsupportedFormatError, UsageError
from weightprint.results.finding import Finding, from_note
from weightprint.util.escape import escape, listed
from weightprint.util.natural_order import natural_key

_INDEX_SUFFIX = ".safetensors.index.json"
INDEX_BYTES = 200_000_000
_HARMLESS = frozenset({"unknown_field", "bad_total_size"})  # habits of index writers, not faults
#: What stands behind the name of a model for a variant of it.
_VARIANT = re.compile(r"\.(?:(?:bf|f|fp|int)\d+\w*|(?:non_)?ema)")
_SHARD = re.compile(r"(?P<stem>.*?)-?(?P<number>\d{5})-of-(?P<total>\d{5})(?P<suffix>\.safetensors|\.gguf)")
_ADAPTERS = ("adapter_model.safetensors", "adapters.safetensors")  # as PEFT and mlx call them
_HUB_PAGE = re.compile(r"https?://(?:huggingface\.co|hf\.co)/([A-Za-z0-9][\w.-]*/[\w.-]+?)(?:/|\?|#|$)")
_REPO = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*")

_TORCH = (
    "a pickle runs code when it is loaded, so weightprint does not read it. To convert it safely, in a sandbox: "
    "`torch.load(path, weights_only=True, map_location='cpu')`, then `safetensors.torch.save_file(state, out)`"
)
_CONVERSIONS = {
    ".bin": _TORCH,
    ".pt": _TORCH,
    ".pth": _TORCH,
    ".ckpt": _TORCH,
    ".pkl": _TORCH,
    ".onnx": "read its initializers with the `onnx` package (`onnx.numpy_helper.to_array`) and save them with "
    "`safetensors.numpy.save_file`",
    ".h5": "read its datasets with `h5py` and save them with `safetensors.numpy.save_file`",
    ".npz": "load it with `numpy.load(path, allow_pickle=False)` and save it with `safetensors.numpy.save_file`",
    ".msgpack": "load it with `flax.serialization.msgpack_restore` and save it with `safetensors.flax.save_file`",
}


@dataclass(frozen=True, slots=True)
class Location:
    """The files behind a MODEL, in reading order.

    Attributes:
        source: MODEL as the user wrote it.
        kind: ``"file"``, ``"directory"``, ``"index"`` or ``"hub"``.
        root: the folder that holds the files.
        files: absolute paths of the shards that exist, in natural order of their names.
        missing: names of shards that should be there and are not.
        index: the index JSON, if one was used.
        weight_map: tensor name → shard file name, as the index says; empty without an index.
        total_size: bytes of all tensors as the index says, or None.
        findings: what was noticed on the way.
        beside: names of model files in the same folder that are not read.
    """

    source: str
    kind: str
    root: str
    files: tuple[str, ...]
    missing: tuple[str, ...] = ()
    index: str | None = None
    weight_map: tuple[tuple[str, str], ...] = ()
    total_size: int | None = None
    findings: tuple[Finding, ...] = ()
    beside: tuple[str, ...] = ()

    def require_complete(self) -> None:
        """Raise ShardMissingError, naming all of them, if a shard is missing."""
        if self.missing:
            raise ShardMissingError(
                f"{len(self.missing)} of {len(self.missing) + len(self.files)} files of {escape(self.source)} are "
                f"missing: {listed(self.missing, 20)}{_how_to_complete(self)}",
                path=str(Path(self.root) / self.missing[0]),
                code="shard_missing",
            )


def locate(model: str | os.PathLike[str]) -> Location:
    """Find the files of `model`.

    Raises:
        FileNotFoundError: no such path (a ShardMissingError when it reads like a hub name that isn't cached).
        UnsupportedFormatError: a format that isn't safetensors; says how to convert it safely.
        FormatError: an unreadable index, or a link that leaves its folder.
        UsageError: a directory whose files leave a choice, or a remote address.
    """
    source = os.fspath(model)
    if isinstance(source, bytes):
        source = os.fsdecode(source)
    if not source or "\0" in source:
        raise UsageError("MODEL is empty or holds a NUL character", code="bad_path")
    if source.startswith("hf://"):
        return _hub(source, source.removeprefix("hf://"))
    scheme = re.match(r"([a-z][a-z0-9+.-]+)://", source)
    if scheme:
        hub_page = _HUB_PAGE.match(source)
        way_out = (
            f"`hf download {escape(hub_page[1])}` fetches it, and then {escape(hub_page[1])} names it"
            if hub_page
            else "copy the model to a local folder and name that folder"
        )
        raise UsageError(f"{scheme[1]}:// addresses are not supported yet: {way_out}", code="remote_source")
    path = _expanded(source)
    if path.is_dir():
        return _directory(source, path.resolve())
    if os.path.lexists(path):
        if path.suffix == ".json":
            return _index(source, "index", path.absolute())
        _refuse_other_formats(path)
        path = path.absolute()
        shard = _shard(path.name)
        if shard and shard.end.endswith(".gguf") and shard.number == 1 and shard.total > 1:
            # A folder often holds one model in several precisions, each in shards: the first stands for its set.
            return _numbered(source, "file", path.parent, shard.members(path.parent))
        return Location(source, "file", str(path.parent), (str(path),), findings=_part_of_set(path, shard))
    if _reads_like_a_hub_name(source) or (_REPO.fullmatch(source) and (hub_cache() / f"models--{source}").is_dir()):
        return _hub(source, source)
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source)


def _expanded(path: str) -> Path:
    """`path` with a leading ``~`` or ``~user`` replaced by that user's home."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{escape(path)}: whose home folder that is is not known", code="no_such_user") from error


# Directories


def _directory(source: str, root: Path, kind: str = "directory") -> Location:
    names = sorted((entry.name for entry in os.scandir(root)), key=natural_key)
    tensors = [name for name in names if name.endswith(".safetensors")]
    indexes = [name for name in names if name.endswith(_INDEX_SUFFIX)]
    if (main := _main(tensors, ".safetensors")) and not (main != "model.safetensors" and indexes):
        others = [name for name in (*tensors, *indexes) if name != main]
        found = _chosen(main, others, root)
        files, beside = contained(root, [main]), tuple(n for n in others if n in tensors)
        return Location(source, kind, str(root), files, findings=found, beside=beside)
    if indexes:
        chosen = _main(indexes, _INDEX_SUFFIX) or indexes[0]
        if len(indexes) > 1 and not _main(indexes, _INDEX_SUFFIX):
            raise _ambiguous(root, "index files", indexes)
        return _index(source, kind, root / chosen, _chosen(chosen, [n for n in indexes if n != chosen], root))
    adapter = next((name for name in _ADAPTERS if name in tensors), None)
    if adapter is not None and "adapter_config.json" in names:
        beside = tuple(name for name in tensors if name != adapter)
        found = _chosen(adapter, beside, root)
        return Location(source, kind, str(root), contained(root, [adapter]), findings=found, beside=beside)
    if tensors:
        return _unindexed(source, root, kind, tensors)
    if ggufs := [name for name in names if name.lower().endswith(".gguf")]:
        return _gguf_folder(source, root, kind, ggufs)
    _refuse_folder_of_other_formats(source, root, names)
    raise UsageError(
        f"the folder {escape(source)} holds no .safetensors or .gguf file{_nearby(root)}",
        path=str(root),
        code="no_safetensors",
    )


def _main(names: Sequence[str], suffix: str) -> str | None:
    """``model``, else the one of which all others are variants, as diffusers has ``x.fp16`` beside ``x``."""
    if "model" + suffix in names:
        return "model" + suffix
    shortest = min(names, key=len, default="")
    stem = shortest.removesuffix(suffix)
    others = [name for name in names if name != shortest]
    variants = all(
        name.startswith(stem + ".") and _VARIANT.fullmatch(name[len(stem) : -len(suffix)]) for name in others
    )
    return shortest if others and variants else None


def _unindexed(source: str, root: Path, kind: str, tensors: list[str]) -> Location:
    """All files of a folder without an index; numbered shards are one model, and anything beside them is not."""
    numbered = [name for name in tensors if _SHARD.fullmatch(name)]
    if not numbered:
        return Location(source, kind, str(root), contained(root, tensors))
    beside = tuple(name for name in tensors if name not in numbered)
    found = _chosen(f"the numbered shards {numbered[0]} …", beside, root)
    return replace(_numbered(source, kind, root, numbered, found), beside=beside)


def _gguf_folder(source: str, root: Path, kind: str, ggufs: list[str]) -> Location:
    """The one GGUF model of a folder: a file, or numbered shards. Several are models, or precisions, to choose from."""
    if len(ggufs) == 1 or all(_SHARD.fullmatch(name) for name in ggufs):
        return _unindexed(source, root, kind, ggufs)
    raise _ambiguous(root, "GGUF files", ggufs)


class _Shard(NamedTuple):
    """What a numbered file's name says: its number of so many, and what stands before and behind the number."""

    start: str
    number: int
    total: int
    end: str

    def members(self, folder: Path) -> list[str]:
        """Files of its set in a folder."""
        names = (entry.name for entry in os.scandir(folder))
        return sorted((n for n in names if n.startswith(self.start) and n.endswith(self.end)), key=natural_key)


def _shard(name: str) -> _Shard | None:
    found = _SHARD.fullmatch(name)
    start, end = found.span("number") if found else (0, 0)
    return found and _Shard(name[:start], int(found["number"]), int(found["total"]), name[end:])


def _part_of_set(path: Path, shard: _Shard | None) -> tuple[Finding, ...]:
    """A warning where the file's name says that it is one of several."""
    if shard is None or shard.total < 2:
        return ()
    here = len(shard.members(path.parent))
    way_out = "name the folder to read all of them" if here == shard.total else f"{here} of them are here"
    message = f"one file of a set of {shard.total} (number {shard.number}): {way_out}"
    return (Finding("part_of_set", "warning", message, str(path)),)


def sets_of(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Names of model files, those of one set of numbered shards together."""
    sets: dict[tuple[str, str], list[str]] = {}
    for name in sorted(names, key=natural_key):
        shard = _shard(name)
        sets.setdefault((shard.start, shard.end) if shard else (name, ""), []).append(name)
    return [tuple(members) for members in sets.values()]


def _numbered(source: str, kind: str, root: Path, names: list[str], found: tuple[Finding, ...] = ()) -> Location:
    """One set of numbered shards; those that should be there and are not are missing."""
    sets: dict[tuple[str, str, int], dict[int, str]] = {}
    for name in names:
        if shard := _shard(name):
            sets.setdefault((shard.start, shard.end, shard.total), {})[shard.number] = name
    if len(sets) > 1:
        raise _ambiguous(root, "sets of numbered shards", [f"{start}…{end}" for start, end, _ in sets])
    ((start, end, total), present), *_ = sets.items()
    # Numbering starts at 1 almost everywhere, at 0 in some tools' output.
    first = 0 if 0 in present else 1
    missing = tuple(f"{start}{n:05}{end}" for n in range(first, first + total) if n not in present)
    return Location(source, kind, str(root), contained(root, present.values()), missing, findings=found)


def _chosen(chosen: str, others: Sequence[str], root: Path) -> tuple[Finding, ...]:
    if not others:
        return ()
    message = f"read {escape(chosen)}; not read: {listed(others)}. To read another, name the file itself"
    return (Finding("other_files", "note", message, str(root)),)


def _ambiguous(root: Path, what: str, names: Sequence[str]) -> UsageError:
    message = f"the folder holds several {what}: {listed(names)}. Name the one you mean"
    return UsageError(message, path=str(root), code="ambiguous_folder")


# Index files


def _index(source: str, kind: str, path: Path, findings: tuple[Finding, ...] = ()) -> Location:
    root = path.parent
    if kind != "index":
        contained(root, [path.name])
    try:
        total_size, weight_map, notes = _core.parse_index(read_small(path, INDEX_BYTES, "index"))
    except FormatError as error:
        error.path = error.path or str(path)
        if kind == "index" and not path.name.endswith(_INDEX_SUFFIX):
            error.message += "; this is no index of shards: did you mean its folder?"
        raise
    found = list(findings)
    found += [from_note(note, str(path), _HARMLESS) for note in notes]
    shards = sorted({shard for _, shard in weight_map}, key=natural_key)
    present = [shard for shard in shards if os.path.exists(root / shard)]
    missing = tuple(shard for shard in shards if not os.path.exists(root / shard))
    ignored = [
        entry.name
        for entry in os.scandir(root)
        if entry.name.endswith(".safetensors") and entry.name not in set(shards)
    ]
    if not present and (complete := _complete_set(ignored)):
        # An index of another save: what lies here is whole, and no file of the index is.
        message = f"the index names {len(missing)} files of another save, none of which is here; read instead, "
        message += f"a complete set: {listed(complete, 2)}. Remove or rebuild the index"
        found.append(Finding("stale_index", "warning", message, str(path)))
        beside = tuple(name for name in ignored if name not in complete)
        return replace(_numbered(source, kind, root, complete, tuple(found)), beside=beside)
    if ignored:
        message = (
            f"the index does not name {len(ignored)} file(s) beside it: {listed(sorted(ignored, key=natural_key))}"
        )
        found.append(Finding("shard_not_in_index", "warning", message, str(path)))
    return Location(
        source,
        kind,
        str(root),
        contained(root, present),
        missing,
        str(path),
        tuple(weight_map),
        total_size,
        tuple(found),
        tuple(sorted(ignored, key=natural_key)) if kind != "index" else (),
    )


def _complete_set(names: Iterable[str]) -> list[str]:
    """The one set of numbered shards among these names that lacks none; empty if there is no such, or several."""
    numbered = [(members, _shard(members[0])) for members in sets_of(names) if len(members) > 1]
    whole = [members for members, shard in numbered if shard and len(members) == shard.total]
    return list(whole[0]) if len(whole) == 1 else []


def read_small(path: Path, cap: int, what: str) -> bytes:
    """A regular file of bounded size, whole."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > cap:
            raise LimitError(
                f"the {what} is {size:,} bytes long; the cap is {cap:,}", path=str(path), code=f"{what}_too_large"
            )
        return file.read(cap)


def open_regular(path: Path) -> BinaryIO:
    """A regular file, open for reading. Opened without blocking, so a FIFO named ``*.json`` can't hang us."""
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise UnsupportedFormatError("not a regular file", path=str(path), code="not_a_file")
    return os.fdopen(fd, "rb")


# Links


def contained(root: Path, names: Iterable[str]) -> tuple[str, ...]:
    """The paths of `names` in `root`, none of which is a link that leaves the folder."""
    allowed = _cached_model(root) or root
    for name in names:
        path = root / name
        target = Path(os.path.realpath(path))  # which, unlike resolve, takes a loop of links
        if path.is_symlink() and not target.is_relative_to(os.path.realpath(allowed)):
            raise FormatError(
                f"{escape(name)} is a link out of its folder, to {escape(str(target))}. Links are "
                "followed only inside a hub cache; if you trust it, name the target itself",
                path=str(path),
                code="link_outside",
            )
    return tuple(str(root / name) for name in names)


def _cached_model(root: Path) -> Path | None:
    """The ``models--org--name`` folder of a hub cache that holds the snapshot `root`, if it is one."""
    for folder in (root, *root.parents):
        if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--"):
            return folder.parent.parent
    return None


# The hub cache


def _reads_like_a_hub_name(source: str) -> bool:
    """``org/name``, not a path to a file that isn't there."""
    name, _, _ = source.partition("@")
    is_a_file = Path(name).suffix.lower() in {".safetensors", ".json", ".gguf", *_CONVERSIONS}
    return name.count("/") == 1 and _REPO.fullmatch(name) is not None and not is_a_file


def hub_cache() -> Path:
    """The local hub cache: ``HF_HUB_CACHE``, ``HF_HOME/hub``, or ``~/.cache/huggingface/hub``."""
    if cache := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return _expanded(cache)
    if home := os.environ.get("HF_HOME"):
        return _expanded(home) / "hub"
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return _expanded(base) / "huggingface" / "hub"


def _hub(source: str, spec: str) -> Location:
    name, _, revision = spec.partition("@")
    if not _REPO.fullmatch(name) or ".." in revision.split("/") or revision.startswith("/") or ".." in name:
        raise UsageError(f"{escape(source)} is not of the form org/name or org/name@revision", code="bad_hub_name")
    folder = hub_cache() / ("models--" + name.replace("/", "--"))
    wanted = revision or "main"
    snapshot, found = _snapshot(folder, wanted, given=bool(revision))
    if snapshot is None:
        command = f"hf download {name}" + (f" --revision {revision}" if revision else "")
        raise ShardMissingError(
            f"no file or folder {escape(source)}, and no copy of it in the local hub cache {escape(str(hub_cache()))}. "
            f"weightprint downloads nothing; `{escape(command)}` would fetch it{_cached(folder)}",
            path=str(folder),
            code="not_cached",
        )
    location = _directory(source, snapshot.resolve(), "hub")
    return replace(location, findings=found + location.findings)


def _cached(folder: Path) -> str:
    """What the cache has of a model instead of the revision that was asked for."""
    have = [
        entry.name for part in ("refs", "snapshots") if (folder / part).is_dir() for entry in os.scandir(folder / part)
    ]
    return f". Cached are the revisions {listed(sorted(have))}" if have else ""


def _snapshot(folder: Path, revision: str, *, given: bool) -> tuple[Path | None, tuple[Finding, ...]]:
    snapshots = folder / "snapshots"
    reference = folder / "refs" / revision
    if reference.is_file():
        commit = read_small(reference, 4096, "reference").decode("ascii", "replace").strip()
        if re.fullmatch(r"[0-9A-Za-z]{1,64}", commit) and (snapshots / commit).is_dir():
            return snapshots / commit, ()
    known = sorted(entry.name for entry in os.scandir(snapshots)) if snapshots.is_dir() else []
    if given:
        matches = [
            commit for commit in known if commit == revision or (len(revision) >= 7 and commit.startswith(revision))
        ]
        return (snapshots / matches[0] if len(matches) == 1 else None), ()
    if len(known) == 1:
        message = f"the cache has no reference 'main'; read its only snapshot, {known[0]}"
        return snapshots / known[0], (Finding("no_main_reference", "note", message, str(folder)),)
    if known:
        raise _ambiguous(folder, "snapshots and no reference 'main'", [f"@{commit}" for commit in known])
    return None, ()


# Wording


def _refuse_other_formats(path: Path) -> None:
    advice = _CONVERSIONS.get(path.suffix.lower())
    if advice:
        message = f"a {path.suffix} file is not safetensors: {advice}"
        raise UnsupportedFormatError(message, path=str(path), code="other_format")


def _refuse_folder_of_other_formats(source: str, root: Path, names: list[str]) -> None:
    for suffix, advice in _CONVERSIONS.items():
        others = [name for name in names if name.lower().endswith(suffix)]
        if others:
            message = f"the folder {escape(source)} holds no .safetensors file, only {listed(others)}: {advice}"
            raise UnsupportedFormatError(message, path=str(root), code="other_format")


def _nearby(root: Path) -> str:
    folders = sorted(str(found.parent.relative_to(root)) for found in root.glob("*/*.safetensors"))
    return f"; did you mean its folder {listed(sorted(set(folders)))}?" if folders else ""


def _how_to_complete(location: Location) -> str:
    if location.kind == "hub":
        return f". The download may be incomplete: `hf download {escape(location.source.removeprefix('hf://'))}`"
    return ""
