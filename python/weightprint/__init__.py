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

from weightprint import _core as _core

if TYPE_CHECKING:
    from weightprint.anatomy import Anatomy as Anatomy
    from weightprint.anatomy import Merged as Merged
    from weightprint.anatomy import Place as Place
    from weightprint.anatomy import anatomy as anatomy
    from weightprint.anatomy import merge_adapter as merge_adapter
    from weightprint.check import CheckReport as CheckReport
    from weightprint.check import check as check
    from weightprint.checkpoint import Checkpoint as Checkpoint
    from weightprint.checkpoint import TensorInfo as TensorInfo
    from weightprint.checkpoint import open as open
    from weightprint.compare import compare as compare
    from weightprint.diff import Diff as Diff
    from weightprint.diff import diff as diff
    from weightprint.errors import FileChangedError as FileChangedError
    from weightprint.errors import FormatError as FormatError
    from weightprint.errors import InternalError as InternalError
    from weightprint.errors import LimitError as LimitError
    from weightprint.errors import ShardMissingError as ShardMissingError
    from weightprint.errors import TensorNotFoundError as TensorNotFoundError
    from weightprint.errors import UnsupportedFormatError as UnsupportedFormatError
    from weightprint.errors import UsageError as UsageError
    from weightprint.errors import WeightprintError as WeightprintError
    from weightprint.findings import Finding as Finding
    from weightprint.manifest import Manifest as Manifest
    from weightprint.scan import RowStats as RowStats
    from weightprint.scan import Scan as Scan
    from weightprint.scan import scan as scan
    from weightprint.table import StatsTable as StatsTable

__version__ = _core.__version__

# Public name → the module that defines it.
_EXPORTS = {
    "Anatomy": "anatomy",
    "CheckReport": "check",
    "Checkpoint": "checkpoint",
    "Diff": "diff",
    "FileChangedError": "errors",
    "Finding": "findings",
    "FormatError": "errors",
    "InternalError": "errors",
    "LimitError": "errors",
    "Manifest": "manifest",
    "Merged": "anatomy",
    "Place": "anatomy",
    "RowStats": "scan",
    "Scan": "scan",
    "ShardMissingError": "errors",
    "StatsTable": "table",
    "TensorInfo": "checkpoint",
    "TensorNotFoundError": "errors",
    "UnsupportedFormatError": "errors",
    "UsageError": "errors",
    "WeightprintError": "errors",
    "anatomy": "anatomy",
    "check": "check",
    "compare": "compare",
    "diff": "diff",
    "merge_adapter": "anatomy",
    "open": "checkpoint",
    "scan": "scan",
}

__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_EXPORTS))


class _Package(ModuleType):
    """Keeps `weightprint.scan` the function.

    The import system binds a submodule to its package by name, so loading ``weightprint/scan.py`` would put the module
    where the verb of the same name belongs. The module stays importable (``from weightprint.scan import Scan``).
    """

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, ModuleType) and _EXPORTS.get(name) == name:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
