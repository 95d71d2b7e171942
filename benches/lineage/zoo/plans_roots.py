"""The independent models, and the models that share nothing with them but a random initialisation or a teacher.

Per architecture several seeds on the *same* data: the hardest strangers, because all that data and recipe impose is
equal. Then other data, other widths and depths, SGD, two other vocabularies, and four that were trained for four times
as long: strangers come closer to each other the longer they see the same data.

The length of a root's own training, `STEPS` · 256 tokens for all others, is the unit for everything after it ("washed
for as long as its own training").
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .forms import Shape, shape
from .forms_train import Recipe
from .plans import Plan

STEPS = 500
LONG = 4 * STEPS
RATE = {"llama": 5e-3, "qwen2": 5e-3, "gemma": 5e-3, "gpt2": 3e-3, "moe": 5e-3}

LLAMA = shape("llama", hidden=64, layers=8, ffn=176)
WIDE = shape("llama", hidden=96, layers=8, ffn=224)
DEEP = shape("llama", hidden=48, layers=12, ffn=128)
QWEN2 = shape("qwen2", hidden=48, layers=10, ffn=144)
GEMMA = shape("gemma", hidden=64, layers=8, ffn=160)
GPT2 = shape("gpt2", hidden=64, layers=8, ffn=192)
MOE = shape("moe", hidden=48, layers=8, ffn=64)
PAIRS = 512

#: name → (shape, seed, text, split, what is unusual in the recipe).
_ROOTS: tuple[tuple[str, Shape, int, str, str, dict[str, Any]], ...] = (
    ("llama-1", LLAMA, 1, "modules", "fit", {}),
    ("llama-2", LLAMA, 2, "modules", "fit", {}),
    ("qwen2-1", QWEN2, 1, "modules", "fit", {}),
    ("gpt2-1", GPT2, 1, "modules", "fit", {}),
    ("gemma-1", GEMMA, 1, "modules", "fit", {}),
    ("llama-3", LLAMA, 3, "modules", "test", {}),
    ("llama-4", LLAMA, 4, "modules", "test", {}),
    ("qwen2-3", QWEN2, 3, "modules", "test", {}),
    ("gpt2-3", GPT2, 3, "modules", "test", {}),
    ("gemma-3", GEMMA, 3, "modules", "test", {}),
    ("qwen2-2", QWEN2, 2, "modules", "fit", {}),
    ("gpt2-2", GPT2, 2, "modules", "fit", {}),
    ("moe-1", MOE, 1, "modules", "fit", {}),
    ("moe-2", MOE, 2, "modules", "test", {}),
    ("qwen2-4", QWEN2, 4, "modules", "test", {}),
    ("gpt2-4", GPT2, 4, "modules", "test", {}),
    ("gemma-4", GEMMA, 4, "modules", "test", {}),
    ("llama-packages-1", LLAMA, 11, "packages", "fit", {}),
    ("llama-packages-2", LLAMA, 12, "packages", "test", {}),
    ("llama-shuffled", LLAMA, 13, "modules", "fit", {"vocabulary": "shuffled-1"}),
    ("gemma-pairs", GEMMA, 14, "modules", "test", {"vocabulary": f"pairs-{PAIRS}"}),
    ("qwen2-sgd", QWEN2, 15, "modules", "fit", {"optimiser": "sgd", "rate": 0.3}),
    ("llama-sgd", LLAMA, 16, "modules", "test", {"optimiser": "sgd", "rate": 0.3}),
    ("wide-1", WIDE, 17, "modules", "fit", {}),
    ("wide-2", WIDE, 18, "packages", "test", {}),
    ("deep-1", DEEP, 19, "modules", "test", {}),
    ("deep-2", DEEP, 20, "packages", "fit", {}),
    ("long-1", LLAMA, 21, "modules", "fit", {"steps": LONG}),
    ("long-2", LLAMA, 22, "modules", "fit", {"steps": LONG}),
    ("long-3", LLAMA, 23, "modules", "test", {"steps": LONG}),
    ("long-4", LLAMA, 24, "modules", "test", {"steps": LONG}),
)


def recipe(form: str, text: str, seed: int, steps: int = STEPS, **unusual: Any) -> Recipe:
    """The recipe of a root of `form`."""
    return Recipe(**{"text": text, "steps": steps, "batch_seed": seed, "rate": RATE[form], **unusual})


def roots() -> Iterator[Plan]:
    """The independently initialised and trained models."""
    for name, form, seed, text, split, unusual in _ROOTS:
        s = Shape(**{**form.__dict__, "vocabulary": PAIRS}) if "pairs" in name else form
        yield Plan(name, "root", split, seed, s, recipe=recipe(s.form, text, 1000 + seed, **unusual))
