"""What the system may refuse: threads and descriptors; and a file whose time of modification was set back."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import weightprint
from safetensors.numpy import save_file

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of processes and descriptors as Linux has them")

_WITHOUT_THREADS = """
import os, resource, sys, threading
import numpy as np
from weightprint import _core

file = _core.SafetensorsFile(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
if os.geteuid() == 0:
    os.setuid(65534)  # no limit counts for root
try:
    threading.Thread(target=int).start()
    print("a thread was made")
except RuntimeError:
    pass
columns = _core.scan([file], [(0, i) for i in range(file.n_tensors)], digest=True)
print(bytes(columns["std"]).hex())
"""


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for i in range(100):
        tensors = {f"model.layers.{i}.mlp.up_proj.weight": rng.standard_normal((8, 4), dtype=np.float32)}
        save_file(tensors, tmp_path / f"model-{i + 1:05}-of-00100.safetensors")
    return tmp_path


def test_where_no_thread_can_be_made_the_calling_one_works(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "model.safetensors"
    save_file({f"{i}": rng.standard_normal((512, 1024), dtype=np.float32) for i in range(4)}, path)
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_THREADS, path],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )
    with weightprint.open(path) as checkpoint:
        stds = np.array([checkpoint.read(name).astype(np.float64).std() for name in checkpoint.names()])
    assert done.returncode == 0, done.stderr
    assert np.frombuffer(bytes.fromhex(done.stdout.strip()), np.float64) == pytest.approx(stds)


def test_more_shards_than_descriptors_are_opened_in_turn(shards: Path) -> None:
    script = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from weightprint.cli import main
import sys
sys.argv = ["weightprint", "check", {str(shards)!r}]
main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert "Too many open files" not in done.stderr
    assert done.returncode in (0, 1), done.stderr
    assert "100 files" in done.stdout or "100 tensors" in done.stdout, done.stdout


def test_a_closed_shard_that_is_replaced_is_a_changed_file(shards: Path) -> None:
    script = f"""
import os, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
import weightprint
with weightprint.open({str(shards)!r}) as checkpoint:
    last = checkpoint.files[-1].path
    with open(last, "rb") as file:
        content = file.read()
    with open(last + ".new", "wb") as file:
        file.write(content)
    os.replace(last + ".new", last)
    try:
        checkpoint.read(checkpoint.tensors[-1].name)
    except weightprint.FileChangedError as error:
        print(error.code)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout == "file_changed\n", done.stderr


def test_a_file_rewritten_in_place_whose_time_was_set_back_is_a_changed_file(shards: Path) -> None:
    with weightprint.open(shards) as checkpoint:
        path = checkpoint.files[0].path
        before = os.stat(path)
        with open(path, "r+b") as file:
            file.seek(-4, os.SEEK_END)
            file.write(b"\0\0\x80?")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        with pytest.raises(weightprint.FileChangedError):
            checkpoint.check_unchanged()
