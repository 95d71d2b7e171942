"""The plan: what a fingerprint keeps of a model. It depends on this model's headers and the seed, never on a partner.

Two fingerprints can be compared where both follow the same version and seed: every choice below is then the same
function of a shape, so models of one shape keep the same channels, unit numbers, rows and signs. Channels of the stream
are *kept*, not mixed: the tests' nulls put B's channels in another order, and that must do to what is kept exactly what
it does to the model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from weightprint.anatomy.place import Place
from weightprint.fingerprint.ffns import Ffn
from weightprint.fingerprint.sampling import pick
from weightprint.util.arrays import F64, Indices
from weightprint.util.ranges import evenly

#: Of plan and file together; a file says it, and readers of every earlier one stay.
VERSION = 1
#: Signed sums per matrix in the core's sketch.
BUCKETS = 256

_RUN = 8  # rows or columns that are read in one go


@dataclass(frozen=True, slots=True)
class Plan:
    """What is kept. All of it but ``seed`` is fixed by the version.

    Attributes:
        seed: of every choice and every sign.
        whole_stream: width up to which all residual channels are kept.
        channels: of a wider stream, those on which units and rows are kept.
        ffns: FFNs and experts whose units are kept, spread evenly over the model.
        unit_values: values of kept units in all; units per FFN follow from it.
        units: at most so many per FFN, half by number, half by content.
        least_units: at least so many.
        angles: units by number whose inner products among each other are kept.
        head_channels: channels between which a head's two products are kept.
        tokens: rows of each token table, about.
        rows: rows of every other matrix.
        sketches: numbers of all linear sketches; of more matrices fewer buckets each are kept.
    """

    seed: int = 0
    whole_stream: int = 256
    channels: int = 128
    ffns: int = 1024
    unit_values: int = 24_000_000
    units: int = 192
    least_units: int = 16
    angles: int = 128
    head_channels: int = 40
    tokens: int = 512
    rows: int = 64
    sketches: int = 1 << 22

    def to_dict(self) -> dict[str, int]:
        """The fields, and the version."""
        return {"version": VERSION, **asdict(self)}

    def stream_channels(self, width: int) -> Indices:
        """The channels that are kept of a stream."""
        most = self.whole_stream if width <= self.whole_stream else self.channels
        return pick(width, most, self.seed, f"fingerprint channels {width}", _RUN)

    def between(self, width: int) -> Indices:
        """The channels between which heads are kept."""
        return pick(width, self.head_channels, self.seed, f"fingerprint heads {width}", _RUN)

    def numbered(self, n: int, want: int) -> Indices:
        """Units or rows that are kept for their numbers."""
        return pick(n, want, self.seed, f"fingerprint numbers {n}", _RUN)

    def token_rows(self, n: int) -> Indices:
        """Rows of a token table: the same ones in tables of about the same length, as far as both go."""
        whole = 1 << max(0, n - 1).bit_length()
        rows = pick(whole, self.tokens, self.seed, f"fingerprint tokens {whole}", _RUN)
        return rows[rows < n]

    def chosen_ffns(self, found: Sequence[Ffn]) -> list[Ffn]:
        """The FFNs whose units are kept."""
        return evenly(found, self.ffns)

    def units_each(self, found: Sequence[Ffn]) -> int:
        """Units of each of these FFNs."""
        values = sum(3 * self.stream_channels(f.width).size for f in found)
        return max(self.least_units, min(self.units, self.unit_values // max(values, 1)))

    def buckets(self, matrices: int) -> int:
        """Buckets that are kept of each of so many sketches: a divisor of 256, since buckets may be added up."""
        buckets = BUCKETS
        while buckets > 16 and matrices * buckets > self.sketches:
            buckets //= 2
        return buckets


def sketch_key(seed: int, name: str, place: Place | None) -> int:
    """What fixes the signs of a matrix' linear sketch: the seed and its role, block and expert (or its name)."""
    where = name if place is None else f"{place.stack} {place.block} {place.role} {place.expert}"
    return int.from_bytes(hashlib.blake2b(f"{seed} {where}".encode(), digest_size=8).digest(), "little")


def folded(sketch: F64, buckets: int) -> F64:
    """A sketch with fewer buckets: those that agree modulo the new number added up, (…, 256) → (…, buckets)."""
    found: F64 = sketch.reshape(*sketch.shape[:-1], sketch.shape[-1] // buckets, buckets).sum(axis=-2)
    return found
