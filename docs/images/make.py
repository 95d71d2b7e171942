"""Takes the screenshots beside it, of pages of six pairs: ``python docs/images/make.py --zoo target/zoo``.

Needs Chromium, Pillow and the benchmark's zoo (``python -m benches.lineage build``).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import weightprint
from PIL import Image
from safetensors.numpy import load_file, save_file
from weightprint.demo import demo_models
from weightprint.report.page.compare import page

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "report")]

from browser import started  # noqa: E402

from benches.lineage.zoo import strangers  # noqa: E402

WIDTH = 1000
#: Picture → (folder of A, folder of B, pixels of the page that are shown).
PICTURES = {
    "fine-tune": ("demo/parent", "demo/finetune", 1500),
    "upcycled-moe": ("demo/parent", "demo/moe", 1330),
    "merge": ("zoo/wide-1", "zoo/wide-1-depth-upscaling-1", 1400),
    "strangers": ("made/ramp-0", "made/ramp-1", 2900),
    "partly-shared": ("zoo/llama-1", "made/stitched", 1240),
    "inconclusive": ("zoo/llama-1", "zoo/wide-1", 1240),
}


def main() -> None:
    """Compare, open, photograph."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--zoo", type=Path, default=Path("target/zoo"))
    parser.add_argument("names", nargs="*", default=list(PICTURES))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        demo_models.write(work / "demo")
        (work / "zoo").symlink_to(args.zoo.resolve())
        made(work / "made", args.zoo)
        browser = started(work / "profile")
        try:
            for picture in args.names:
                a, b, height = PICTURES[picture]
                found = weightprint.compare(work / a, work / b)
                path = work / f"{picture}.html"
                path.write_text(page(found).replace(f"{work}/", ""))
                browser.open(path, WIDTH)
                target = Path(__file__).parent / f"{picture}.png"
                browser.screenshot(target, height)
                Image.open(target).convert("RGB").quantize(96, dither=Image.Dither.NONE).save(target, optimize=True)
                print(f"{picture}: {found.verdict}, {target.stat().st_size / 1000:.0f} kB")
        finally:
            browser.close()


def made(folder: Path, zoo: Path) -> None:
    """A model with blocks 3 to 5 of another one, and two with nothing in common but that spreads grow with depth."""
    ours, theirs = (load_file(zoo / name / "model.safetensors") for name in ("llama-1", "llama-2"))
    moved = tuple(f"model.layers.{block}." for block in (3, 4, 5))
    stitched = {name: (theirs if name.startswith(moved) else ours)[name] for name in ours}
    _write(folder / "stitched", stitched, (zoo / "llama-1" / "config.json").read_text())
    for seed in (0, 1):
        config, values = ramp(seed)
        _write(folder / f"ramp-{seed}", dict(values), json.dumps(config))


def ramp(seed: int) -> tuple[dict[str, object], Iterator[tuple[str, np.ndarray]]]:
    """A structured model of independent values, whose standard deviations grow with depth as most decoders' do."""
    strangers._VOCABULARY = 512
    form = strangers.Form("llama", 96, 192, 12)
    model = strangers._Model(form, np.random.default_rng([seed, 7]))
    model.ramp = np.linspace(1, 2.5, form.layers) * (1 + 0.17 * model.rng.standard_normal(form.layers))
    values = strangers._llama(model).items()
    return strangers._config(form), ((k, np.ascontiguousarray(v).astype(ml_dtypes.bfloat16)) for k, v in values)


def _write(folder: Path, tensors: dict[str, np.ndarray], config: str) -> None:
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(config)


if __name__ == "__main__":
    main()
