"""Well-formed GGUF files by the `gguf` package's own writer, and how Llama's tensors are called there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: Parts of a block in GGUF → in Transformers.
LLAMA = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip


def write_gguf(path: Path, tensors: Mapping[str, Any], arch: str = "llama", **options: Any) -> Path:
    """Tensors are arrays, or (bytes array, type). ``pairs``: key → (type, value); ``sizes``: what of it → number,
    by the writer's own methods (``block_count=4``)."""
    from gguf import GGUFWriter

    path.parent.mkdir(parents=True, exist_ok=True)
    pairs, sizes, alignment = (options.pop(key, {}) for key in ("pairs", "sizes", "alignment"))
    writer = GGUFWriter(path, arch, **options)
    if alignment:
        writer.add_custom_alignment(alignment)
    for key, (add, value) in pairs.items():
        getattr(writer, f"add_{add}")(key, value)
    for what, number in sizes.items():
        getattr(writer, f"add_{what}")(number)
    for tensor, data in tensors.items():
        array, kind = data if isinstance(data, tuple) else (data, None)
        writer.add_tensor(tensor, array, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
