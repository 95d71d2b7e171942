"""Read a model once, and keep what is enough to compare it again: the verb, and its result."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import numpy as np

from weightprint.anatomy.adapters.opened import opened
from weightprint.anatomy.anatomy import Anatomy
from weightprint.anatomy.place import Geometry
from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.checkpoint.info import TensorInfo
from weightprint.errors import FormatError, TensorNotFoundError, UsageError
from weightprint.fingerprint.file import is_fingerprint, packed, read, unpacked, write
from weightprint.fingerprint.layout import misfit
from weightprint.fingerprint.live import outline
from weightprint.fingerprint.model import ModelView, Tensor
from weightprint.fingerprint.one_pass import Passed, stream
from weightprint.fingerprint.parts import Parts
from weightprint.fingerprint.plan import BUCKETS, Plan, folded, sketch_key
from weightprint.fingerprint.records import plan_of, summary_of, tensor_of, told
from weightprint.results.saving import json_value, to_json
from weightprint.results.shown import Shown
from weightprint.scan.request import IO, Settings
from weightprint.scan.result import whole_digest
from weightprint.util import parallel
from weightprint.util.arrays import Array
from weightprint.util.escape import escape
from weightprint.util.progress import Meter, Progress

#: Statistics of every tensor that are kept.
STATISTICS = ("mean", "std", "l2", "abs_max", "skewness", "kurtosis", "n_finite", "n_zero", "n_nan")


@dataclass(frozen=True, eq=False)
class Fingerprint(Shown):
    """What is kept of one model: enough to compare it without its weights. Frozen; pickles; holds no file.

    Attributes:
        source: MODEL as it was named.
        plan: what was kept, by which seed.
        summary: ``digest`` of the whole, ``files`` (name, bytes, digest), ``family``, ``n_tensors``, ``n_parameters``,
            ``n_bytes``, ``main_stack``, ``geometry`` by stack, and weightprint's ``version``.
        tensors: every canonical tensor by name: dtype, shape, digest, place; no values.
        arrays: what was kept of values, see :mod:`weightprint.fingerprint.parts`; numpy arrays by name.
        seconds: wall time of the pass, None where it was read from a file.

    Example (the models that ``weightprint demo`` writes):
        >>> import weightprint
        >>> print_of = weightprint.fingerprint("weightprint-demo/parent")
        >>> print_of.summary["n_parameters"], len(print_of.tensors)
        (151824, 48)
        >>> print_of.save("parent.fp")
        >>> weightprint.compare("parent.fp", "weightprint-demo/finetune").verdict
        'shared_origin'
    """

    _report = "page.fingerprint"

    source: str
    plan: Plan
    summary: Mapping[str, Any]
    tensors: Mapping[str, Tensor] = field(repr=False)
    arrays: Mapping[str, Array] = field(repr=False)
    seconds: float | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept of values."""
        return sum(array.nbytes for array in self.arrays.values())

    @cached_property
    def geometry(self) -> Mapping[str, Geometry]:
        """Stack → its sizes."""
        found = self.summary["geometry"].items()
        return {stack: Geometry(**{**sizes, "guessed": tuple(sizes["guessed"])}) for stack, sizes in found}

    def bytes_by_part(self) -> dict[str, int]:
        """Part → the bytes that it takes."""
        out: dict[str, int] = {}
        for name, array in self.arrays.items():
            part = name.partition("/")[0]
            out[part] = out.get(part, 0) + array.nbytes
        return out

    def part(self, name: str) -> dict[str, dict[str, Array]]:
        """One part: tensor or block → what → array."""
        out: dict[str, dict[str, Array]] = {}
        for key, array in self.arrays.items():
            part, _, rest = key.partition("/")
            if part == name and rest:
                of, _, what = rest.rpartition("/")
                out.setdefault(of, {})[what] = array
        return out

    def statistics(self, column: str) -> Mapping[str, float]:
        """Tensor → one of the scan's statistics (`mean std l2 abs_max skewness kurtosis n_finite n_zero n_nan`)."""
        if column not in STATISTICS:
            raise UsageError(f"no such statistic; there are {', '.join(STATISTICS)}", code="no_such_column")
        return self._statistics[column]

    @cached_property
    def _statistics(self) -> dict[str, dict[str, float]]:
        columns = self.arrays["statistics"].T.tolist()
        return {
            name: dict(zip(self.tensors, column, strict=True)) for name, column in zip(STATISTICS, columns, strict=True)
        }

    def sketch(self, name: str) -> np.ndarray:
        """The linear sketch of a matrix by its name: float64 (buckets,), 256 of them unless a model has very many.

        Sketches of tensors of one place, made with one seed, keep inner products: ``sketch(a) @ sketch(b)`` is that of
        all values, with a deviation of at most √(2 / buckets) times both norms. They are linear.

        Raises TensorNotFoundError: no such tensor, or no matrix.
        """
        if name not in self._sketched:
            raise TensorNotFoundError("no matrix of that name was sketched", tensor=name, code="tensor_not_found")
        found: np.ndarray = self.arrays["sketches"][self._sketched[name]].astype(np.float64)
        return found

    def norm_before(self, name: str) -> str | None:
        """The tensor that is the gain of the norm in front of this one."""
        return self._norms.get(name)

    @cached_property
    def _norms(self) -> dict[str, str]:
        names = list(self.tensors)
        return {name: names[k] for name, k in zip(names, self.arrays["gains"].tolist(), strict=True) if k >= 0}

    @cached_property
    def _sketched(self) -> dict[str, int]:
        return {name: k for k, name in enumerate(name for name, t in self.tensors.items() if t.sketched)}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file, whole or not at all; its bytes follow from the model, the plan and the version alone."""
        metadata = {"plan": to_json(self.plan.to_dict(), None), "summary": to_json(self.summary, None)}
        write(path, {**self.arrays, "tensors": packed([told(t) for t in self.tensors.values()])}, metadata)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Fingerprint:
        """Read one that was saved. Raises as :func:`weightprint.fingerprint.file.read` does."""
        arrays, metadata = read(path)
        try:
            plan, summary = plan_of(json.loads(metadata["plan"])), summary_of(json.loads(metadata["summary"]))
            tensors = {t.name: t for t in map(tensor_of, unpacked(arrays.pop("tensors")))}
            found = cls(summary["source"], plan, summary, tensors, arrays)
            wrong = misfit(tensors, found.geometry, plan, arrays, len(STATISTICS))
            found = found if wrong else dataclasses.replace(found, tensors=_counted(found))
        except (KeyError, ValueError, TypeError, RecursionError) as error:
            wrong = str(error)
        if wrong:
            raise FormatError(
                f"the fingerprint is damaged: {escape(wrong)}", path=os.fspath(path), code="fingerprint_damaged"
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """What it is of, its plan, the bytes of its parts, and every tensor; no values. Ready for JSON."""
        out = {
            "source": self.source,
            "plan": self.plan.to_dict(),
            "summary": dict(self.summary),
            "nbytes": self.nbytes,
            "bytes_by_part": self.bytes_by_part(),
            "seconds": self.seconds,
            "tensors": [told(t) for t in self.tensors.values()],
        }
        return dict(json_value(out))

    def to_json(self, indent: int | None = 2) -> str:
        """`to_dict` as JSON text."""
        return to_json(self.to_dict(), indent)

    def __repr__(self) -> str:
        return f"<Fingerprint of {escape(self.source)}: {len(self.tensors):,} tensors, {self.nbytes:,} bytes>"


def fingerprint(
    model: str | os.PathLike[str] | Checkpoint | Anatomy,
    *,
    seed: int = 0,
    threads: int | None = None,
    io: IO = "auto",
    progress: Progress | None = None,
) -> Fingerprint:
    """Read every byte of a model once, and keep what is enough to compare it later.

    Args:
        model: what `open` takes (or ``base+adapter``), an open checkpoint, or an anatomy.
        seed: of what is sampled and of signs; only fingerprints of one seed can be compared.
        threads: how many; None: all cores. No bit of the result depends on it.
        io: ``"pread"``, ``"mmap"`` or ``"auto"``; neither does it depend on that.
        progress: called as ``progress(bytes_done, bytes_total)``.

    Raises:
        FileChangedError: a file changed while it was read.
        FormatError, OSError, …: as `weightprint.open` does.

    Example (the models that ``weightprint demo`` writes):
        >>> import weightprint
        >>> a = weightprint.fingerprint("weightprint-demo/parent")
        >>> b = weightprint.fingerprint("weightprint-demo/finetune")
        >>> name = "model.layers.0.mlp.up_proj.weight"
        >>> x, y = a.sketch(name), b.sketch(name)
        >>> bool(x @ y > 0.9 * (x @ x))
        True
    """
    started, plan = time.perf_counter(), Plan(seed)
    with opened(model, values=False) as anatomy, parallel.one_blas_thread(), np.errstate(all="ignore"):
        side, reads = outline(anatomy, "a")
        parts = Parts(side, plan)
        keys = {t.name: sketch_key(seed, t.name, t.place) for t in side.tensors.values() if t.sketched}
        meter = Meter(progress, anatomy.checkpoint.n_bytes)
        settings = Settings(threads or os.cpu_count(), io)
        passed = stream(anatomy.checkpoint, side, reads, False, [parts], meter, sketches=keys, settings=settings)
        tensors = {t.name: _known(passed.side, t) for t in passed.side.tensors.values()}
        for checkpoint in anatomy.checkpoints:
            checkpoint.check_unchanged()
        columns = [[float(passed.canonical[name][c] or 0) for c in STATISTICS] for name in tensors]
        arrays = {
            **dict(sorted(parts.arrays.items())),
            "sketches": _sketches([passed.canonical[name]["sketch"] for name in keys], plan),
            "gains": _gains(anatomy, tensors),
            "statistics": np.array(columns, np.float64).reshape(len(tensors), len(STATISTICS)),
        }
        summary = _summary(anatomy, passed)
    return Fingerprint(anatomy.source, plan, summary, tensors, arrays, time.perf_counter() - started)


def both_kept(a: object, b: object, progress: Progress | None) -> tuple[Fingerprint, Fingerprint] | None:
    """Two models as `all_kept` gives them."""
    kept = all_kept((a, b), progress)
    return None if kept is None else (kept[0], kept[1])


def all_kept(models: Sequence[object], progress: Progress | None) -> list[Fingerprint] | None:
    """Where one is a fingerprint, all as such, the others made with its seed; None where none is."""
    kept = [as_fingerprint(model) for model in models]
    seeds = [found.plan.seed for found in kept if found is not None]
    if not seeds:
        return None
    return [
        found or fingerprint(cast("str", model), seed=seeds[0], progress=progress)
        for model, found in zip(models, kept, strict=True)
    ]


def as_fingerprint(model: object) -> Fingerprint | None:
    """MODEL where it is a fingerprint, or a file whose metadata says that it is one; None for anything else."""
    if isinstance(model, Fingerprint):
        return model
    if isinstance(model, (str, os.PathLike)) and is_fingerprint(model):
        return Fingerprint.load(model)
    return None


def _known(side: ModelView, tensor: Tensor) -> Tensor:
    """With what the tests would ask its values for: whether they are too simple, or those of a formula."""
    simple, table = side.is_trivial(tensor), tensor.place is None and side.is_computed(tensor)
    return dataclasses.replace(tensor, simple=simple, sinusoidal=table)


def _counted(of: Fingerprint) -> dict[str, Tensor]:
    """Tensors with the NaN and infinities that their statistics count. Raises ValueError where these can't be."""
    out = {}
    for name, tensor in of.tensors.items():
        finite, nan = (int(of.statistics(column)[name]) for column in ("n_finite", "n_nan"))
        if min(finite, nan) < 0 or finite + nan > tensor.numel:
            raise ValueError(f"{name!r} counts more values than it has")
        infinite = 0 if tensor.undecoded else tensor.numel - finite - nan
        out[name] = dataclasses.replace(tensor, n_nan=nan, n_infinite=infinite)
    return out


def _gains(anatomy: Anatomy, tensors: Mapping[str, Tensor]) -> Array:
    """Tensor → the number of the tensor that is the gain of the norm in front of it, -1 for none; int32 (tensors,)."""
    at = {t.place: number for number, t in enumerate(tensors.values()) if t.place is not None}
    before = (None if t.place is None or not t.rank2 else anatomy.norm_before(t.place) for t in tensors.values())
    return np.array([-1 if norm is None else at.get(norm, -1) for norm in before], np.int32)


def _sketches(found: list[bytes], plan: Plan) -> Array:
    all_of_them = np.array([np.frombuffer(sketch) for sketch in found], np.float64).reshape(-1, BUCKETS)
    return folded(all_of_them, plan.buckets(len(found))).astype(np.float32)


def _summary(anatomy: Anatomy, passed: Passed) -> dict[str, Any]:
    from weightprint import __version__  # the package's own root, which loads this file

    files = []
    per_file: list[list[TensorInfo]] = [[] for _ in anatomy.checkpoint.files]
    for info in anatomy.checkpoint.tensors:
        per_file[info.file].append(info)
    for file, infos in zip(anatomy.checkpoint.files, per_file, strict=True):
        digests = [passed.stored[info.name]["digest"] for info in infos]
        digest = whole_digest([i.dtype for i in infos], [i.shape for i in infos], digests)
        files.append({"name": file.name, "bytes": file.nbytes, "digest": digest})
    return {
        "source": anatomy.source,
        "digest": passed.digest if len(anatomy.checkpoints) == 1 else None,
        "files": files,
        "family": anatomy.family,
        "main_stack": anatomy.main_stack,
        "geometry": {stack: sizes.to_dict() for stack, sizes in anatomy.geometry.items()},
        "n_tensors": anatomy.checkpoint.n_tensors,
        "n_parameters": anatomy.weights.n_parameters,
        "n_bytes": anatomy.checkpoint.n_bytes,
        "version": __version__,
    }
