"""A manifest: what every tensor of a checkpoint was, so that a copy can be proven intact later.

One JSON object: ``{weightprint_manifest: 1, tool, source, digest, n_tensors, n_bytes, files: [{name, nbytes}], tensors:
[{name, dtype, shape, nbytes, blake3}]}``. Tensors, not files, are what counts: a checkpoint that was merely cut into
other shards still verifies, and the new files are noted.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from operator import index
from pathlib import Path
from typing import Any

from weightprint.checkpoint.locate import read_small
from weightprint.errors import FormatError, LimitError, UsageError
from weightprint.results.finding import Finding
from weightprint.results.saving import to_json, write_atomically
from weightprint.scan.result import Scan
from weightprint.util.escape import escape

_VERSION = 1
_BYTES = 400_000_000  # about a million tensors


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor: name, dtype, shape, size in bytes and the BLAKE3 digest of its bytes (64 hex digits)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    blake3: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """All tensors of a checkpoint with their digests, and its files with their sizes.

    Example (the models that ``weightprint demo`` writes):
        >>> import weightprint
        >>> report = weightprint.check("weightprint-demo/parent")
        >>> weightprint.Manifest.of(report.scan, report.files).save("parent.manifest.json")
        >>> manifest = weightprint.Manifest.load("parent.manifest.json")
        >>> weightprint.check("weightprint-demo/parent", manifest=manifest).sound
        True
        >>> weightprint.check("weightprint-demo/finetune", manifest=manifest).findings[0].code
        'manifest_changed'
    """

    source: str
    digest: str | None
    files: tuple[tuple[str, int], ...]
    tensors: tuple[Entry, ...]
    tool_version: str

    @classmethod
    def of(cls, scan: Scan, files: Sequence[tuple[str, int]]) -> Manifest:
        """The manifest of a scan that was made with ``digest=True``."""
        from weightprint import __version__

        if "digest" not in scan.table.names:
            raise UsageError("a manifest needs digests: call scan(…, digest=True)", code="not_measured")
        columns = ("name", "dtype", "shape", "nbytes", "digest")
        rows = zip(*(scan.table.column(name).tolist() for name in columns), strict=True)
        return cls(scan.source, scan.digest, tuple(files), tuple(Entry(*row) for row in rows), __version__)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Manifest:
        """Read a manifest, a regular file of at most 400 MB; raises FormatError if it isn't one."""
        text = read_small(Path(path), _BYTES, "manifest")
        try:
            data = json.loads(text)
            if data["weightprint_manifest"] != _VERSION:
                message = f"manifest version {data['weightprint_manifest']}; this weightprint reads version {_VERSION}"
                raise FormatError(message, path=os.fspath(path), code="manifest_version")
            return cls(
                str(data["source"]),
                data["digest"],
                tuple((str(file["name"]), index(file["nbytes"])) for file in data["files"]),
                tuple(
                    Entry(
                        str(entry["name"]),
                        str(entry["dtype"]),
                        tuple(map(index, entry["shape"])),
                        index(entry["nbytes"]),
                        str(entry["blake3"]),
                    )
                    for entry in data["tensors"]
                ),
                str(data["tool"]["version"]),
            )
        except FormatError:
            raise
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            message = f"not a weightprint manifest ({type(error).__name__})"
            raise FormatError(message, path=os.fspath(path), code="bad_manifest") from error

    def to_dict(self) -> dict[str, Any]:
        """The manifest's JSON object."""
        return {
            "weightprint_manifest": _VERSION,
            "tool": {"name": "weightprint", "version": self.tool_version},
            "source": self.source,
            "digest": self.digest,
            "n_tensors": len(self.tensors),
            "n_bytes": sum(entry.nbytes for entry in self.tensors),
            "files": [{"name": name, "nbytes": nbytes} for name, nbytes in self.files],
            "tensors": [
                {"name": e.name, "dtype": e.dtype, "shape": list(e.shape), "nbytes": e.nbytes, "blake3": e.blake3}
                for e in self.tensors
            ],
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the manifest; an old file is replaced as a whole."""
        data = to_json(self.to_dict()).encode() + b"\n"
        if len(data) > _BYTES:
            message = f"the manifest would be {len(data):,} bytes long; {_BYTES:,} can be read back"
            raise LimitError(message, path=os.fspath(path), code="manifest_too_large")
        write_atomically(path, data)

    def differences(self, scan: Scan | None, files: Sequence[tuple[str, int]]) -> list[Finding]:
        """What differs from this manifest: tensors missing, changed or extra; files of other names or sizes."""
        now = Manifest.of(scan, files) if scan else Manifest(self.source, None, (), (), self.tool_version)
        here = {entry.name: entry for entry in now.tensors}
        before = {entry.name: entry for entry in self.tensors}
        by_digest: dict[str, list[str]] = defaultdict(list)
        for entry in now.tensors:
            by_digest[entry.blake3].append(entry.name)
        findings = []
        for name, old in before.items():
            new = here.get(name)
            if new is None:
                moved = [other for other in by_digest.get(old.blake3, ()) if other not in before]
                where = f"; its bytes are now in {escape(moved[0])}" if moved and old.nbytes else ""
                message = f"{escape(name)} is in the manifest, but not here{where}"
                findings.append(Finding("manifest_missing", "error", message, tensor=name))
            elif new != old:
                message = f"{escape(name)} is not what the manifest says: {_what_changed(old, new)}"
                findings.append(Finding("manifest_changed", "error", message, tensor=name))
        for name in here:
            if name not in before:
                message = f"{escape(name)} is here, but not in the manifest"
                findings.append(Finding("manifest_extra", "warning", message, tensor=name))
        if sorted(self.files) != sorted(files):
            message = f"other files than in the manifest: {_files(files)} instead of {_files(self.files)}"
            findings.append(Finding("manifest_files", "note", message))
        return findings


def _what_changed(old: Entry, new: Entry) -> str:
    if old.dtype != new.dtype:
        return f"dtype {new.dtype} instead of {escape(old.dtype)}"
    if old.shape != new.shape:
        return f"shape {list(new.shape)} instead of {list(old.shape)}"
    return f"its bytes have the digest {new.blake3[:16]}… instead of {escape(old.blake3[:16])}…"


def _files(files: Sequence[tuple[str, int]]) -> str:
    shown = ", ".join(f"{escape(name)} ({nbytes:,} bytes)" for name, nbytes in files[:3])
    return (shown + (f" and {len(files) - 3} more" if len(files) > 3 else "")) or "none"
