"""Takes the screenshots beside it and writes docs/screens.md, of six pairs: ``python docs/images/make.py``.

Needs Chromium, Pillow, jax and the benchmark's zoo (``python -m benches.lineage build``). What is compared is kept in
``docs/screens``, so that a test can draw the screens again.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
import tempfile
from pathlib import Path

import ml_dtypes  # noqa: F401  (numpy learns bfloat16)
import weightprint
from safetensors.numpy import load_file, save_file
from weightprint.compare.compare import Comparison
from weightprint.demo import demo_models
from weightprint.report.compare import lines
from weightprint.report.page.compare import page
from weightprint.report.page.recipe import page as recipe_page
from weightprint.report.pen import Pen

ROOT = Path(__file__).resolve().parents[2]
SCREENS = ROOT / "docs" / "screens"
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "report")]

WIDTH = 1000
#: Picture → (A, B, further parents, pixels of the page that are shown, what it is).
PAIRS = {
    "fine-tune": ("demo/parent", "demo/finetune", (), 1560, "A fine-tune: B was trained on from A."),
    "upcycled-moe": ("demo/parent", "demo/moe", (), 1400, "A dense model made a mixture of experts, and trained on."),
    "merge": (
        "zoo/qwen2-3",
        "zoo/qwen2-3-and-qwen2-4-slerp",
        ("zoo/qwen2-4",),
        830,
        "A merge of two models that were trained apart (SLERP, t from .2 in the first layer to .8 in the last); A is "
        "one of them, and the other is given with `--with`. The picture is of `weightprint recipe`.",
    ),
    "strangers": (
        "zoo/llama-sgd",
        "made/llama-sgd-2",
        (),
        3000,
        "Strangers whose sigma curves correlate above .9: two small Llamas trained apart, from other random starts and "
        "on other texts, by SGD. What people quote as a sign of descent is there, and nothing is shared.",
    ),
    "partly-shared": ("zoo/llama-1", "made/stitched", (), 1330, "A model with layers 3 to 5 of another one."),
    "inconclusive": ("zoo/llama-1", "zoo/wide-1", (), 1420, "Models of different width, which most tests can't tell."),
}
HEAD = """# Six first screens

What `weightprint compare A B` prints on a terminal of 80 columns and 24 lines; `-v` adds every test with its numbers.
Made by `python docs/images/make.py`, and drawn again by a test. The models are the demo's and the benchmark's.
"""


def main() -> None:
    """Compare, open, photograph; then write the screens of all pairs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--zoo", type=Path, default=Path("target/zoo"))
    parser.add_argument("--made", type=Path, default=Path("target/pictures"), help="where models made here are kept")
    parser.add_argument("names", nargs="*", default=list(PAIRS))
    args = parser.parse_args()
    from browser import started
    from PIL import Image

    zoo, kept = args.zoo.resolve(), args.made.resolve()
    make(kept, zoo)
    SCREENS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        os.chdir(work)
        demo_models.write(work / "demo")
        (work / "zoo").symlink_to(zoo)
        (work / "made").symlink_to(kept)
        browser = started(work / "profile")
        try:
            for picture in args.names:
                a, b, others, height, _ = PAIRS[picture]
                found = weightprint.compare(a, b, others=others)
                (SCREENS / f"{picture}.json.gz").write_bytes(gzip.compress(found.to_json().encode(), mtime=0))
                path = work / f"{picture}.html"
                path.write_text(recipe_page(weightprint.recipe(b, [a, *others])) if others else page(found))
                browser.open(path, WIDTH)
                target = ROOT / "docs" / "images" / f"{picture}.png"
                browser.screenshot(target, height)
                Image.open(target).convert("RGB").quantize(96, dither=Image.Dither.NONE).save(target, optimize=True)
                print(f"{picture}: {found.verdict}, {target.stat().st_size / 1000:.0f} kB", flush=True)
        finally:
            browser.close()
    (ROOT / "docs" / "screens.md").write_text(screens())


def screens() -> str:
    """docs/screens.md, from the comparisons that are kept."""
    parts = [HEAD]
    for name, (a, b, others, _, what) in PAIRS.items():
        found = Comparison.from_dict(json.loads(gzip.decompress((SCREENS / f"{name}.json.gz").read_bytes())))
        drawn = "\n".join(line.plain for line in lines(found, Pen(80)))
        command = " ".join(["weightprint compare", a, b, *(f"--with {other}" for other in others)])
        title = name.replace("-", " ").capitalize().replace("moe", "MoE").replace("Fine tune", "Fine-tune")
        parts.append(f"## {title}\n\n{what}\n\n```\n$ {command}\n{drawn}\n```\n\n![{title}](images/{name}.png)\n")
    return "\n".join(parts)


def make(folder: Path, zoo: Path) -> None:
    """A model with layers 3 to 5 of another one, and one trained by SGD as the zoo's is, on its own."""
    if not (folder / "stitched").exists():
        ours, theirs = (load_file(zoo / name / "model.safetensors") for name in ("llama-1", "llama-2"))
        moved = tuple(f"model.layers.{layer}." for layer in (3, 4, 5))
        (folder / "stitched").mkdir(parents=True)
        stitched = {name: (theirs if name.startswith(moved) else ours)[name] for name in ours}
        save_file(stitched, folder / "stitched" / "model.safetensors")
        (folder / "stitched" / "config.json").write_text((zoo / "llama-1" / "config.json").read_text())
    if not (folder / "llama-sgd-2").exists():
        from benches.lineage.commands import build
        from benches.lineage.zoo.model_folder import save
        from benches.lineage.zoo.plans import Plan
        from benches.lineage.zoo.plans_roots import LLAMA, recipe

        how = recipe("llama", "packages", 1116, optimiser="sgd", rate=0.3)
        save(folder / "llama-sgd-2", build.make(Plan("llama-sgd-2", "root", "fit", 116, LLAMA, recipe=how), zoo))


if __name__ == "__main__":
    main()
