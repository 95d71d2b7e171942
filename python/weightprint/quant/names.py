"""What the tensors beside quantised codes are called.

A scale is found from the name of its codes or the other way round:

====================================  ============================  ==========================================
scale                                 codes                         who writes it
====================================  ============================  ==========================================
``X.weight_scale_inv``                ``X.weight``                  DeepSeek-V3, transformers' fine-grained FP8
``X.weight_scale``                    ``X.weight``                  compressed-tensors, ModelOpt, FBGEMM, Quark
``X_scale_inv``, ``X_scale``          ``X`` (experts in one)        transformers' FP8Experts, FBGEMM Llama 4
``X_weight_scale``                    ``X`` (experts in one)        ModelOpt's Llama 4
``X.scale``                           ``X.weight``                  DeepSeek's own files
``X.qscale_weight``                   ``X.weight``                  Mistral
``X.scale_weight``                    ``X.weight``                  ComfyUI
``X.weight._scale``                   ``X.weight._data``            Quanto
``X.weight_scales``                   ``X.weight``                  EETQ (recognised, and refused)
====================================  ============================  ==========================================
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Siblings:
    """Names that belong together: the weight's, its codes', and the `prefix` before ``input_scale`` and the like."""

    weight: str
    codes: str
    prefix: str

    def of_weight(self, *words: str) -> list[str]:
        """``X.weight_zero_point`` for ``"zero_point"``; of experts in one tensor, ``X_zero_point``."""
        return [f"{self.weight}_{word}" for word in words]


#: End of a scale's name → end of its codes' name. Longer ends first: the first that fits counts.
_CODES_END = {
    ".qscale_weight": ".weight",
    ".scale_weight": ".weight",
    "._scale": "._data",
    ".scale": ".weight",
    "_scale_inv": "",
    "_weight_scale": "",
    ".weight_scales": ".weight",
    "_scale": "",
}

SCALE_ENDS = tuple(_CODES_END)

#: Scales of activations and caches: claimed with their layer, and never part of the weight.
ACTIVATION = (
    "input_scale", "input_zero_point", "input_global_scale", "input_scale_ub", "output_scale", "output_zero_point",
    "activation_scale", "act_scale", "scale_input", "qscale_act", "q_scale", "k_scale", "v_scale", "kv_scale",
    "pre_quant_scale",
)  # fmt: skip


def siblings(scale: str, end: str) -> Siblings:
    """The names around a scale tensor whose name ends in `end` (one of SCALE_ENDS)."""
    codes = scale.removesuffix(end) + _CODES_END[end]
    weight = codes.removesuffix("._data") if end == "._scale" else codes
    return around(weight, codes)


def around(weight: str, codes: str) -> Siblings:
    """The names around a weight: ``X.`` before a linear layer's companions, ``X_`` before those of experts in one."""
    prefix = weight[: -len("weight")] if weight.endswith(".weight") else weight + "_"
    return Siblings(weight, codes, prefix)
