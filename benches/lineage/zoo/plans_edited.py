"""What is made without training: every operation at its strengths, on roots of both sides in turn; they cost a moment.

The roots rotate, so that every operation meets several architectures and every root carries several operations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .operations.table import OPERATIONS
from .plans import Plan, Plans

#: Fit and test side in turn.
_TURN = (
    "llama-1", "qwen2-3", "gpt2-1", "gemma-3", "qwen2-1", "llama-4", "gemma-1", "gpt2-3", "wide-1", "llama-3",
    "llama-2", "qwen2-4", "gpt2-2", "gemma-4", "deep-2", "wide-2", "llama-packages-1", "llama-packages-2", "qwen2-2",
    "gpt2-4", "moe-1", "deep-1", "llama-shuffled", "gemma-pairs", "qwen2-sgd", "llama-sgd", "moe-1", "moe-2",
)  # fmt: skip
MODELS_EACH = 3

#: Strengths other than the operation's own; two k/v heads can only be halved.
_STRENGTHS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "head_pruning": ({"keep": 0.5},),
    "head_permutation": ({"share": 1.0},),
    "semi_structured_pruning": ({"kept": 2, "of": 4}, {"kept": 1, "of": 4}, {"kept": 4, "of": 8}),
    "quantise": ({"method": "int8"}, {"method": "fp8"}, {"method": "int4", "group": 16}),
}

Together = tuple[str, str, tuple[str, ...], Mapping[str, Any]]


def _siblings(root: str) -> Iterator[Together]:
    a, b = f"{root}-tuned-2", f"{root}-tuned-other"
    yield (f"{root}-linear", "linear_merge", (a, b), {"weights": [0.7, 0.3]})
    yield (f"{root}-linear-even", "linear_merge", (root, a, b), {"weights": [0.2, 0.5, 0.3]})
    yield (f"{root}-slerp", "slerp_merge", (a, b), {"first": 0.2, "last": 0.8})
    yield (f"{root}-arithmetic", "task_arithmetic", (root, a, b), {"weights": [0.8, 0.6]})
    yield (f"{root}-ties", "ties_merge", (root, a, b), {"density": 0.2})
    yield (f"{root}-dare", "dare_merge", (root, a, b), {"drop": 0.9})


#: Operations on several parents, in full: name, operation, parents, parameters.
_TOGETHER: tuple[Together, ...] = (
    *(row for root in ("llama-1", "llama-3", "qwen2-3", "gpt2-1") for row in _siblings(root)),
    ("llama-1-and-llama-2-even", "linear_merge", ("llama-1", "llama-2"), {"weights": [0.5, 0.5]}),
    ("llama-3-and-llama-4-uneven", "linear_merge", ("llama-3", "llama-4"), {"weights": [0.9, 0.1]}),
    ("qwen2-3-and-qwen2-4-slerp", "slerp_merge", ("qwen2-3", "qwen2-4"), {"first": 0.2, "last": 0.8}),
    ("gpt2-1-and-gpt2-2-slerp", "slerp_merge", ("gpt2-1", "gpt2-2"), {"first": 0.5, "last": 0.5}),
    ("llama-1-stitched", "vocabulary_stitching", ("llama-1", "llama-2"), {"share": 0.3}),
    ("llama-4-stitched", "vocabulary_stitching", ("llama-4", "llama-3"), {"share": 0.5}),
    ("qwen2-4-stitched", "vocabulary_stitching", ("qwen2-4", "qwen2-3"), {"share": 0.7}),
    ("llama-2-borrowed-embedding", "embedding_replaced", ("llama-2", "llama-1"), {}),
    ("qwen2-3-borrowed-embedding", "embedding_replaced", ("qwen2-3", "qwen2-4"), {"head": False}),
    ("llama-4-with-decoy", "decoy_stack", ("llama-4", "llama-3"), {}),
    ("qwen2-1-with-decoy", "decoy_stack", ("qwen2-1", "qwen2-2"), {"first": True}),
    # Halves with no block in common, and first half plus last.
    *(
        (f"{root}-{half}", "depth_drop", (root,), {"layers": layers})
        for root in ("llama-4", "llama-1")
        for half, layers in (("even", [1, 3, 5, 7]), ("odd", [0, 2, 4, 6]), ("half-and-last", [4, 5, 6]))
    ),
)


def edited(plans: Plans) -> Iterator[Plan]:
    """`MODELS_EACH` models of every operation on one parent."""
    turn = [name for name in _TURN if name in plans]
    for i, operation in enumerate(OPERATIONS.values()):
        if operation.parents > 1:
            continue
        fitting = [name for name in turn if plans[name].shape and plans[name].shape.form in operation.forms]  # type: ignore[union-attr]
        strengths = _STRENGTHS.get(operation.name, operation.strengths)
        for n in range(MODELS_EACH):
            root = fitting[(MODELS_EACH * i + n) % len(fitting)]
            name = f"{root}-{operation.name.replace('_', '-')}-{n + 1}"
            parameters = strengths[n % len(strengths)]
            seed, split = 4000 + 10 * i + n, plans[root].split
            yield Plan(name, "descendant", split, seed, None, (root,), operation.name, parameters)


def together(plans: Plans) -> Iterator[Plan]:
    """Merges, stitched vocabularies, borrowed parts: of fine-tunes of one root, and of two roots of one side."""
    for i, (name, operation, parents, parameters) in enumerate(_TOGETHER):
        yield Plan(name, "descendant", plans[parents[0]].split, 5000 + i, None, parents, operation, parameters)
