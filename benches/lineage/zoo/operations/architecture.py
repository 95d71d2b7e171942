"""Architecture edits that keep the weights: biases dropped, LayerNorm → RMSNorm, learned positions → rotary.

What is left computes something else until it is trained on. GPT-2's names stay; config.json says what was edited:
`normalization: rmsnorm`, `position_embedding_type: rope`, `bias: false`.
"""

from __future__ import annotations

from .spelling import POSITIONS
from .work import Work, operation


def _drop(work: Work, ends: str, norms: bool) -> None:
    dropped = [n for n in work.tensors if n.endswith(ends) and ("norm" in n) == norms]
    if not dropped:
        raise ValueError("there is nothing to drop")
    for name in dropped:
        del work.tensors[name]
    work.note(dropped=dropped)


@operation(forms=("qwen2", "gpt2"))
def drop_biases(work: Work) -> None:
    """Remove the biases of all linear maps; a Qwen2 without them is a Llama."""
    _drop(work, ".bias", norms=False)
    if work.form == "qwen2":
        work.form = "llama"
        work.config |= {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": False}
    else:
        work.config["bias"] = False


@operation(forms=("gpt2",))
def layernorm_to_rmsnorm(work: Work) -> None:
    """Remove the norms' offsets; means are no longer subtracted, gains stay."""
    _drop(work, ".bias", norms=True)
    work.config["normalization"] = "rmsnorm"


@operation(forms=("gpt2",))
def learned_positions_to_rope(work: Work, theta: float = 10_000.0) -> None:
    """Remove the table of positions."""
    _drop(work, f"{POSITIONS}.weight", norms=False)
    work.config |= {"position_embedding_type": "rope", "rope_theta": theta}
