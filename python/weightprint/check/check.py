"""Is this checkpoint sound? Structure first, then every value, in one pass.

What the reader refuses in strict mode is opened again in compatible mode, so that the report says what is wrong and
the rest is still looked at; a file that no mode opens, and every shard that is missing, is a finding.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from weightprint.anatomy.adapters.opened import base_and_adapter, opened
from weightprint.check.codes import selection, way_out
from weightprint.check.context import CheckContext
from weightprint.check.health import OF_VALUES, examine
from weightprint.checkpoint.checkpoint import Checkpoint, open_tolerant
from weightprint.checkpoint.locate import Location, locate
from weightprint.checkpoint.shards import ranks_of
from weightprint.errors import UsageError, WeightprintError
from weightprint.results.finding import SEVERITIES, Finding, from_error, worst_first
from weightprint.results.saving import json_value
from weightprint.results.shown import Shown
from weightprint.scan.request import IO, Request, Settings
from weightprint.scan.result import Scan
from weightprint.scan.stored import scan_stored
from weightprint.util.escape import escape
from weightprint.util.progress import Progress

if TYPE_CHECKING:
    from weightprint.check.manifest import Manifest

_REQUEST = Request(exact=True, rows=True, digest=True)
_BESIDE = frozenset({"other_files", "shard_not_in_index"})


@dataclass(frozen=True, slots=True, eq=False)
class CheckReport(Shown):
    """What `check` found.

    Attributes:
        source: MODEL as it was named.
        findings: worst first.
        scan: the pass over all values (exact, rows, digest), or None if nothing could be opened.
        files: name and size of every file that could be opened.

    Example (the models that ``weightprint demo`` writes):
        >>> import weightprint
        >>> weightprint.check("weightprint-demo/parent")
        <CheckReport weightprint-demo/parent: sound; 0 error(s), 0 warning(s), 0 note(s)>
    """

    _report = "check"

    source: str
    findings: tuple[Finding, ...]
    scan: Scan | None
    files: tuple[tuple[str, int], ...]

    @property
    def counts(self) -> dict[str, int]:
        """Number of findings by severity."""
        return {severity: sum(f.severity == severity for f in self.findings) for severity in SEVERITIES}

    @property
    def sound(self) -> bool:
        """True if there is nothing beyond notes."""
        return all(finding.severity == "note" for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """0 if sound, else 1."""
        return 0 if self.sound else 1

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        scan = self.scan
        return {
            "schema_version": 1,
            "source": self.source,
            "sound": self.sound,
            "counts": self.counts,
            "n_tensors": scan.n_tensors if scan else 0,
            "n_parameters": scan.n_parameters if scan else 0,
            "bytes_read": scan.bytes_read if scan else 0,
            "seconds": json_value(scan.seconds) if scan else 0.0,
            "digest": scan.digest if scan else None,
            "files": [{"name": name, "nbytes": nbytes} for name, nbytes in self.files],
            "findings": [{**finding.to_dict(), "way_out": way_out(finding.code)} for finding in self.findings],
        }

    def __repr__(self) -> str:
        counts = ", ".join(f"{n} {severity}(s)" for severity, n in self.counts.items())
        return f"<CheckReport {escape(self.source)}: {'sound' if self.sound else 'not sound'}; {counts}>"


def check(
    model: str | os.PathLike[str],
    *,
    include: str | Iterable[str] = (),
    exclude: str | Iterable[str] = (),
    threads: int | None = None,
    io: IO = "auto",
    progress: Progress | None = None,
    manifest: Manifest | None = None,
    select: Iterable[str] = (),
    ignore: Iterable[str] = (),
) -> CheckReport:
    """Look for everything that is wrong with a checkpoint: its files, and every value in them.

    Args:
        model: what `open` takes, or ``base+adapter``: each is checked, and whether they go together.
        include: glob or globs on names; the structure is checked whole in any case.
        exclude: glob or globs that take tensors out.
        threads: how many; None: all cores.
        io: as for `scan`.
        progress: called as ``progress(bytes_done, bytes_total)``.
        manifest: hold every tensor against this manifest too.
        select: codes of findings (docs/checks.md); others are left out. Empty: all.
        ignore: codes of findings to leave out.

    Raises:
        UsageError, FileNotFoundError, UnsupportedFormatError: there is nothing here to check.
        UsageError: no finding has a code that was named.
        FileChangedError: a file changed under the scan.

    Example (the models that ``weightprint demo`` writes):
        >>> import weightprint
        >>> report = weightprint.check("weightprint-demo/parent")
        >>> report.sound, report.counts
        (True, {'error': 0, 'warning': 0, 'note': 0})
    """
    if manifest is not None and (include or exclude):
        raise UsageError("a manifest is of a whole checkpoint: leave out include and exclude", code="partial_manifest")
    chosen = selection(select, ignore)
    if names := base_and_adapter(model):
        if manifest is not None:
            raise UsageError("a manifest is of files, and no file holds a merged model", code="partial_manifest")
        both = [
            check(
                name,
                include=include,
                exclude=exclude,
                threads=threads,
                io=io,
                progress=progress,
                select=select,
                ignore=ignore,
            )
            for name in names
        ]
        return _merged(os.fspath(model), both, chosen)
    location = locate(model)
    checkpoint, findings = _opened(location)
    findings += checkpoint.config_file.findings
    result: Scan | None = None
    if checkpoint.files:
        with checkpoint:
            settings = Settings(threads, io)
            result = scan_stored(checkpoint, include, exclude, _REQUEST, replace(settings, progress=progress))
            # What the files beside the model are, and what the ranks hold, is looked at instead of noted.
            findings = [f for f in findings if not (location.beside and f.code in _BESIDE)]
            findings += examine(CheckContext(checkpoint, result, location))
            findings += _other_ranks(location, include, exclude, settings)
            checkpoint.check_unchanged()
    files = tuple((info.name, info.nbytes) for info in checkpoint.files)
    if manifest is not None:
        findings += manifest.differences(result, files)
    return CheckReport(location.source, worst_first([f for f in findings if chosen(f.code)]), result, files)


def _merged(source: str, both: Sequence[CheckReport], chosen: Callable[[str], bool]) -> CheckReport:
    """A base and its adapter, each checked, and whether they go together; `both` in that order."""
    findings = [
        replace(finding, message=f"{which}: {finding.message}")
        for which, report in zip(("base", "adapter"), both, strict=True)
        for finding in report.findings
    ]
    try:
        with opened(source, values=False):
            pass
    except WeightprintError as error:
        if all(error.code != finding.code for finding in both[1].findings):
            findings.append(from_error(error))
    return CheckReport(
        source, worst_first([f for f in findings if chosen(f.code)]), both[0].scan, both[0].files + both[1].files
    )


def _other_ranks(
    location: Location, include: str | Iterable[str], exclude: str | Iterable[str], settings: Settings
) -> Iterator[Finding]:
    """What is wrong with the values of all tensor-parallel ranks but the first, which the scan holds."""
    ranks = ranks_of([os.path.basename(path) for path in location.files]) if not location.weight_map else []
    for rank in sorted(set(ranks))[1:]:
        mine = tuple(path for path, of in zip(location.files, ranks, strict=True) if of == rank)
        here = replace(location, files=mine, findings=(), beside=())
        with open_tolerant(here) as checkpoint:
            result = scan_stored(checkpoint, include, exclude, _REQUEST, settings)
            for finding in examine(CheckContext(checkpoint, result, here), OF_VALUES):
                yield replace(finding, message=f"rank {rank}: {finding.message}")


def _opened(location: Location) -> tuple[Checkpoint, list[Finding]]:
    """All that can be opened, and what is wrong with the files: compatible mode reads more, strict mode sees more."""
    try:
        location.require_complete()
        checkpoint = Checkpoint(location, "strict")
        return checkpoint, list(checkpoint.findings)
    except WeightprintError as error:
        refused = replace(from_error(error), severity="warning")
    checkpoint = open_tolerant(location)
    findings = [
        Finding("shard_missing", "error", f"file {escape(name)} is missing", os.path.join(location.root, name))
        for name in location.missing
    ]
    findings += checkpoint.findings
    if all(finding.severity == "note" for finding in findings):
        findings.append(refused)  # compatible mode has no word for it
    return checkpoint, findings
