"""Patterns in natural order against patterns of sorted names."""

import random

import pytest
from weightprint.util.name_patterns import patterns
from weightprint.util.natural_order import natural_key


@pytest.mark.parametrize("seed", range(200))
def test_ordered_is_as_if_sorted_before(seed):
    rng = random.Random(seed)
    words = ["a", "b.", "layers.", "", "x_", "é", "\u202e", "٣", "long" * 40]
    numbers = ["", "0", "7", "07", "10", "123456789012345678901"]
    names = {"".join(rng.choice(words) + rng.choice(numbers) for _ in range(rng.randint(1, 4))) for _ in range(40)}
    tensors = [(name, rng.choice(["F16", "F32"]), (rng.randint(1, 2),), 4) for name in sorted(names)]
    rng.shuffle(tensors)
    in_order = sorted(tensors, key=lambda tensor: natural_key(tensor[0]))
    # Names equal but for leading zeros have no order of their own: then it is that of the file.
    assert {(p.name, p.count, p.nbytes) for p in patterns(tensors, ordered=True)} == {
        (p.name, p.count, p.nbytes) for p in patterns(in_order)
    }
    if len({natural_key(name) for name in names}) == len(names):
        assert patterns(tensors, ordered=True) == patterns(in_order)
