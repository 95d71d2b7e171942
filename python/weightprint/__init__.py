"""weightprint: whose weights are these?

Reads model checkpoints (safetensors), measures every tensor, and says from the weights alone whether two models
share an origin. The verbs of the command line are functions here; results are frozen, print well, pickle, and have
`to_dict`::

    import weightprint

    checkpoint = weightprint.open("model/")  # headers only
    scan = weightprint.scan(checkpoint)  # one pass over every byte
    scan.to_pandas()

Importing this package loads numpy and the native module, nothing else; the rest comes when it is used.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from weightprint import _core

__version__ = _core.__version__

# Public name → the module that defines it.
_EXPORTS = {
    "Anatomy": "anatomy.anatomy",
    "CheckReport": "check.check",
    "Checkpoint": "checkpoint.checkpoint",
    "Diff": "diff.diff",
    "FileChangedError": "errors",
    "Finding": "results.finding",
    "Fingerprint": "fingerprint.fingerprint",
    "FormatError": "errors",
    "InternalError": "errors",
    "LimitError": "errors",
    "Lineage": "results.lineage",
    "Manifest": "check.manifest",
    "Merged": "anatomy.adapters.merged",
    "Place": "anatomy.place",
    "RowStats": "scan.result",
    "Scan": "scan.result",
    "ShardMissingError": "errors",
    "StatsTable": "results.table",
    "TensorInfo": "checkpoint.info",
    "TensorNotFoundError": "errors",
    "UnsupportedFormatError": "errors",
    "UsageError": "errors",
    "WeightprintError": "errors",
    "anatomy": "anatomy.anatomy",
    "check": "check.check",
    "compare": "compare.compare",
    "diff": "diff.diff",
    "fingerprint": "fingerprint.fingerprint",
    "lineage": "library.lineage",
    "merge_adapter": "anatomy.adapters.merged",
    "open": "checkpoint.checkpoint",
    "recipe": "compare.recipe",
    "scan": "scan.scan",
}

__all__ = ["__version__", *_EXPORTS]


if TYPE_CHECKING:  # what `__getattr__` finds when it is asked
    from weightprint.anatomy.adapters.merged import Merged as Merged
    from weightprint.anatomy.adapters.merged import merge_adapter as merge_adapter
    from weightprint.anatomy.anatomy import Anatomy as Anatomy
    from weightprint.anatomy.anatomy import anatomy as anatomy
    from weightprint.anatomy.place import Place as Place
    from weightprint.check.check import CheckReport as CheckReport
    from weightprint.check.check import check as check
    from weightprint.check.manifest import Manifest as Manifest
    from weightprint.checkpoint.checkpoint import Checkpoint as Checkpoint
    from weightprint.checkpoint.checkpoint import open as open
    from weightprint.checkpoint.info import TensorInfo as TensorInfo
    from weightprint.compare.compare import compare as compare
    from weightprint.compare.recipe import recipe as recipe
    from weightprint.diff.diff import Diff as Diff
    from weightprint.diff.diff import diff as diff
    from weightprint.errors import FileChangedError as FileChangedError
    from weightprint.errors import FormatError as FormatError
    from weightprint.errors import InternalError as InternalError
    from weightprint.errors import LimitError as LimitError
    from weightprint.errors import ShardMissingError as ShardMissingError
    from weightprint.errors import TensorNotFoundError as TensorNotFoundError
    from weightprint.errors import UnsupportedFormatError as UnsupportedFormatError
    from weightprint.errors import UsageError as UsageError
    from weightprint.errors import WeightprintError as WeightprintError
    from weightprint.fingerprint.fingerprint import Fingerprint as Fingerprint
    from weightprint.fingerprint.fingerprint import fingerprint as fingerprint
    from weightprint.library.lineage import lineage as lineage
    from weightprint.results.finding import Finding as Finding
    from weightprint.results.lineage import Lineage as Lineage
    from weightprint.results.table import StatsTable as StatsTable
    from weightprint.scan.result import RowStats as RowStats
    from weightprint.scan.result import Scan as Scan
    from weightprint.scan.scan import scan as scan
else:

    def __getattr__(name: str) -> Any:
        if name not in _EXPORTS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_EXPORTS))


class _Package(ModuleType):
    """Keeps `weightprint.scan` the function.

    The import system binds a folder to its package by name, so loading ``weightprint/scan`` would put the module where
    the verb of the same name belongs. It stays importable (``from weightprint.scan.result import Scan``).
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (isinstance(value, ModuleType) and name in _EXPORTS):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
