"""Every code that a finding of `check` can have: what it means, an input that has it, and the way out.

docs/checks.md is this table (``python -m weightprint.check.codes`` prints it); a test holds both together, and one or
more inputs against every row. A code never changes its meaning.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from weightprint.errors import UsageError
from weightprint.util.escape import escape

_AGAIN = "download or save the file again"
_CONVERT = "convert it again from the original"
_WRITER = "a fault of the program that wrote it: save with a current one"


@dataclass(frozen=True, slots=True)
class Code:
    """One row.

    Attributes:
        means: what was found.
        example: an input that has it.
        way_out: what to do.
        severity: ``"error"``, ``"warning"`` or ``"note"``; several of them where it depends on the tensor.
    """

    means: str
    example: str
    way_out: str = _WRITER
    severity: str = "error"


def _other(what: str) -> Code:
    return Code(f"the file is {what}, whatever it is called", f"{what}, renamed", "convert it to safetensors")


GROUPS: dict[str, dict[str, Code]] = {
    "Values": {
        "nan": Code("values that are NaN", "one NaN in a matrix", "train or convert again; no loader mends it"),
        "infinity": Code(
            "infinite values; a note in masks", "-Inf in a weight", "look where it overflowed", "warning, note"
        ),
        "outlier": Code(
            "values beyond 100 × the 99.99 % quantile of |x|",
            "5000 among normal values",
            "a flipped bit, or a massive weight: compare with the original",
            "warning",
        ),
        "almost_all_zero": Code(
            "at most 0.01 % of the values are not zero", "20 ones among a million zeros", "compare", "warning"
        ),
        "all_zero": Code(
            "all values are zero: an error in a matrix of the model and in a norm's gain, a warning in a matrix "
            "without a known place",
            "a down projection of zeros",
            "it was never written: save or convert again",
            "error, warning, note",
        ),
        "constant": Code("all values are one number; a note in vectors", "a gain of ones", "compare", "warning, note"),
        "dead_rows": Code(
            "rows of zeros; a note where padding is usual", "2 of 20 rows zero", "pruned, or padding", "warning, note"
        ),
        "empty": Code(
            "a tensor whose shape holds no value: an error where a weight should be",
            "a weight of shape [0]",
            "a sharded optimiser's placeholder was saved: gather the weights first",
            "error, note",
        ),
        "duplicate_values": Code("tensors with the same bytes", "a tied head stored twice", "none needed", "note"),
        "fixed_table": Code(
            "position numbers that are not 0, 1, 2, …; token types not 0; rotary frequencies that don't fall",
            "position_ids with a 14 twice",
            "take the tensor out: loaders make it anew",
            "error, warning",
        ),
        "codes_without_scales": Code(
            "plain floats that hold nothing but the codes of FP8, FP4, INT8 or INT4, up to the largest",
            "FP8 codes saved as BF16",
            "convert again, with the scales",
        ),
        "out_of_scale": Code(
            "matrices 1,000 × as large as the others, or that make an input 300 × as long",
            "FP8 scales that are reciprocals",
            "a scale is missing, inverted or another tensor's: convert again",
            "warning",
        ),
        "other_type": Code(
            "no matrix has the spread of weights in the type that the header says, and all have it in another reading",
            "bfloat16 words under a header that says F16",
            "set the type that was written, or the order of the bytes, and save again",
        ),
        "never_trained": Code(
            "gains all 1 and one deviation per role",
            "a model fresh from its constructor",
            "load the weights",
            "warning",
        ),
    },
    "Is it whole?": {
        "no_tensors": Code("no tensor in the file, or in any", "an adapter of 40 bytes", _AGAIN, "error, warning"),
        "shard_missing": Code("a file that the index or the numbers promise", "shard 2 of 3 deleted", _AGAIN),
        "tensor_lost": Code("tensors in files that can't be read", "shard 2 of 3 deleted", _AGAIN),
        "part_of_set": Code(
            "one file of a set was named", "model-00002-of-00003.safetensors", "name the folder", "warning"
        ),
        "split_tensors": Code(
            "a split GGUF holds fewer tensors than its metadata say", "split.tensors.count 39 of 36", _AGAIN
        ),
        "layer_gap": Code("block or expert numbers that are skipped", "blocks 0, 1, 4", _AGAIN, "warning"),
        "block_lacks": Code("blocks without parts that most have", "block 3 without o", _AGAIN, "warning"),
        "sibling_missing": Code(
            "modules without a tensor that most of their kind have", "one expert without input_scale", _AGAIN, "warning"
        ),
        "repeated_blocks": Code(
            "every block of a stack the same, or every expert of a block (a note)",
            "block 0 saved as each of four",
            _AGAIN,
            "warning, note",
        ),
        "flat_parameters": Code(
            "flat parameters of FSDP: all weights of a module end to end, or a rank's part of them",
            "_fsdp_wrapped_module._flat_param",
            "gather the full state and save again",
        ),
        "training_states": Code(
            "an optimiser's states among the weights", "optimizer.state.0.exp_avg", "save the weights alone", "warning"
        ),
        "head_missing": Code(
            "no output head, though the config says that it isn't the embedding",
            "lm_head left out, tie_word_embeddings false",
            "tie it in the config if it is the embedding, else save again",
        ),
        "head_not_needed": Code(
            "the head that is lost is the embedding", "a cut file with lm_head, tied", "drop it from the index", "note"
        ),
        "alias_dangling": Code(
            "the metadata name a tensor for one left out; neither is here", "lm_head → absent.weight", _AGAIN
        ),
        "module_missing": Code("a module of modules.json has no weights", "2_Dense without model.safetensors", _AGAIN),
        "other_module": Code(
            "a module of modules.json with weights of its own", "2_Dense with them", "check it by itself", "note"
        ),
        "tensor_parallel_ranks": Code(
            "files of several tensor-parallel ranks, each with its part",
            "model-rank-0-part-0 and model-rank-1-part-0",
            "join them with the engine that wrote them",
        ),
    },
    "One folder, several models": {
        "second_copy": Code(
            "the same model once more", "consolidated.safetensors beside its shards", "none needed", "note"
        ),
        "another_model": Code(
            "another model in the same folder", "a 4-bit model.safetensors beside shards", "move one away", "warning"
        ),
        "unread_file": Code("a file beside the model can't be read", "a cut file beside it", "remove it", "warning"),
        "other_files": Code(
            "files beside the model that are no copy of it", "an adapter beside it", "name the other", "note, warning"
        ),
        "stale_index": Code(
            "the index is of another save", "15 files beside the index of 30", "remove or rebuild the index", "warning"
        ),
        "stale_index_complete": Code(
            "what is here holds all that the stale index names", "15 files beside the index of 30", "as above", "note"
        ),
        "no_main_reference": Code("the hub cache has no main", "a cache of one revision", "none needed", "note"),
    },
    "Quantisation": {
        "unreadable_quantisation": Code("components that don't hold together", "NVFP4 without weight_scale_2", _AGAIN),
        "not_decoded": Code(
            "a scheme that is recognised and not decoded", "AQLM's codebooks", "its values are not looked at", "note"
        ),
        "scale_without_codes": Code("a scale whose weight is not here", "SCB without weight", _AGAIN, "warning"),
        "second_scale": Code(
            "two tensors of scales for one weight", "weight_scale beside weight_scale_inv", "drop one", "warning"
        ),
        "scale_values": Code(
            "scales all zero or all negative, or at the largest number of their type", "a weight_scale of 0", _CONVERT
        ),
        "scale_apart": Code(
            "scales unlike those of the same role in other blocks: 50 times, exactly 1, of another shape",
            "a weight_scale of 1 in one block",
            _CONVERT,
            "warning",
        ),
        "scale_fit": Code(
            "scales that don't vary from block to block as their codes say: squared, inverted, other blocks'",
            "a scale per block of nf4, squared",
            _CONVERT,
            "warning",
        ),
        "saturated_codes": Code(
            "many codes at the largest of their type", "a scale ten times too small", _CONVERT, "warning"
        ),
        "group_index": Code("a table of groups that names others than there are", "g_idx with a 9 of 4 groups", _AGAIN),
        "stored_twice": Code("a weight both plain and quantised", "weight beside qweight", "drop one", "warning"),
        "undecoded_words": Code(
            "packed words that no known scheme decodes", "U8 words beside a scale", "decode them elsewhere", "warning"
        ),
        "zero_points": Code(
            "zero points that contradict the config, or are one off everywhere",
            "GPTQ v2 labelled gptq",
            "set checkpoint_format",
        ),
    },
    "config.json and the tensors": {
        "config_blocks": Code("another number of blocks", "num_hidden_layers 4, 3 here", _AGAIN, "error, warning"),
        "config_unfit": Code(
            "tensors under the names of the family that the config says, in shapes that can't be its",
            "half of every tensor's rows, from one rank",
            _CONVERT,
        ),
        "config_family": Code(
            "a model_type whose tensors have other names or biases",
            "model_type qwen2, and no biases",
            "take its own config",
            "warning",
        ),
        "config_hidden": Code("another hidden size", "hidden_size 64, tensors 32", "take its own config", "warning"),
        "config_ffn": Code("another FFN size", "intermediate_size 64, tensors 48", "take its own config", "warning"),
        "config_experts": Code("another number of experts", "num_experts 8, 4 here", "take its own config", "warning"),
        "config_heads": Code(
            "heads × size are not the rows of q or k", "3 heads, 32 rows", "take its own config", "warning"
        ),
        "config_shape": Code(
            "another size of a single tensor: positions, token types, patches, labels, states, latents, channels",
            "max_position_embeddings 128, 64 rows",
            "take its own config",
            "warning",
        ),
        "config_bias": Code(
            "biases that aren't here, or that no one asks for", "attention_bias true", "take its own config", "warning"
        ),
        "config_vocabulary": Code(
            "more tokens than rows of the embedding", "vocab_size 512, 500 rows", "resize the embedding"
        ),
        "config_ties": Code(
            "a tied head that is stored with other values", "tie_word_embeddings true", "untie it", "warning"
        ),
        "config_quantisation": Code(
            "a quantisation that no tensor shows, or other bits",
            "gptq, and BF16 here",
            "take its own config",
            "warning",
        ),
        "config_duplicate_key": Code("a key twice", '{"a": 1, "a": 2}', "write it anew", "warning"),
        "config_not_finite": Code("numbers that JSON doesn't have, read as null", "Infinity", "none needed", "note"),
        "config_not_json": Code("no JSON", "{", "write it anew", "warning"),
        "config_not_object": Code("JSON, but no object", "[]", "write it anew", "warning"),
        "config_not_utf8": Code("not UTF-8", "a Latin-1 ü", "write it anew", "warning"),
        "config_too_large": Code("more than 16 MB", "a file of 17 MB", "take its own config", "warning"),
        "config_unreadable": Code("the system refuses to read it", "no rights", "allow reading", "warning"),
        "not_a_file": Code("config.json is no regular file", "a pipe called config.json", "replace it", "warning"),
        "link_outside": Code("config.json is a link out of its folder", "→ /etc/passwd", "copy the target", "warning"),
    },
    "Adapters": {
        "adapter_factors": Code("factors that make no update", "lora_A without lora_B", _AGAIN),
        "adapter_config": Code(
            "another rank than the factors have, or no lora_alpha",
            "r 64, factors of rank 8",
            "take the config of the same run",
            "error, note",
        ),
        "adapter_pattern": Code("a pattern too costly to match", '"(a+)+"', "write plain names", "warning"),
        "adapter_kind": Code("an adapter that weightprint can't merge", "peft_type IA3", "none needed", "note"),
        "adapter_no_change": Code(
            "all updates are zero", "every lora_B zero", "it was saved before training", "warning"
        ),
    },
    "Index": {
        "index_not_object": Code("the index is no JSON object", "[]", "rebuild it"),
        "weight_map_missing": Code("the index has no weight_map", "{}", "name the folder, or rebuild it"),
        "weight_map_not_object": Code("weight_map is no object", '"weight_map": []', "rebuild it"),
        "shard_name_not_string": Code("a file's name is no string", '"w": 7', "rebuild it"),
        "shard_name_not_plain": Code("a file's name leaves the folder", "../x.safetensors", "don't trust it"),
        "index_too_large": Code("an index of more than 200 MB", "a padded one", "rebuild it"),
        "bad_total_size": Code("total_size is no whole number", "a float", "none needed", "note"),
        "total_size": Code("total_size is not what the tensors have", "total_size 1", "rebuild it", "warning"),
        "shard_not_in_index": Code("files that the index doesn't name", "a spare file", "remove it", "warning"),
        "tensor_in_wrong_shard": Code("the index names another file for a tensor", "names swapped", "rebuild it"),
        "tensor_missing": Code("a tensor is not in the file that should hold it", "renamed", "rebuild it"),
        "tensor_not_in_index": Code("tensors that the index doesn't name", "one more", "rebuild it", "warning"),
        "duplicate_tensor": Code(
            "a tensor in two files; a warning where the index chooses", "w in both", "remove one", "error, warning"
        ),
    },
    "Manifest": {
        "manifest_missing": Code("a tensor of the manifest is not here", "renamed", _AGAIN),
        "manifest_changed": Code("a tensor is not what it was", "one flipped bit", _AGAIN),
        "manifest_extra": Code("a tensor that the manifest lacks", "one more", "write a new manifest", "warning"),
        "manifest_files": Code("other files than recorded", "cut into other shards", "none needed", "note"),
    },
    "safetensors: the file": {
        "io": Code("the system refuses to read the file", "no rights", "allow reading"),
        "not_a_regular_file": Code("a pipe, device or folder", "a pipe called x.safetensors", "copy its content"),
        "empty_file": Code("no byte", "0 bytes", _AGAIN),
        "file_too_small": Code("fewer than 8 bytes", "4 bytes", _AGAIN),
        "truncated": Code("cut short", "100 bytes missing", _AGAIN),
        "header_beyond_file": Code("the header would end behind the file", "a length of 10⁹", _AGAIN),
        "header_empty": Code("zeros where the header should be", "an interrupted upload", _AGAIN),
        "header_too_large": Code("a header of more than 100 MB", "a length of 10⁹ in a large file", _AGAIN),
        "large_header": Code("a large header, read all the same", "of 100 MB", "none needed", "warning"),
        "trailing_data": Code(
            "bytes behind the last tensor", "48 bytes appended", "cut them off, or save again", "error, warning"
        ),
        "hole": Code("bytes between tensors that belong to none", "8 bytes between two"),
        "overlap": Code("two tensors share bytes", "one range twice"),
        "error_page": Code("a web page", "<html> of a failed download", _AGAIN),
        "lfs_pointer": Code("a Git LFS pointer", "130 bytes of text", "git lfs pull"),
        "gguf_file": _other("a GGUF file"),
        "gzip_file": _other("a gzip file"),
        "hdf5_file": _other("an HDF5 file"),
        "json_file": _other("a JSON file"),
        "numpy_file": _other("a numpy file"),
        "onnx_file": _other("an ONNX file"),
        "parquet_file": _other("a Parquet file"),
        "pickle_file": _other("a pickle"),
        "tar_file": _other("a tar file"),
        "tflite_file": _other("a TFLite file"),
        "xz_file": _other("an xz file"),
        "zip_file": _other("a zip file, as torch.save writes"),
        "zstd_file": _other("a Zstandard file"),
    },
    "safetensors: the header": {
        "array_entry": Code("a tensor's entry is a list", "[]", severity="error, warning"),
        "bad_dimension": Code("a dimension is no whole number", "-1"),
        "bad_offset": Code("an offset is no whole number", "1.5"),
        "bom": Code("a byte order mark in front", "EF BB BF"),
        "dtype_not_string": Code("a dtype that is no string", '"dtype": 5', severity="error, warning"),
        "duplicate_field": Code("a field twice", "dtype twice"),
        "duplicate_metadata": Code("__metadata__ twice", "__metadata__ twice"),
        "duplicate_metadata_key": Code("a key of the metadata twice", "format twice", severity="error, warning"),
        "duplicate_name": Code("a tensor's name twice", "w twice", severity="error, warning"),
        "empty_name": Code("a tensor without a name", '""', severity="error, warning"),
        "entry_not_object": Code("a tensor's entry is no object", "5"),
        "entry_too_large": Code("one entry of more than the cap", "a shape of a million axes"),
        "header_not_object": Code("the header is no object", "[]"),
        "invalid_utf8": Code("the header is not UTF-8", "FF"),
        "json_comment": Code("a comment in the header", "// x"),
        "json_eof": Code("the header ends too early", "{"),
        "json_syntax": Code("the header is no JSON", "{,}"),
        "leading_whitespace": Code("blanks before the header", "a space", severity="error, note"),
        "metadata_key_too_long": Code("a key of the metadata beyond the cap", "a key of 1 MB"),
        "metadata_not_object": Code("__metadata__ is no object; null is read", "null", severity="error, note"),
        "metadata_not_string": Code("a value of the metadata is no string", "5"),
        "metadata_too_large": Code("metadata beyond the cap", "of 100 MB"),
        "missing_field": Code("a tensor without dtype, shape or offsets", "no shape"),
        "name_too_long": Code("a name beyond the cap", "of 1 MB"),
        "nesting_too_deep": Code("brackets nested too deep", "100,000 brackets"),
        "nul_padding": Code("NUL bytes behind the header", "zeros instead of blanks", severity="error, warning"),
        "offsets_not_pair": Code("offsets that are no pair", "[0]"),
        "offsets_reversed": Code("a tensor that ends before it begins", "[4, 0]"),
        "partial_byte": Code("a tensor that ends within a byte", "3 values of F4"),
        "rank_too_large": Code("a tensor of too many axes", "100 axes"),
        "shape_not_list": Code("a shape that is no list", "5"),
        "shape_too_large": Code("all shapes together beyond the cap", "a hundred million axes"),
        "size_mismatch": Code("bytes that don't fit shape and dtype", "4 bytes for two F32"),
        "size_overflow": Code("a shape of more than 2⁶⁴ values", "[2⁴⁰, 2⁴⁰]"),
        "too_many_pairs": Code("more metadata than the cap, in GGUF", "a million keys"),
        "too_many_tensors": Code("more tensors than the cap", "ten million"),
        "trailing_bytes": Code("something behind the header's object", "{}{}"),
        "unknown_dtype": Code("a dtype that there isn't", "F33"),
        "unknown_field": Code("a field that there isn't", '"extra"', severity="error, warning, note"),
        "zero_after_overflow": Code("an overflowing shape with a 0", "[2⁴⁰, 2⁴⁰, 0]", severity="error, warning"),
    },
    "GGUF": {
        "gguf_not_installed": Code("the gguf package is not installed", "x.gguf", "pip install 'weightprint[gguf]'"),
        "gguf_magic": Code("not a GGUF file", "text called x.gguf", _AGAIN),
        "gguf_version": Code("a version that is not read", "version 1", "convert it again"),
        "gguf_truncated": Code("cut short", "half a header", _AGAIN),
        "gguf_alignment": Code("an alignment that is no power of two", "alignment 3"),
        "gguf_count": Code("more entries than the file can hold", "10¹² tensors", _AGAIN),
        "gguf_duplicate_key": Code("a key twice", "general.name twice"),
        "gguf_name_too_long": Code("a name beyond the cap", "of 1 MB"),
        "gguf_not_utf8": Code("a name that is not UTF-8", "FF"),
        "gguf_partial_block": Code("a row that ends within a block", "33 values of Q8_0"),
        "gguf_rank": Code("too many axes", "9 axes"),
        "gguf_size": Code("a tensor of more than 2⁶⁴ bytes", "[2⁴⁰, 2⁴⁰]"),
        "gguf_unknown_type": Code("a type that the gguf package doesn't know", "type 999", "update the package"),
        "gguf_value_type": Code("a metadata value of a type that there isn't", "type 99"),
        "file_changed": Code("the file was replaced while it was read", "a download goes on", "wait"),
    },
}
"""Subject → code → row, in the order of docs/checks.md."""

CODES: dict[str, Code] = {code: row for rows in GROUPS.values() for code, row in rows.items()}


def selection(select: Iterable[str], ignore: Iterable[str]) -> Callable[[str], bool]:
    """Which codes are wanted: those in `select` (all, if it is empty) and not in `ignore`.

    Raises UsageError for a code that no finding has: a misspelt one would silence nothing, or everything.
    """
    chosen, left_out = frozenset(select), frozenset(ignore)
    for code in sorted(chosen | left_out):
        if code not in CODES:
            close = difflib.get_close_matches(code, CODES, n=3)
            hint = f"; did you mean {', '.join(close)}?" if close else "; docs/checks.md lists them"
            raise UsageError(f"no finding has the code {escape(code, 60)}{hint}", code="unknown_code")
    return lambda code: code not in left_out and (not chosen or code in chosen)


def way_out(code: str) -> str | None:
    """What to do about findings of this code; None for one that is not in the table, or where nothing need be done."""
    row = CODES.get(code)
    return None if row is None or row.way_out == "none needed" else row.way_out


def markdown() -> str:
    """The tables of docs/checks.md."""
    lines = []
    for subject, rows in GROUPS.items():
        lines += [f"## {subject}", "", "| code | severity | means | example | way out |", "|---|---|---|---|---|"]
        cells = ((code, row.severity, row.means, row.example, row.way_out) for code, row in rows.items())
        lines += [
            "| `" + "` | ".join([code, " | ".join(c.replace("|", r"\|") for c in rest)]) + " |" for code, *rest in cells
        ]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown(), end="")
