"""The native half of weightprint: reading and scanning. Use it through the `weightprint` package."""

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, TypeAlias, final

__version__: str

__all__ = [
    "Measure",
    "SafetensorsFile",
    "__version__",
    "arrow_stream",
    "compare_values",
    "find_above",
    "isa_available",
    "parse_index",
    "scan",
]

_Note: TypeAlias = tuple[str, str, str | None, int | None]

@final
class SafetensorsFile:
    """One file of tensors, opened once and checked: safetensors, or another container through `from_entries`.

    Raises FormatError, LimitError or UnsupportedFormatError (with path, tensor, offset and code), or OSError.
    """

    def __new__(
        cls, path: str | PathLike[str], *, mode: str = "strict", max_header_bytes: int | None = None
    ) -> SafetensorsFile: ...
    @staticmethod
    def from_entries(
        path: str | PathLike[str],
        entries: Sequence[tuple[str, str, Sequence[int], int, int]],
        *,
        nbytes: int,
        data_start: int,
        alignment: int = 1,
        metadata: Sequence[tuple[str, str]] = ...,
        mode: str = "strict",
    ) -> SafetensorsFile:
        """A file of another container, whose reader lists its tensors: (name, dtype, shape, begin, end).

        Offsets count from the start of the file, which has `nbytes` bytes (FileChangedError if not). The tensors are
        held to the rules of safetensors: inside the file from `data_start` on, as long as their shapes say, no name
        twice, no overlap; padding below `alignment` is allowed before each, and behind the last.
        """
    @property
    def path(self) -> str | PathLike[str]:
        """The path it was opened by."""
    @property
    def nbytes(self) -> int:
        """Bytes in the file, header included."""
    @property
    def data_start(self) -> int:
        """Offset of the first data byte."""
    @property
    def n_tensors(self) -> int:
        """How many tensors the header lists."""
    @property
    def metadata(self) -> dict[str, str]:
        """The header's `__metadata__`."""
    @property
    def notes(self) -> list[_Note]:
        """What was accepted but is worth saying: (code, message, tensor or None, offset or None)."""
    def names(self) -> list[str]:
        """All tensor names, in data order."""
    def find(self, name: str) -> int:
        """The number of the tensor called `name`; raises TensorNotFoundError."""
    def tensor(self, i: int) -> tuple[str, str, tuple[int, ...], int, int]:
        """Tensor `i` as (name, dtype, shape, begin, end), with offsets from the start of the file."""
    def read_bytes(self, i: int, start: int = 0, stop: int | None = None) -> bytes:
        """Raw bytes `[start, stop)` of tensor `i`."""
    def read_f32(self, i: int, start: int = 0, stop: int | None = None) -> bytes:
        """Components `[start, stop)` of tensor `i` in flat order, decoded to float32, as native-endian bytes.

        A complex element has two components; 64-bit values are rounded to the nearest float32.
        """
    def check_unchanged(self) -> None:
        """Raise FileChangedError if the file's size or modification time changed since it was opened."""

def scan(
    files: Sequence[SafetensorsFile],
    tensors: Sequence[tuple[int, int]],
    *,
    exact: bool = False,
    rows: bool = False,
    columns: bool = False,
    digest: bool = False,
    threads: int = 0,
    io: str = "auto",
    isa: str | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> dict[str, Any]:
    """Read every byte of `tensors` (pairs of file number and tensor number) once and return columns of statistics.

    Each column has one entry per tensor, in order. Columns of bytes are native-endian arrays: float64 `mean std rms l1
    l2 skewness kurtosis abs_q9999 quantile_error entropy` and the (n, 9) matrix `quantiles`; uint64 `n n_finite n_zero
    n_nan n_posinf n_neginf`; int64 (-1 for none) `abs_max_index first_nan first_inf n_distinct`. Lists: `min max
    abs_max` (float, int or None), `digest` (64 hex digits, BLAKE3 of the raw bytes), and `row_mean row_std row_l2
    column_mean column_std column_l2` (bytes of float64, or None where the tensor has no rows). What was not asked for
    is absent. `progress(done, total)` is called with bytes about every 50 ms from the calling thread; an exception in
    it stops the scan.
    """

@final
class Measure:
    """The statistics of one tensor whose float32 values are in memory: bit for bit those of a scan of an F32 file.

    Whatever the sizes of the pieces, memory stays below one unit (8 MiB) and what rows and columns need.
    """

    def __new__(
        cls,
        shape: Sequence[int],
        *,
        exact: bool = False,
        rows: bool = False,
        columns: bool = False,
        digest: bool = False,
        isa: str | None = None,
    ) -> Measure: ...
    def add(self, data: bytes) -> None:
        """The next values in flat order, as little-endian float32; raises UsageError for more than the shape holds."""
    def finish(self) -> dict[str, Any]:
        """The columns that `scan` returns, for this one tensor; raises UsageError when values are missing."""

def find_above(file: SafetensorsFile, i: int, threshold: float, limit: int) -> tuple[int, bytes, bytes]:
    """Where tensor `i` holds finite components with |x| > threshold.

    Returns (how many, the first `limit` flat component indices as int64 bytes, their values as float64 bytes).
    """

def compare_values(a: bytes, b: bytes) -> tuple[int, int, int, int, list[float]]:
    """Sums over two runs of native-endian float32 of equal length; raises UsageError for unequal ones.

    Returns (elements, elements finite on both sides, elements whose bits differ, finite elements of opposite sign,
    sums) with the sums over finite elements, in float64: a, b, a², b², ab, (a − b)², and the largest |a − b|.
    """

def parse_index(data: bytes) -> tuple[int | None, list[tuple[str, str]], list[_Note]]:
    """The index JSON of a sharded checkpoint as (total_size or None, [(tensor, shard)], notes); raises FormatError."""

def isa_available() -> list[str]:
    """The instruction sets that the kernels can use here, best first: of "avx512", "avx2", "portable"."""

def arrow_stream(columns: Sequence[tuple[str, str, Sequence[Any]]]) -> object:
    """A capsule named `arrow_array_stream` that yields `columns` as one record batch.

    Each column is (name, kind, values): kind is "f64", "u64", "i64", "bool" or "str", values a sequence in which None
    is null. Raises ValueError for another kind or for columns of unequal length.
    """
