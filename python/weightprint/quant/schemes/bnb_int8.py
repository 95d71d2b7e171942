"""bitsandbytes LLM.int8(): int8 rows, each with its largest absolute value.

    w[r, c] = (code[r, c] · SCB[r]) · (1 / 127)

    X.weight         I8 (out, in)
    X.SCB            F32 (out,)
    X.weight_format  U8, one value: 0 is row-major. Other values are layouts of old GPUs and are refused when read.

Source: bitsandbytes ``functional.py`` (``int8_vectorwise_dequant``) and ``nn/modules.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.errors import FormatError
from weightprint.quant.base import Quantised, Rect, Scheme, UnclaimedTensors, small, wrong_shape
from weightprint.quant.grid import Grid
from weightprint.quant.schemes.scaled import Scaled
from weightprint.util.arrays import F32
from weightprint.util.escape import escape


@dataclass(frozen=True, slots=True, kw_only=True)
class BnbInt8(Scaled):
    """A grid of one scale per row; `form` names the tensor that says how the codes are laid out, if there is one."""

    form: str | None

    def _decode(self, checkpoint: Checkpoint, rect: Rect) -> F32:
        if self.form is not None:
            info = checkpoint.find(self.form)
            said = small(checkpoint, info)
            if said.size != 1 or said[0] != 0:
                problem = f"{escape(self.form)} is {said[:1].tolist()}: only 0, rows in order, is decoded"
                raise FormatError(problem, path=checkpoint.files[info.file].path, tensor=self.form, code="quantisation")
        return Scaled._decode(self, checkpoint, rect)


def _group(unclaimed: UnclaimedTensors, name: str, end: str) -> Quantised | None:
    base = name.removesuffix("SCB")
    scale, codes, form = unclaimed.get(name), unclaimed.get(base + "weight"), unclaimed.get(base + "weight_format")
    if scale is None:
        return None
    if codes is None:
        unclaimed.notice("scale_without_codes", "SCB", name, f"{escape(name)} has no {escape(base)}weight beside it")
        return None
    components = tuple(info.name for info in (codes, scale, form) if info is not None)
    problem, about = None, scale
    if codes.dtype != "I8" or len(codes.shape) != 2 or 0 in codes.shape:
        problem = f"{escape(codes.name)} is {codes.dtype} of shape {list(codes.shape)}; expected I8 (out, in)"
        about = codes
    elif scale.numel != codes.shape[0] or scale.dtype != "F32":
        problem = wrong_shape(scale, f"F32 [{codes.shape[0]}], one per row")
    elif scale.shape not in ((codes.shape[0],), (codes.shape[0], 1)):
        problem = wrong_shape(scale, f"[{codes.shape[0]}]")
    if problem is not None:
        return unclaimed.unreadable(codes, "bnb_int8", components, about, problem, codes.name)
    height, width = codes.shape
    return BnbInt8(
        name=codes.name,
        shape=codes.shape,
        dtype="I8",
        scheme="bnb_int8",
        components=components,
        parameters={"bits": 8, "granularity": "channel", "symmetric": True, "scale_dtype": "F32"},
        scale=name,
        grid=Grid("vector" if len(scale.shape) == 1 else "matrix", height, 1, 1, width),
        factor=float(np.float32(1 / 127)),
        form=None if form is None else form.name,
    )


BNB_INT8 = Scheme("bitsandbytes int8", (".SCB",), _group)
