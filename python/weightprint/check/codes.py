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

__all__ = ["CODES", "GROUPS", "Code", "markdown", "selection", "way_out"]


@dataclass(frozen=True, slots=True)
class Code:
    """One row.

    Attributes:
        severity: ``"error"``, ``"warning"`` or ``"note"``; two of them where it depends on the tensor.
        means: what was found.
        example: an input that has it.
        way_out: what to do.
    """

    severity: str
    means: str
    example: str
    way_out: str


_AGAIN = "download or save the file again"
_CONVERT = "convert it again from the original"
_WRITER = "a fault of the program that wrote it: save with a current one"
_OTHER = "convert it to safetensors"


def _format(means: str, example: str, way_out: str = _WRITER, severity: str = "error") -> Code:
    return Code(severity, means, example, way_out)


def _other(what: str) -> Code:
    return Code("error", f"the file is {what}, whatever it is called", f"{what}, renamed", _OTHER)


GROUPS: dict[str, dict[str, Code]] = {
    "Values": {
        "nan": Code(
            "error", "values that are NaN", "one NaN in a matrix", "train or convert again; no loader mends it"
        ),
        "infinity": Code(
            "warning, note", "infinite values; a note in masks", "-Inf in a weight", "look where it overflowed"
        ),
        "outlier": Code(
            "warning",
            "values beyond 100 × the 99.99 % quantile of |x|",
            "5000 among normal values",
            "a flipped bit, or a massive weight: compare with the original",
        ),
        "almost_all_zero": Code(
            "warning", "at most 0.01 % of the values are not zero", "20 ones among a million zeros", "compare"
        ),
        "all_zero": Code(
            "error, warning, note",
            "all values are zero: an error in a matrix of the model and in a norm's gain, a warning in a matrix "
            "without a known place",
            "a down projection of zeros",
            "it was never written: save or convert again",
        ),
        "constant": Code("warning, note", "all values are one number; a note in vectors", "a gain of ones", "compare"),
        "dead_rows": Code(
            "warning, note", "rows of zeros; a note where padding is usual", "2 of 20 rows zero", "pruned, or padding"
        ),
        "empty": Code(
            "error, note",
            "a tensor whose shape holds no value: an error where a weight should be",
            "a weight of shape [0]",
            "a sharded optimiser's placeholder was saved: gather the weights first",
        ),
        "duplicate_values": Code("note", "tensors with the same bytes", "a tied head stored twice", "none needed"),
        "fixed_table": Code(
            "error, warning",
            "position numbers that are not 0, 1, 2, …; token types not 0; rotary frequencies that don't fall",
            "position_ids with a 14 twice",
            "take the tensor out: loaders make it anew",
        ),
        "codes_without_scales": Code(
            "error",
            "plain floats that hold nothing but the codes of FP8, FP4, INT8 or INT4, up to the largest",
            "FP8 codes saved as BF16",
            "convert again, with the scales",
        ),
        "out_of_scale": Code(
            "warning",
            "matrices 1,000 × as large as the others, or that make an input 300 × as long",
            "FP8 scales that are reciprocals",
            "a scale is missing, inverted or another tensor's: convert again",
        ),
        "other_type": Code(
            "error",
            "no matrix has the spread of weights in the type that the header says, and all have it in another reading",
            "bfloat16 words under a header that says F16",
            "set the type that was written, or the order of the bytes, and save again",
        ),
        "never_trained": Code(
            "warning",
            "gains all 1 and one deviation per role",
            "a model fresh from its constructor",
            "load the weights",
        ),
    },
    "Is it whole?": {
        "no_tensors": Code("error, warning", "no tensor in the file, or in any", "an adapter of 40 bytes", _AGAIN),
        "shard_missing": Code("error", "a file that the index or the numbers promise", "shard 2 of 3 deleted", _AGAIN),
        "tensor_lost": Code("error", "tensors in files that can't be read", "shard 2 of 3 deleted", _AGAIN),
        "part_of_set": Code(
            "warning", "one file of a set was named", "model-00002-of-00003.safetensors", "name the folder"
        ),
        "split_tensors": Code(
            "error", "a split GGUF holds fewer tensors than its metadata say", "split.tensors.count 39 of 36", _AGAIN
        ),
        "layer_gap": Code("warning", "block or expert numbers that are skipped", "blocks 0, 1, 4", _AGAIN),
        "block_lacks": Code("warning", "blocks without parts that most have", "block 3 without o", _AGAIN),
        "sibling_missing": Code(
            "warning", "modules without a tensor that most of their kind have", "one expert without input_scale", _AGAIN
        ),
        "repeated_blocks": Code(
            "warning, note",
            "every block of a stack the same, or every expert of a block (a note)",
            "block 0 saved as each of four",
            _AGAIN,
        ),
        "flat_parameters": Code(
            "error",
            "flat parameters of FSDP: all weights of a module end to end, or a rank's part of them",
            "_fsdp_wrapped_module._flat_param",
            "gather the full state and save again",
        ),
        "training_states": Code(
            "warning", "an optimiser's states among the weights", "optimizer.state.0.exp_avg", "save the weights alone"
        ),
        "head_missing": Code(
            "error",
            "no output head, though the config says that it isn't the embedding",
            "lm_head left out, tie_word_embeddings false",
            "tie it in the config if it is the embedding, else save again",
        ),
        "head_not_needed": Code(
            "note", "the head that is lost is the embedding", "a cut file with lm_head, tied", "drop it from the index"
        ),
        "alias_dangling": Code(
            "error", "the metadata name a tensor for one left out; neither is here", "lm_head → absent.weight", _AGAIN
        ),
        "module_missing": Code(
            "error", "a module of modules.json has no weights", "2_Dense without model.safetensors", _AGAIN
        ),
        "other_module": Code(
            "note", "a module of modules.json with weights of its own", "2_Dense with them", "check it by itself"
        ),
        "tensor_parallel_ranks": Code(
            "error",
            "files of several tensor-parallel ranks, each with its part",
            "model-rank-0-part-0 and model-rank-1-part-0",
            "join them with the engine that wrote them",
        ),
    },
    "One folder, several models": {
        "second_copy": Code(
            "note", "the same model once more", "consolidated.safetensors beside its shards", "none needed"
        ),
        "another_model": Code(
            "warning", "another model in the same folder", "a 4-bit model.safetensors beside shards", "move one away"
        ),
        "unread_file": Code("warning", "a file beside the model can't be read", "a cut file beside it", "remove it"),
        "other_files": Code(
            "note, warning", "files beside the model that are no copy of it", "an adapter beside it", "name the other"
        ),
        "stale_index": Code(
            "warning", "the index is of another save", "15 files beside the index of 30", "remove or rebuild the index"
        ),
        "stale_index_complete": Code(
            "note", "what is here holds all that the stale index names", "15 files beside the index of 30", "as above"
        ),
        "no_main_reference": Code("note", "the hub cache has no main", "a cache of one revision", "none needed"),
    },
    "Quantisation": {
        "unreadable_quantisation": Code(
            "error", "components that don't hold together", "NVFP4 without weight_scale_2", _AGAIN
        ),
        "not_decoded": Code(
            "note", "a scheme that is recognised and not decoded", "AQLM's codebooks", "its values are not looked at"
        ),
        "scale_without_codes": Code("warning", "a scale whose weight is not here", "SCB without weight", _AGAIN),
        "second_scale": Code(
            "warning", "two tensors of scales for one weight", "weight_scale beside weight_scale_inv", "drop one"
        ),
        "scale_values": Code(
            "error",
            "scales all zero or all negative, or at the largest number of their type",
            "a weight_scale of 0",
            _CONVERT,
        ),
        "scale_apart": Code(
            "warning",
            "scales unlike those of the same role in other blocks: 50 times, exactly 1, of another shape",
            "a weight_scale of 1 in one block",
            _CONVERT,
        ),
        "scale_fit": Code(
            "warning",
            "scales that don't vary from block to block as their codes say: squared, inverted, other blocks'",
            "a scale per block of nf4, squared",
            _CONVERT,
        ),
        "saturated_codes": Code(
            "warning", "many codes at the largest of their type", "a scale ten times too small", _CONVERT
        ),
        "group_index": Code(
            "error", "a table of groups that names others than there are", "g_idx with a 9 of 4 groups", _AGAIN
        ),
        "stored_twice": Code("warning", "a weight both plain and quantised", "weight beside qweight", "drop one"),
        "undecoded_words": Code(
            "warning", "packed words that no known scheme decodes", "U8 words beside a scale", "decode them elsewhere"
        ),
        "zero_points": Code(
            "error",
            "zero points that contradict the config, or are one off everywhere",
            "GPTQ v2 labelled gptq",
            "set checkpoint_format",
        ),
    },
    "config.json and the tensors": {
        "config_blocks": Code("error, warning", "another number of blocks", "num_hidden_layers 4, 3 here", _AGAIN),
        "config_unfit": Code(
            "error",
            "tensors under the names of the family that the config says, in shapes that can't be its",
            "half of every tensor's rows, from one rank",
            _CONVERT,
        ),
        "config_family": Code(
            "warning",
            "a model_type whose tensors have other names or biases",
            "model_type qwen2, and no biases",
            "take its own config",
        ),
        "config_hidden": Code("warning", "another hidden size", "hidden_size 64, tensors 32", "take its own config"),
        "config_ffn": Code("warning", "another FFN size", "intermediate_size 64, tensors 48", "take its own config"),
        "config_experts": Code("warning", "another number of experts", "num_experts 8, 4 here", "take its own config"),
        "config_heads": Code(
            "warning", "heads × size are not the rows of q or k", "3 heads, 32 rows", "take its own config"
        ),
        "config_shape": Code(
            "warning",
            "another size of a single tensor: positions, token types, patches, labels, states, latents, channels",
            "max_position_embeddings 128, 64 rows",
            "take its own config",
        ),
        "config_bias": Code(
            "warning", "biases that aren't here, or that no one asks for", "attention_bias true", "take its own config"
        ),
        "config_vocabulary": Code(
            "error", "more tokens than rows of the embedding", "vocab_size 512, 500 rows", "resize the embedding"
        ),
        "config_ties": Code(
            "warning", "a tied head that is stored with other values", "tie_word_embeddings true", "untie it"
        ),
        "config_quantisation": Code(
            "warning",
            "a quantisation that no tensor shows, or other bits",
            "gptq, and BF16 here",
            "take its own config",
        ),
        "config_duplicate_key": Code("warning", "a key twice", '{"a": 1, "a": 2}', "write it anew"),
        "config_not_finite": Code("note", "numbers that JSON doesn't have, read as null", "Infinity", "none needed"),
        "config_not_json": Code("warning", "no JSON", "{", "write it anew"),
        "config_not_object": Code("warning", "JSON, but no object", "[]", "write it anew"),
        "config_not_utf8": Code("warning", "not UTF-8", "a Latin-1 ü", "write it anew"),
        "config_too_large": Code("warning", "more than 16 MB", "a file of 17 MB", "take its own config"),
        "config_unreadable": Code("warning", "the system refuses to read it", "no rights", "allow reading"),
        "not_a_file": Code("warning", "config.json is no regular file", "a pipe called config.json", "replace it"),
        "link_outside": Code("warning", "config.json is a link out of its folder", "→ /etc/passwd", "copy the target"),
    },
    "Adapters": {
        "adapter_factors": Code("error", "factors that make no update", "lora_A without lora_B", _AGAIN),
        "adapter_config": Code(
            "error, note",
            "another rank than the factors have, or no lora_alpha",
            "r 64, factors of rank 8",
            "take the config of the same run",
        ),
        "adapter_pattern": Code("warning", "a pattern too costly to match", '"(a+)+"', "write plain names"),
        "adapter_kind": Code("note", "an adapter that weightprint can't merge", "peft_type IA3", "none needed"),
        "adapter_no_change": Code(
            "warning", "all updates are zero", "every lora_B zero", "it was saved before training"
        ),
    },
    "Index": {
        "index_not_object": _format("the index is no JSON object", "[]", "rebuild it"),
        "weight_map_missing": _format("the index has no weight_map", "{}", "name the folder, or rebuild it"),
        "weight_map_not_object": _format("weight_map is no object", '"weight_map": []', "rebuild it"),
        "shard_name_not_string": _format("a file's name is no string", '"w": 7', "rebuild it"),
        "shard_name_not_plain": _format("a file's name leaves the folder", "../x.safetensors", "don't trust it"),
        "index_too_large": _format("an index of more than 200 MB", "a padded one", "rebuild it"),
        "bad_total_size": _format("total_size is no whole number", "a float", "none needed", "note"),
        "total_size": _format("total_size is not what the tensors have", "total_size 1", "rebuild it", "warning"),
        "shard_not_in_index": _format("files that the index doesn't name", "a spare file", "remove it", "warning"),
        "tensor_in_wrong_shard": _format("the index names another file for a tensor", "names swapped", "rebuild it"),
        "tensor_missing": _format("a tensor is not in the file that should hold it", "renamed", "rebuild it"),
        "tensor_not_in_index": _format("tensors that the index doesn't name", "one more", "rebuild it", "warning"),
        "duplicate_tensor": Code(
            "error, warning", "a tensor in two files; a warning where the index chooses", "w in both", "remove one"
        ),
    },
    "Manifest": {
        "manifest_missing": Code("error", "a tensor of the manifest is not here", "renamed", _AGAIN),
        "manifest_changed": Code("error", "a tensor is not what it was", "one flipped bit", _AGAIN),
        "manifest_extra": Code("warning", "a tensor that the manifest lacks", "one more", "write a new manifest"),
        "manifest_files": Code("note", "other files than recorded", "cut into other shards", "none needed"),
    },
    "safetensors: the file": {
        "io": Code("error", "the system refuses to read the file", "no rights", "allow reading"),
        "not_a_regular_file": _format("a pipe, device or folder", "a pipe called x.safetensors", "copy its content"),
        "empty_file": _format("no byte", "0 bytes", _AGAIN),
        "file_too_small": _format("fewer than 8 bytes", "4 bytes", _AGAIN),
        "truncated": _format("cut short", "100 bytes missing", _AGAIN),
        "header_beyond_file": _format("the header would end behind the file", "a length of 10⁹", _AGAIN),
        "header_empty": _format("zeros where the header should be", "an interrupted upload", _AGAIN),
        "header_too_large": _format("a header of more than 100 MB", "a length of 10⁹ in a large file", _AGAIN),
        "large_header": _format("a large header, read all the same", "of 100 MB", "none needed", "warning"),
        "trailing_data": Code(
            "error, warning", "bytes behind the last tensor", "48 bytes appended", "cut them off, or save again"
        ),
        "hole": _format("bytes between tensors that belong to none", "8 bytes between two"),
        "overlap": _format("two tensors share bytes", "one range twice"),
        "error_page": _format("a web page", "<html> of a failed download", _AGAIN),
        "lfs_pointer": _format("a Git LFS pointer", "130 bytes of text", "git lfs pull"),
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
        "array_entry": _format("a tensor's entry is a list", "[]", severity="error, warning"),
        "bad_dimension": _format("a dimension is no whole number", "-1"),
        "bad_offset": _format("an offset is no whole number", "1.5"),
        "bom": _format("a byte order mark in front", "EF BB BF"),
        "dtype_not_string": _format("a dtype that is no string", '"dtype": 5', severity="error, warning"),
        "duplicate_field": _format("a field twice", "dtype twice"),
        "duplicate_metadata": _format("__metadata__ twice", "__metadata__ twice"),
        "duplicate_metadata_key": _format("a key of the metadata twice", "format twice", severity="error, warning"),
        "duplicate_name": _format("a tensor's name twice", "w twice", severity="error, warning"),
        "empty_name": _format("a tensor without a name", '""', severity="error, warning"),
        "entry_not_object": _format("a tensor's entry is no object", "5"),
        "entry_too_large": _format("one entry of more than the cap", "a shape of a million axes"),
        "header_not_object": _format("the header is no object", "[]"),
        "invalid_utf8": _format("the header is not UTF-8", "FF"),
        "json_comment": _format("a comment in the header", "// x"),
        "json_eof": _format("the header ends too early", "{"),
        "json_syntax": _format("the header is no JSON", "{,}"),
        "leading_whitespace": _format("blanks before the header", "a space", severity="error, note"),
        "metadata_key_too_long": _format("a key of the metadata beyond the cap", "a key of 1 MB"),
        "metadata_not_object": _format("__metadata__ is no object; null is read", "null", severity="error, note"),
        "metadata_not_string": _format("a value of the metadata is no string", "5"),
        "metadata_too_large": _format("metadata beyond the cap", "of 100 MB"),
        "missing_field": _format("a tensor without dtype, shape or offsets", "no shape"),
        "name_too_long": _format("a name beyond the cap", "of 1 MB"),
        "nesting_too_deep": _format("brackets nested too deep", "100,000 brackets"),
        "nul_padding": _format("NUL bytes behind the header", "zeros instead of blanks", severity="error, warning"),
        "offsets_not_pair": _format("offsets that are no pair", "[0]"),
        "offsets_reversed": _format("a tensor that ends before it begins", "[4, 0]"),
        "partial_byte": _format("a tensor that ends within a byte", "3 values of F4"),
        "rank_too_large": _format("a tensor of too many axes", "100 axes"),
        "shape_not_list": _format("a shape that is no list", "5"),
        "shape_too_large": _format("all shapes together beyond the cap", "a hundred million axes"),
        "size_mismatch": _format("bytes that don't fit shape and dtype", "4 bytes for two F32"),
        "size_overflow": _format("a shape of more than 2⁶⁴ values", "[2⁴⁰, 2⁴⁰]"),
        "too_many_pairs": _format("more metadata than the cap, in GGUF", "a million keys"),
        "too_many_tensors": _format("more tensors than the cap", "ten million"),
        "trailing_bytes": _format("something behind the header's object", "{}{}"),
        "unknown_dtype": _format("a dtype that there isn't", "F33"),
        "unknown_field": _format("a field that there isn't", '"extra"', severity="error, warning, note"),
        "zero_after_overflow": _format("an overflowing shape with a 0", "[2⁴⁰, 2⁴⁰, 0]", severity="error, warning"),
    },
    "GGUF": {
        "gguf_not_installed": _format("the gguf package is not installed", "x.gguf", "pip install 'weightprint[gguf]'"),
        "gguf_magic": _format("not a GGUF file", "text called x.gguf", _AGAIN),
        "gguf_version": _format("a version that is not read", "version 1", "convert it again"),
        "gguf_truncated": _format("cut short", "half a header", _AGAIN),
        "gguf_alignment": _format("an alignment that is no power of two", "alignment 3"),
        "gguf_count": _format("more entries than the file can hold", "10¹² tensors", _AGAIN),
        "gguf_duplicate_key": _format("a key twice", "general.name twice"),
        "gguf_name_too_long": _format("a name beyond the cap", "of 1 MB"),
        "gguf_not_utf8": _format("a name that is not UTF-8", "FF"),
        "gguf_partial_block": _format("a row that ends within a block", "33 values of Q8_0"),
        "gguf_rank": _format("too many axes", "9 axes"),
        "gguf_size": _format("a tensor of more than 2⁶⁴ bytes", "[2⁴⁰, 2⁴⁰]"),
        "gguf_unknown_type": _format("a type that the gguf package doesn't know", "type 999", "update the package"),
        "gguf_value_type": _format("a metadata value of a type that there isn't", "type 99"),
        "file_changed": Code("error", "the file was replaced while it was read", "a download goes on", "wait"),
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
