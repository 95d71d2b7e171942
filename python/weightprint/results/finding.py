"""A finding: one thing that a stage saw and a person should know.

Stages never print and never drop what they noticed; they add a finding to their result.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import asdict, dataclass
from typing import Any, Literal

from weightprint.errors import WeightprintError

Severity = Literal["error", "warning", "note"]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""From worst to mildest. A note never changes an exit code."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One observation, with where it was made.

    Attributes:
        code: a stable short name such as ``"nan"`` or ``"total_size"``.
        severity: ``"error"`` (broken), ``"warning"`` (suspicious) or ``"note"`` (worth knowing).
        message: one sentence for a person; names in it are already escaped.
        path: the file, or None.
        tensor: the tensor's name as stored (not escaped), or None.
        offset: byte offset in the file, or None.

    Example (the models that ``weightprint demo`` writes):
        >>> import weightprint
        >>> parent = weightprint.check("weightprint-demo/parent")
        >>> manifest = weightprint.Manifest.of(parent.scan, parent.files)
        >>> finding = weightprint.check("weightprint-demo/stranger", manifest=manifest).findings[0]
        >>> finding.severity, finding.code, finding.tensor
        ('error', 'manifest_changed', 'lm_head.weight')
    """

    code: str
    severity: Severity
    message: str
    path: str | None = None
    tensor: str | None = None
    offset: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dict, ready for JSON."""
        return asdict(self)


def from_error(error: WeightprintError) -> Finding:
    """The finding that tells of an error which stopped a file from being read."""
    code = error.code or type(error).__name__.removesuffix("Error").lower()
    return Finding(code, "error", error.message, error.path, error.tensor, error.offset)


def from_note(
    note: tuple[str, str, str | None, int | None], path: str, mild: Container[str] = ("leading_whitespace",)
) -> Finding:
    """The finding for a note of the core (code, message, tensor, offset): a warning, or a note where `mild`."""
    code, message, tensor, offset = note
    return Finding(code, "note" if code in mild else "warning", message, path, tensor, offset)


def worst_first(findings: list[Finding] | tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Errors, then warnings, then notes; in the order found within each."""
    return tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))
