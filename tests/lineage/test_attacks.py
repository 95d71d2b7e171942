"""No disguise changes the verdict: a copy that computes the same function is found, however its weights were moved.

The models are the demo's: a trained parent and its fine-tune, which is disguised and compared with the parent. The
plain fine-tune is *shared origin*; so must be every disguise of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import weightprint

from benches.lineage.zoo.model_folder import Truth, ZooModel, load, save
from benches.lineage.zoo.operations.chain import chain
from benches.lineage.zoo.operations.table import OPERATIONS

MODELS = Path(weightprint.__file__).parent / "demo" / "models"
Steps = tuple[tuple[str, Mapping[str, Any]], ...]

ATTACKS: dict[str, Steps] = {
    "units": (("unit_permutation", {}),),
    "heads": (("head_permutation", {}),),
    "channels": (("channel_permutation", {}),),
    "signs": (("sign_flips", {}),),
    "rotation": (("rotation", {}),),
    "rotation with new gains": (("rotation", {"gain_spread": 0.3}),),
    "per-head maps": (("per_head_maps", {}),),
    "scales": (("scale_folding", {}),),
    "names": (("random_names", {}),),
    "noise": (("gaussian_noise", {"relative": 0.1}),),
    "embedding": (("embedding_replaced", {}),),
    "layers": (("layer_shuffle", {}),),
    "decoy": (("decoy_stack", {}),),
    "units, signs, scales": (("unit_permutation", {}), ("sign_flips", {}), ("scale_folding", {})),
    "channels and units": (("channel_permutation", {}), ("unit_permutation", {})),
    "rotation and units": (("rotation", {}), ("unit_permutation", {})),
    "rotation, units, embedding": (("rotation", {}), ("unit_permutation", {}), ("embedding_replaced", {})),
    "all but the rotation": (
        ("unit_permutation", {}), ("head_permutation", {}), ("channel_permutation", {}), ("per_head_maps", {}),
        ("scale_folding", {}), ("layer_shuffle", {}), ("embedding_replaced", {}),
    ),
    "everything": (
        ("unit_permutation", {}), ("head_permutation", {}), ("per_head_maps", {}), ("rotation", {}),
        ("layer_shuffle", {}), ("embedding_replaced", {}), ("gaussian_noise", {"relative": 0.05}),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def fine_tune(tmp_path_factory: pytest.TempPathFactory) -> ZooModel:
    """The demo's fine-tune, as the operations want it."""
    folder = MODELS / "finetune"
    truth = Truth(name="finetune", kind="descendant", form="llama", roots=("parent",), parents=("parent",))
    copy = tmp_path_factory.mktemp("copy") / "finetune"
    made = save(copy, ZooModel({}, {}, truth))
    for file in ("model.safetensors", "config.json"):
        (made / file).write_bytes((folder / file).read_bytes())
    return load(copy)


def disguised(made: ZooModel, steps: Steps, folder: Path) -> Path:
    """The model after these steps, in bfloat16 as it would be published."""
    done = chain([made], [(OPERATIONS[name], parameters) for name, parameters in steps], 3, "disguised")
    import ml_dtypes

    rounded = {n: x.astype(ml_dtypes.bfloat16) if x.dtype == np.float32 else x for n, x in done.tensors.items()}
    return save(folder / "disguised", ZooModel(rounded, done.config, done.truth))


def test_the_plain_fine_tune_is_of_one_origin() -> None:
    assert weightprint.compare(MODELS / "parent", MODELS / "finetune").verdict == "shared_origin"


@pytest.mark.slow_but_first
@pytest.mark.parametrize("name", list(ATTACKS))
def test_no_attack_changes_the_verdict(fine_tune: ZooModel, name: str, tmp_path: Path) -> None:
    copy = disguised(fine_tune, ATTACKS[name], tmp_path)
    result = weightprint.compare(MODELS / "parent", copy)
    assert result.verdict == "shared_origin"
    assert (result.log10_p or 0) < -20


def test_attacks_make_no_kin_of_a_stranger(fine_tune: ZooModel, tmp_path: Path) -> None:
    copy = disguised(fine_tune, ATTACKS["rotation and units"], tmp_path)
    result = weightprint.compare(MODELS / "stranger", copy)
    assert result.verdict in ("no_evidence", "inconclusive")
