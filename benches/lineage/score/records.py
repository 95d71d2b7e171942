"""What is known of every (pair, method) so far: one append-only file of JSON lines per method.

A line is written whole and flushed before the next pair is started, so a killed run loses the pairs it was working on
and no more; a last line cut short is ignored and its pair scored again. A line counts only while the method's version
is the one it was written under, a digest of code (:mod:`.code_digest`); the commit that was checked out stands beside
it, for people.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def scored_with(records: Mapping[str, Record]) -> list[dict[str, Any]]:
    """The code that records were made with, the most used first: its version, the commit if known, how many."""
    count = Counter((record["version"], record.get("commit")) for record in records.values())
    return [{"version": version, "commit": commit, "pairs": n} for (version, commit), n in count.most_common()]


class Records:
    """The files under one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def read(self, method: str, version: str | None = None) -> dict[str, Record]:
        """Pair's key → what was recorded last, of this version (any version if None)."""
        out: dict[str, Record] = {}
        for line in self._lines(method):
            try:
                record: Record = json.loads(line)
            except ValueError:
                continue  # cut short by a kill
            if version is None or record["version"] == version:
                out[record["pair"]] = record
        return out

    def append(self, method: str, version: str, pair: str, values: Mapping[str, Any]) -> None:
        """Add one line."""
        text = json.dumps({"pair": pair, "version": version, **values}, allow_nan=False)
        with self._path(method).open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a line that a kill cut short: it ends here
                    file.write(b"\n")
            file.write(text.encode() + b"\n")

    def _path(self, method: str) -> Path:
        return self.folder / f"{method}.jsonl"

    def _lines(self, method: str) -> Iterator[str]:
        if self._path(method).exists():
            with self._path(method).open() as file:
                yield from file
