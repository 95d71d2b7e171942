"""What other tools answer about a checkpoint, each as one function over its files, and weightprint the same way.

Every peer runs in a child process of its own that stays warm, `python -m benches.scan.peers NAME THREADS FILE...`: it
imports and sets up, says so, then does one run per line of input and answers with a line of JSON. So the runner can
interleave ours and theirs in one stretch of time, each with its own interpreter and libraries.

Each peer is given its fastest plain form: memory maps instead of copies, chunks that fit in the cache where a plain
expression would not, and a thread pool where the library has no threads of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
import math
import mmap
import os
import resource
import struct
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Run = Callable[[], object]
"""One measured run; what it returns is observed, so no lazy library can skip the work."""
Setup = Callable[[list[Path], int], Run]
"""(files, threads) → the run. Imports happen here, outside the clock; a missing library raises ImportError."""

TORCH_CHUNK = 1 << 18
"""Elements: 1 MiB as f32, so the dozen passes stay in L2. 2^16 to 2^19 measure alike, 2^22 takes twice as long."""
NUMPY_CHUNK = 1 << 20


@dataclass(frozen=True)
class Peer:
    """One row of the table."""

    setup: Setup
    against: str
    """Our workload that answers the same question or more."""
    question: str
    """What the peer answers, for the table."""
    packages: tuple[str, ...] = ()
    """Distributions whose versions the table gives."""


def _library(name: str) -> Any:
    """An optional package, untyped, so that type checks do not depend on which peers are installed."""
    return importlib.import_module(name)


def _torch(threads: int) -> Any:
    torch = _library("torch")
    torch.set_num_threads(threads)
    return torch


def _tensors(files: list[Path], framework: str) -> Iterator[tuple[str, Any]]:
    """Every tensor by name, lazily, out of a memory map."""
    safe_open = _library("safetensors").safe_open
    for path in files:
        with safe_open(path, framework) as file:
            for name in file.keys():  # noqa: SIM118  (no dict)
                yield name, file.get_tensor(name)


def _arrays(files: list[Path]) -> Iterator[tuple[str, Any]]:
    """Every tensor as a flat numpy array over a memory map; `safe_open` would copy, and cannot give FP8."""
    ml_dtypes, np = _library("ml_dtypes"), _library("numpy")
    dtypes = {"BF16": ml_dtypes.bfloat16, "F16": np.float16, "F32": np.float32, "F8_E4M3": ml_dtypes.float8_e4m3fn}
    for path in files:
        data = np.memmap(path, np.uint8, "r")
        (length,) = struct.unpack("<Q", data[:8].tobytes())
        for name, entry in json.loads(data[8 : 8 + length].tobytes()).items():
            if name != "__metadata__":
                begin, end = (8 + length + at for at in entry["data_offsets"])
                yield name, data[begin:end].view(dtypes[entry["dtype"]])


# Statistics


def torch_four(files: list[Path], threads: int) -> Run:
    """Four columns as anyone writes them."""
    torch = _torch(threads)

    def one(tensor: Any) -> list[float]:
        x = tensor.float()
        return [x.std(correction=0).item(), x.mean().item(), x.min().item(), x.max().item()]

    def run() -> object:
        with torch.inference_mode():
            return {name: one(tensor) for name, tensor in _tensors(files, "pt")}

    return run


def _twelve(torch: Any, x: Any) -> list[float]:
    """n, mean, m2, m3, m4, min, max, abs_max, l1, l2², zeros, NaNs, infinities of a flat f32 tensor."""
    var, mean = torch.var_mean(x, correction=0)
    low, high = torch.aminmax(x)
    size = x.abs()
    d = x - mean
    d2 = d * d
    m3 = (d2 * d).sum()
    del d
    parts = [mean, var, m3, (d2 * d2).sum(), low, high, size.max(), size.sum(), (x * x).sum()]
    parts += [(x == 0).sum(), torch.isnan(x).sum(), torch.isinf(x).sum()]
    n = x.numel()
    values: list[float] = torch.stack([p.double() for p in parts]).tolist()
    return [n, values[0], values[1] * n, *values[2:]]


def _merge(a: list[float], b: list[float]) -> list[float]:
    """Two results of `_twelve` as one: Pébay's formulas for the central moments, sums and extremes for the rest."""
    (na, ma, a2, a3, a4), (nb, mb, b2, b3, b4) = a[:5], b[:5]
    n, d = na + nb, mb - ma
    m2 = a2 + b2 + d * d * na * nb / n
    m3 = a3 + b3 + d**3 * na * nb * (na - nb) / n**2 + 3 * d * (na * b2 - nb * a2) / n
    m4 = a4 + b4 + d**4 * na * nb * (na * na - na * nb + nb * nb) / n**3
    m4 += 6 * d * d * (na * na * b2 + nb * nb * a2) / n**2 + 4 * d * (na * b3 - nb * a3) / n
    extremes = [min(a[5], b[5]), max(a[6], b[6]), max(a[7], b[7])]
    return [n, ma + d * nb / n, m2, m3, m4, *extremes, *(p + q for p, q in zip(a[8:], b[8:], strict=True))]


def torch_twelve(files: list[Path], threads: int) -> Run:
    """Our twelve columns, each a plain expression over the whole tensor."""
    torch = _torch(threads)

    def run() -> object:
        with torch.inference_mode():
            return {name: _twelve(torch, tensor.float().view(-1)) for name, tensor in _tensors(files, "pt")}

    return run


def torch_twelve_chunked(files: list[Path], threads: int) -> Run:
    """Our twelve columns over cache-sized chunks, merged; one thread per chunk beats torch's threads within one."""
    torch = _torch(1)

    def chunk(part: Any) -> list[float]:
        with torch.inference_mode():
            return _twelve(torch, part.float())

    def one(pool: ThreadPoolExecutor, tensor: Any) -> list[float]:
        return _reduce(pool.map(chunk, tensor.view(-1).split(TORCH_CHUNK)))

    def run() -> object:
        with ThreadPoolExecutor(threads) as pool:
            return {name: one(pool, tensor) for name, tensor in _tensors(files, "pt")}

    return run


def _reduce(parts: Iterable[list[float]]) -> list[float]:
    total: list[float] = []
    for part in parts:
        total = _merge(total, part) if total else part
    return total


def numpy_four(files: list[Path], threads: int) -> Run:
    """Four columns in numpy, tensors spread over threads."""
    np = _library("numpy")

    def one(array: Any) -> list[float]:
        x = array.astype(np.float32)
        return [float(x.std()), float(x.mean()), float(x.min()), float(x.max())]

    def run() -> object:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(one, (array for _, array in _arrays(files))))

    return run


def numpy_bincount(files: list[Path], threads: int) -> Run:
    """How often each bit pattern occurs (f32: each upper half), which gives every exact quantile."""
    np = _library("numpy")

    def chunk(array: Any) -> Any:
        bits = array.view(f"u{array.itemsize}")
        if array.itemsize == 4:
            bits = bits >> 16
        return np.bincount(bits, minlength=256 if array.itemsize == 1 else 65_536)

    def one(pool: ThreadPoolExecutor, array: Any) -> Any:
        parts = (array[at : at + NUMPY_CHUNK] for at in range(0, array.size, NUMPY_CHUNK))
        return sum(pool.map(chunk, parts))

    def run() -> object:
        with ThreadPoolExecutor(threads) as pool:
            return [one(pool, array) for _, array in _arrays(files)]

    return run


ATTENTION = ("q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight")


def _layer_deviations(torch: Any, tensors: Iterable[tuple[str, Any]]) -> dict[str, float]:
    with torch.inference_mode():
        return {name: t.float().std().item() for name, t in tensors if name.endswith(ATTENTION)}


def layer_std(files: list[Path], threads: int) -> Run:
    """The per-layer σ-curve script: q, k, v, o only, read lazily."""
    torch = _torch(threads)
    safe_open = _library("safetensors").safe_open

    def attention() -> Iterator[tuple[str, Any]]:
        for path in files:
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118  (no dict)
                    if name.endswith(ATTENTION):
                        yield name, file.get_tensor(name)

    return lambda: _layer_deviations(torch, attention())


def layer_std_loaded(files: list[Path], threads: int) -> Run:
    """The same after loading the whole model into memory, as such scripts do."""
    torch = _torch(threads)
    return lambda: _layer_deviations(torch, {name: t.clone() for name, t in _tensors(files, "pt")}.items())


# Packages


def weightlens(files: list[Path], threads: int) -> Run:
    """`lens analyze`: nine columns per tensor with approximate quantiles, and global ones."""
    run_cli, console = _library("weightlens.cli").run_cli, _library("rich.console").Console
    index = list(files[0].parent.glob("*.index.json"))
    command = ["analyze", str(index[0] if index else files[0]), "--num-workers", str(threads)]

    def run() -> object:
        text = io.StringIO()
        code = run_cli(command, console=console(file=text, width=200))
        if code != 0 or "unsupported numeric dtype" in text.getvalue():
            raise RuntimeError("unsupported numeric dtype" if code == 0 else text.getvalue().strip())
        return text.getvalue()

    return run


def weightwatcher(files: list[Path], threads: int) -> Run:
    """`WeightWatcher.analyze` on one matrix, layer 0's q projection: its spectrum and a power-law fit."""
    torch = _torch(threads)
    with contextlib.redirect_stdout(io.StringIO()):
        ww = _library("weightwatcher")

    def run() -> object:
        matrix = next(t for name, t in _tensors(files, "pt") if name.endswith("layers.0.self_attn.q_proj.weight"))
        with contextlib.redirect_stdout(io.StringIO()), torch.inference_mode():
            details = ww.WeightWatcher(model={"q.weight": matrix.float()}).analyze()
        if len(details) != 1:
            raise RuntimeError(f"{len(details)} layers analysed instead of one")
        return float(details["alpha"].iloc[0])

    return run


# Digests


def _mapped(files: list[Path]) -> Iterator[mmap.mmap]:
    for path in files:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data


def blake3(files: list[Path], threads: int) -> Run:
    """BLAKE3 of each file, threaded, over a map."""
    hasher = _library("blake3").blake3
    return lambda: [hasher(max_threads=threads).update_mmap(path).hexdigest() for path in files]


def xxh3(files: list[Path], threads: int) -> Run:
    """XXH3-128 of each file, one thread: it has no threaded form. Not cryptographic."""
    del threads
    xxhash = _library("xxhash")
    return lambda: [xxhash.xxh3_128_hexdigest(data) for data in _mapped(files)]


def sha256(files: list[Path], threads: int) -> Run:
    """SHA-256 of each file, one thread per file."""
    del threads
    return lambda: [hashlib.sha256(data).hexdigest() for data in _mapped(files)]


# Ours, through the Python binding


def _weightprint(**request: bool) -> Setup:
    def setup(files: list[Path], threads: int) -> Run:
        _core = _library("weightprint._core")

        def run() -> object:
            opened = [_core.SafetensorsFile(str(path)) for path in files]
            tensors = [(f, t) for f, file in enumerate(opened) for t in range(file.n_tensors)]
            return _core.scan(opened, tensors, threads=threads, **request)

        return run

    return setup


OURS = {
    "moments": _weightprint(),
    "exact": _weightprint(exact=True),
    "digest": _weightprint(digest=True),
}

PEERS = {
    "torch-4": Peer(torch_four, "moments", "std, mean, min, max of `.float()`", ("torch", "safetensors")),
    "torch-12-chunked": Peer(torch_twelve_chunked, "moments", "our 12 columns, cache-sized chunks", ("torch",)),
    "torch-12": Peer(torch_twelve, "moments", "our 12 columns, plain expressions", ("torch",)),
    "numpy-4": Peer(numpy_four, "moments", "std, mean, min, max in float32", ("numpy", "ml_dtypes")),
    "numpy-bincount": Peer(numpy_bincount, "exact", "how often each bit pattern occurs", ("numpy",)),
    "layer-std": Peer(layer_std, "moments", "σ of q, k, v, o only, read lazily", ("torch",)),
    "layer-std-loaded": Peer(layer_std_loaded, "moments", "σ of q, k, v, o after loading the model", ("torch",)),
    "weightlens": Peer(weightlens, "moments", "9 columns, approximate quantiles", ("weightlens", "torch")),
    "weightwatcher": Peer(weightwatcher, "moments", "spectrum of *one* matrix (layer 0, q)", ("weightwatcher",)),
    "blake3": Peer(blake3, "digest", "BLAKE3 of each file", ("blake3",)),
    "xxh3": Peer(xxh3, "digest", "XXH3-128 of each file, 1 thread", ("xxhash",)),
    "sha256": Peer(sha256, "digest", "SHA-256 of each file, 1 thread"),
}


def main() -> None:
    """Serve one peer: `ready`, then one JSON line per line read."""
    name, threads, files = sys.argv[1], int(sys.argv[2]), [Path(p) for p in sys.argv[3:]]
    os.environ["OMP_NUM_THREADS"] = str(threads)
    answers = os.fdopen(os.dup(1), "w")
    # Whatever the libraries print goes to stderr, not between our answers.
    os.dup2(2, 1)
    setup = OURS[name.removeprefix("weightprint-")] if name.startswith("weightprint-") else PEERS[name].setup
    try:
        run = setup(files, threads)
    except ImportError as error:
        print(json.dumps({"missing": str(error)}), file=answers, flush=True)
        return
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for _ in sys.stdin:
        print(json.dumps(_measured(run)), file=answers, flush=True)


def _measured(run: Run) -> dict[str, object]:
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    try:
        result = run()
    except Exception as error:  # a peer's failure is a row of the table, whatever it is
        return {"failed": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if result is None or result != result or (isinstance(result, float) and math.isnan(result)):
        return {"failed": "no result"}
    return {
        "wall": wall,
        "cpu": cpu,
        "minor_faults": after.ru_minflt - before.ru_minflt,
        "major_faults": after.ru_majflt - before.ru_majflt,
        "peak_rss": _peak_rss(),
    }


def _peak_rss() -> int:
    """High-water mark of this process in bytes; `ru_maxrss` would include that of the process that started it."""
    try:
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) << 10
    except (OSError, IndexError):
        return 0


if __name__ == "__main__":
    main()
