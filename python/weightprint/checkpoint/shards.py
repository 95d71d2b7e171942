"""One numbering for the tensors of many files, held against the index.

A tensor that several files hold is read from the file that the index names, else from the first. Whatever the files
and the index disagree on becomes a finding, one per kind and pair of files, so that a hostile index can't make a
million of them.
"""

from __future__ import annotations

import os
import re
from array import array
from collections import defaultdict
from collections.abc import Sequence

from weightprint import _core
from weightprint.checkpoint.locate import Location
from weightprint.results.finding import Finding, Severity
from weightprint.util.escape import escape

#: How engines name the file of one rank: model-rank-0-part-0, mp_rank_00, tp_rank-3, consolidated.00.
_RANK = re.compile(r"(?:^|[-_.])rank[-_]?(\d{1,4})(?!\d)|^consolidated\.(\d\d)\.", re.IGNORECASE)


class Numbering:
    """Tensor number → (file, number in that file), and name → tensor number where there is more than one file.

    Attributes:
        of_file: number of the file of each tensor.
        of_index: number of each tensor in its file.
        by_name: tensor numbers by name; None for one file without an index, where the core looks names up.
        findings: disagreements between files and index.
    """

    def __init__(self, files: Sequence[_core.SafetensorsFile], paths: Sequence[str], location: Location) -> None:
        self.findings: list[Finding] = []
        self.by_name: dict[str, int] | None = None
        if len(files) == 1 and not location.weight_map:
            n = files[0].n_tensors
            self.of_file, self.of_index = array("I", bytes(4 * n)), array("I", range(n))
            return
        self.by_name = {}
        self.of_file, self.of_index = array("I"), array("I")
        names = [os.path.basename(path) for path in paths]
        wanted = dict(location.weight_map)
        twice: dict[tuple[int, int, bool], list[str]] = defaultdict(list)
        for f, file in enumerate(files):
            for i, name in enumerate(file.names()):
                number = self.by_name.setdefault(name, len(self.of_file))
                if number == len(self.of_file):
                    self.of_file.append(f)
                    self.of_index.append(i)
                    continue
                twice[self.of_file[number], f, name in wanted].append(name)
                if wanted.get(name) == names[f]:
                    self.of_file[number], self.of_index[number] = f, i
        if not wanted and (ranks := ranks_of(names)):
            for (first, second, _), tensors in list(twice.items()):
                if ranks[first] != ranks[second]:
                    del twice[first, second, False]
                    self._add_ranks(tensors, names, ranks, paths[second])
        for (first, second, named), tensors in twice.items():
            choice = "the one that the index names counts" if named else "no index says which one counts"
            what = f"in both {escape(names[first])} and {escape(names[second])}; {choice}"
            self._add("duplicate_tensor", "warning" if named else "error", tensors, what, paths[second])
        if wanted:
            self._hold_against_index(files, names, location, wanted)

    def _hold_against_index(
        self, files: Sequence[_core.SafetensorsFile], names: list[str], location: Location, wanted: dict[str, str]
    ) -> None:
        assert self.by_name is not None
        index, opened, total = location.index, set(names), 0
        absent: dict[str, list[str]] = defaultdict(list)
        astray: dict[tuple[str, str], list[str]] = defaultdict(list)
        for name, shard in wanted.items():
            number = self.by_name.get(name)
            if number is None:
                absent[shard].append(name)
                continue
            f = self.of_file[number]
            *_, begin, end = files[f].tensor(self.of_index[number])
            total += end - begin
            if names[f] != shard:
                astray[names[f], shard].append(name)
        for (found, said), tensors in astray.items():
            what = f"in {escape(found)}, but the index says {escape(said)}"
            self._add("tensor_in_wrong_shard", "error", tensors, what, index)
        for shard, tensors in absent.items():
            code = "tensor_missing" if shard in opened else "tensor_lost"
            reason = "which does not hold it" if shard in opened else "which can't be read"
            self._add(code, "error", tensors, f"put by the index in {escape(shard)}, {reason}", index)
        extra = [name for name in self.by_name if name not in wanted]
        if extra:
            self._add("tensor_not_in_index", "warning", extra, "in the files, but not in the index", index)
        if location.total_size is not None and not absent and location.total_size != total:
            message = f"the index says total_size {location.total_size:,}; its tensors have {total:,} bytes"
            self.findings.append(Finding("total_size", "warning", message, index))

    def _add_ranks(self, tensors: list[str], names: list[str], ranks: list[int], path: str) -> None:
        """Said once: files of one model cut over several ranks hold equal names, and each its part of the values."""
        if any(finding.code == "tensor_parallel_ranks" for finding in self.findings):
            return
        message = (
            f"parts of {len(set(ranks))} tensor-parallel ranks ({', '.join(map(escape, names[:4]))}): each holds its "
            f"part of {len(tensors):,} tensors, and all count. Joining them is for the engine that wrote them; until "
            "then no file here is a whole model"
        )
        self.findings.append(Finding("tensor_parallel_ranks", "error", message, path))

    def _add(self, code: str, severity: Severity, tensors: list[str], what: str, path: str | None) -> None:
        if len(tensors) == 1:
            message = f"tensor {escape(tensors[0])} is {what}"
            self.findings.append(Finding(code, severity, message, path, tensors[0]))
            return
        shown = ", ".join(escape(name, 80) for name in tensors[:5]) + (" …" if len(tensors) > 5 else "")
        self.findings.append(Finding(code, severity, f"{len(tensors):,} tensors are {what}: {shown}", path))


def ranks_of(names: Sequence[str]) -> list[int]:
    """The rank that each file's name gives it; empty unless all have one, and not all the same."""
    found = [_RANK.search(name) for name in names]
    ranks = [int(match[1] or match[2]) for match in found if match]
    return ranks if len(ranks) == len(names) and len(set(ranks)) > 1 else []
