"""The gateway: every long call can be interrupted, reports progress, lets other threads run, and survives fork."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import weightprint
from safetensors.numpy import save_file
from weightprint import _core


@pytest.fixture
def model(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "model.safetensors"
    save_file({f"layers.{i}.weight": rng.standard_normal((512, 1024), dtype=np.float32) for i in range(8)}, path)
    return path


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """A sparse file whose scan takes minutes."""
    path = tmp_path / "endless.safetensors"
    size = 2 << 40
    header = f'{{"a":{{"dtype":"U8","shape":[{size}],"data_offsets":[0,{size}]}}}}'.encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)
    return path


def stds(path: Path) -> bytes:
    file = _core.SafetensorsFile(path)
    columns = _core.scan([file], [(0, i) for i in range(file.n_tensors)], digest=True)
    return bytes(columns["std"])


def test_results_do_not_depend_on_threads_or_source(model: Path) -> None:
    file = _core.SafetensorsFile(model)
    tensors = [(0, i) for i in range(file.n_tensors)]
    every = {"exact": True, "rows": True, "columns": True, "digest": True}
    base = _core.scan([file], tensors, threads=1, io="pread", **every)
    for threads in (2, 7):
        for io in ("pread", "mmap", "auto"):
            assert _core.scan([file], tensors, threads=threads, io=io, **every) == base


def test_progress_counts_every_byte_and_may_stop_the_scan(model: Path) -> None:
    seen: list[tuple[int, int]] = []
    scan = weightprint.scan(model, progress=lambda done, total: seen.append((done, total)))
    total = 8 * 512 * 1024 * 4
    assert scan.bytes_read == total
    assert seen[-1] == (total, total)
    assert seen == sorted(seen)


def test_an_exception_in_the_callback_stops_the_scan_and_is_raised(endless: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise LookupError(f"stopped after {done} of {total}")

    with pytest.raises(LookupError, match="stopped after"):
        weightprint.scan(endless, progress=stop)


def test_ctrl_c_raises_keyboard_interrupt_in_the_main_thread(endless: Path) -> None:
    script = f"""
        import _thread, threading, weightprint
        def interrupt(done, total):
            # Called from inside the running scan: it is under way, and endless.
            if done > 0:
                _thread.interrupt_main()
        try:
            weightprint.scan({str(endless)!r}, progress=interrupt)
        except KeyboardInterrupt:
            print("interrupted")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60)
    assert done.stdout == "interrupted\n", done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("verb", [["stats"], ["check"], ["stats", "--exact", "--rows", "--digest", "--io", "mmap"]])
def test_ctrl_c_ends_a_command_with_130(endless: Path, verb: list[str]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "weightprint", *verb, str(endless)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    # The scan's own threads show that it is under way; one that only starts and ends does not stay.
    seen = 0
    while process.poll() is None and seen < 20:
        seen = seen + 1 if len(os.listdir(f"/proc/{process.pid}/task")) > 1 else 0
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == b""
    assert b"Traceback" not in err


def test_other_python_threads_run_during_a_scan(endless: Path) -> None:
    ticks = 0

    def count(done: int, total: int) -> None:
        # The other thread must have got the interpreter between two reports.
        if ticks > 1000:
            raise StopIteration

    def work() -> None:
        nonlocal ticks
        while not finished.is_set():
            ticks += 1

    finished = threading.Event()
    thread = threading.Thread(target=work)
    thread.start()
    try:
        with pytest.raises(StopIteration):
            weightprint.scan(endless, progress=count)
    finally:
        finished.set()
        thread.join()


def test_many_threads_may_scan_one_file_at_once(model: Path) -> None:
    results: list[bytes] = []
    threads = [threading.Thread(target=lambda: results.append(stds(model))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [stds(model)] * 6


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_scan_after_fork_and_spawn(model: Path, tmp_path: Path, method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this platform")
    # A process of its own: other tests load libraries whose threads do not survive a fork.
    script = tmp_path / "children.py"
    script.write_text(
        textwrap.dedent(f"""
            import multiprocessing
            from concurrent.futures import ProcessPoolExecutor
            import weightprint

            def digest(path):
                return weightprint.scan(path, digest=True).digest

            if __name__ == "__main__":
                expected = digest({str(model)!r})  # The parent has used every part before it forks.
                context = multiprocessing.get_context({method!r})
                with ProcessPoolExecutor(2, mp_context=context) as pool:
                    assert list(pool.map(digest, [{str(model)!r}] * 4)) == [expected] * 4
                print("same")
        """)
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert done.stdout == "same\n", done.stderr


def test_a_file_cut_under_an_open_handle_gives_a_typed_error(model: Path) -> None:
    file = _core.SafetensorsFile(model)
    os.truncate(model, file.nbytes - 100)
    last = file.n_tensors - 1
    name = file.tensor(last)[0]
    with pytest.raises(weightprint.FileChangedError) as caught:
        _core.scan([file], [(0, last)], io="pread")
    assert (caught.value.code, caught.value.tensor) == ("truncated", name)
    assert str(caught.value.path) == str(model)
    with pytest.raises(weightprint.FileChangedError):
        _core.scan([file], [(0, last)], io="mmap")
    with pytest.raises(weightprint.FileChangedError):
        file.check_unchanged()


def test_arguments_that_make_no_sense_are_usage_errors(model: Path) -> None:
    file = _core.SafetensorsFile(model)
    for wrong in ({"io": "tape"}, {"isa": "mmx"}):
        with pytest.raises(weightprint.UsageError):
            _core.scan([file], [(0, 0)], **wrong)
    with pytest.raises(weightprint.UsageError):
        _core.scan([file], [(1, 0)])
    with pytest.raises(IndexError):
        _core.scan([file], [(0, 99)])
    with pytest.raises(weightprint.UsageError):
        file.read_f32(0, 10, 5)
    with pytest.raises(FileNotFoundError) as caught:
        _core.SafetensorsFile(model.with_name("absent"))
    assert caught.value.filename == str(model.with_name("absent"))


def test_sub_byte_values_can_be_read_from_any_position(tmp_path: Path) -> None:
    """F4: two per byte, low nibble first; F6: four in three bytes, little-endian bits."""
    path = tmp_path / "small.safetensors"
    f4 = bytes([0x10, 0x32, 0x54, 0x76])
    codes = range(0, 64, 8)
    f6 = sum(code << (6 * i) for i, code in enumerate(codes)).to_bytes(6, "little")
    header = (
        b'{"f4":{"dtype":"F4","shape":[8],"data_offsets":[0,4]},'
        b'"f6":{"dtype":"F6_E2M3","shape":[8],"data_offsets":[4,10]}}'
    )
    path.write_bytes(len(header).to_bytes(8, "little") + header + f4 + f6)
    file = _core.SafetensorsFile(path)
    e2m1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
    e2m3 = np.array([0, 1, 2, 4, -0.0, -1, -2, -4], np.float32)
    for start in range(8):
        for stop in range(start, 9):
            np.testing.assert_array_equal(np.frombuffer(file.read_f32(0, start, stop), np.float32), e2m1[start:stop])
            np.testing.assert_array_equal(np.frombuffer(file.read_f32(1, start, stop), np.float32), e2m3[start:stop])
