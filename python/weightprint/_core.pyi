"""The native half of weightprint: reading and scanning. Use it through the `weightprint` package."""

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, TypeAlias, final

import numpy as np
import numpy.typing as npt

__version__: str

__all__ = [
    "Measure",
    "SafetensorsFile",
    "__version__",
    "arrow_stream",
    "assign",
    "cells",
    "compare_stored",
    "compare_values",
    "decode_codebook",
    "decode_lookup",
    "decode_packed",
    "decode_scaled",
    "find_above",
    "isa_available",
    "nearest",
    "parse_index",
    "peaks",
    "read_rect",
    "read_sample",
    "scan",
    "standardise",
    "unpack",
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
    def read_small(self, tensors: Sequence[int]) -> list[bytes]:
        """All bytes of each of these tensors, in one call; raises UsageError for one of more than 64 KiB."""
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
    keep: Sequence[
        tuple[int, npt.NDArray[np.float32], Sequence[tuple[int, int]], Sequence[tuple[int, int]] | None]
    ] = ...,
    sketch: Sequence[int | None] | None = None,
) -> dict[str, Any]:
    """Read every byte of `tensors` (pairs of file number and tensor number) once and return columns of statistics.

    Each column has one entry per tensor, in order. Columns of bytes are native-endian arrays: float64 `mean std rms l1
    l2 skewness kurtosis abs_q9999 quantile_error entropy` and the (n, 9) matrix `quantiles`; uint64 `n n_finite n_zero
    n_nan n_posinf n_neginf`; int64 (-1 for none) `abs_max_index first_nan first_inf n_distinct`. Lists: `min max
    abs_max` (float, int or None), `digest` (64 hex digits, BLAKE3 of the raw bytes), and `row_mean row_std row_l2
    column_mean column_std column_l2` (bytes of float64, or None where the tensor has no rows). What was not asked for
    is absent. `progress(done, total)` is called with bytes about every 50 ms from the calling thread; an exception in
    it stops the scan. `keep`: (place in `tensors`, array, rows, columns): what `read_sample` would read into the array,
    put by as the bytes pass; rows ascend too. UsageError for elements of less than a byte and for complex ones.
    `sketch`: for each of `tensors` a key of 64 bits, or None; adds the list `sketch` of linear sketches (bytes of 256
    float64): component i, times a sign fixed by key and i, is summed in bucket i mod 256. NaN and |x| >= 1e15 count as
    0. Its bits depend on key and values alone.
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
        sketch: int | None = None,
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

def compare_stored(
    a: SafetensorsFile, i: int, b: SafetensorsFile, j: int, *, threads: int = 0
) -> tuple[int, int, int, int, tuple[int, int], list[float]]:
    """`compare_values` of all elements of tensor `i` of `a` and tensor `j` of `b`, decoded to float32, flat.

    Reads both once, on `threads` threads (0: one per core), a few MB at a time. Before the sums it returns how many
    elements of `a` and of `b` are NaN or infinite. Raises UsageError for complex types and for unequal numbers of
    elements.
    """

def read_rect(
    file: SafetensorsFile,
    i: int,
    first_row: int,
    n_rows: int,
    first_column: int,
    n_columns: int,
    *,
    raw: bool = False,
) -> bytes:
    """A rectangle of tensor `i` seen as a matrix: its last axis are the columns, all others, flattened, the rows.

    A vector is one row, a scalar one element. Float32, or with `raw` the stored bytes (dtypes of at least 8 bits).
    Reads little more than the rectangle's bytes. Raises UsageError where the rectangle leaves the matrix, or for
    complex values asked for as float32.
    """

def read_sample(
    file: SafetensorsFile,
    i: int,
    out: npt.NDArray[np.float32],
    rows: Sequence[tuple[int, int]],
    columns: Sequence[tuple[int, int]] | None = None,
    *,
    threads: int = 0,
) -> int:
    """Some rows and columns of tensor `i` seen as in `read_rect`, into `out`, a contiguous array of (rows, columns).

    Both are given as runs (start, length): rows in any order, columns ascending. `threads` 0 takes one per core for a
    large sample. Returns how many bytes of the file were read. Raises UsageError for runs that leave the matrix,
    columns that overlap, an `out` of another size, and complex values.
    """

def assign(cost: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """For each row the column that it goes with at the smallest total cost, int64 (rows,).

    `cost` is contiguous, (rows, columns), finite, with no more rows than columns. Raises UsageError for any other.
    """

def standardise(
    x: npt.NDArray[np.float32],
    shift: npt.NDArray[np.float32],
    weights: npt.NDArray[np.float32],
    scale: npt.NDArray[np.float32],
    along: npt.NDArray[np.float32],
    *,
    unit: bool,
) -> None:
    """Overwrite each row of `x` by ``(row - shift) * scale - <row - shift, weights> * along``, divided by its length if
    `unit` (zero stays zero).

    `x` is (rows, columns) and lies row by row or column by column; the others are (columns,). Raises UsageError for
    arrays that are not contiguous or whose sizes don't go together.
    """

def cells(
    fine: npt.NDArray[np.float32], coarse: npt.NDArray[np.float32], run: int, *, even: bool, precision: float
) -> tuple[int, int, float, float, float, float]:
    """Whether each value of `fine` lies in the cell of the level that `coarse` holds for it, in groups of `run`
    neighbours with a scale of their own: (groups, those in which all do, and sums of squares: of the differences, of
    `fine`, of what rounding explains of the differences, and of those in groups of one level, which aren't counted).

    `even`: the levels are evenly spaced. `precision`: relative size of the rounding that `fine` went through itself.
    Raises UsageError unless both are contiguous, of one size, and whole groups.
    """

def peaks(x: npt.NDArray[np.float32], pieces: int = 1) -> list[float]:
    """The largest absolute value of each of `pieces` equal parts of a contiguous array of any shape, as they lie in
    memory; NaN or infinite where one of its values is, 0 for an empty part. Raises UsageError where there are no such
    parts.
    """

def nearest(
    parts: Sequence[tuple[npt.NDArray[np.float32], bool]],
    start: int,
    best: npt.NDArray[np.float32],
    at: npt.NDArray[np.int64],
) -> None:
    """For each row the column with the largest sum over one or two `parts`, put into `best` (the sum) and `at`.

    A part is (scores, whether their signs count, else their sizes do): contiguous, (rows, columns). Columns are
    numbered from `start` on, and only what exceeds `best` is put down, so a table may come tile by tile. Raises
    UsageError for arrays whose sizes don't go together.
    """

def decode_scaled(
    codes: bytes,
    dtype: str,
    n_rows: int,
    n_columns: int,
    scales: bytes,
    scale_rows: int,
    scale_columns: int,
    *,
    block: tuple[int, int],
    offset: tuple[int, int] = ...,
    groups: bytes | None = None,
    zeros: bytes | None = None,
    factor: float = 1.0,
) -> bytes:
    """8-bit codes under a grid of float32 scales: ``((value(code) - zero) * scale) * factor`` in float32.

    `codes` is (n_rows, n_columns) of `dtype`, any of 8 bits: "F8_E4M3", "F8_E5M2", "I8", "U8", … The code at (r, c)
    takes scale and zero ``[(offset[0] + r) // block[0], (offset[1] + c) // block[1]]`` of the grid (scale_rows,
    scale_columns). `groups`, int32 (n_columns,), names each column's scale column instead. Raises UsageError for
    lengths that do not fit.
    """

def decode_packed(
    words: bytes,
    layout: str,
    stored: tuple[int, int],
    bits: int,
    n_rows: int,
    n_columns: int,
    scales: bytes,
    n_groups: int,
    groups: bytes,
    *,
    first: int = 0,
    zeros: bytes | None = None,
    zero: float = 0.0,
    signed: bool = False,
) -> bytes:
    """Integers of 2, 4 or 8 bits, packed: ``(code - zero) * scale`` in float32, (n_rows, n_columns) = (out, in).

    `stored` is the shape of `words` in stored elements. By `layout`:

    - "gptq": int32 (words over in, out), low bits first; scales (n_groups, out)
    - "awq": int32 (in, words over out), codes 0 2 4 6 1 3 5 7 from the low bits up; scales (n_groups, out); 4 bits only
    - "words": int32 (out, words over in), low bits first; scales (out, n_groups)
    - "bytes": uint8 (out, bytes over in), low bits first; scales (out, n_groups)

    `first` is the place of the first wanted code in the first word along the packed axis. `groups`, int32 (n_columns,),
    is the group of each input. `zeros` has the shape of `scales`, else `zero` is everyone's. With `signed`, codes are
    two's complement. Raises UsageError for lengths that do not fit or a group out of range.
    """

def unpack(words: bytes, rows: int, columns: int, bits: int, *, axis: str = "columns", order: str = "linear") -> bytes:
    """The uint8 codes in a matrix of int32 words; `axis` ("rows" or "columns") grows by 32 / bits (bits: 2, 4, 8).

    `order` "linear": low bits first; "awq": codes 0 2 4 6 1 3 5 7 from the low bits up (4 bits only).
    """

def decode_codebook(
    codes: bytes,
    n_rows: int,
    n_columns: int,
    table: bytes,
    scales: bytes,
    *,
    block: int,
    stride: int,
    first: int = 0,
    block_offset: int = 0,
    scale_dtype: str = "F32",
    low_first: bool = False,
) -> bytes:
    """4-bit codes into a table of 16 float32, blockwise scaled: ``table[code] * scale`` in float32.

    Element (r, c) is code number ``n = first + r * stride + c`` of `codes` and takes scale ``(block_offset + n) //
    block``. A byte holds its first code in the high half (NF4), or with `low_first` in the low half (MXFP4). Scales are
    float32, or of an 8-bit float dtype named by `scale_dtype`. Raises UsageError for lengths that do not fit.
    """

def decode_lookup(codes: bytes, table: bytes, scales: bytes, *, block: int, offset: int = 0, add: float = 0.0) -> bytes:
    """8-bit codes into a table of 256 float32: ``table[code] * scales[(offset + i) // block] + add``.

    Product and sum are rounded each. Raises UsageError for lengths that do not fit.
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
