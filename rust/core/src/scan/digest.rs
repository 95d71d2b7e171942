//! The content digest of a tensor: BLAKE3 of its raw bytes, whatever the order in which they were read.
//!
//! BLAKE3 is a binary tree over 1 KiB chunks in which every left subtree holds the largest power of two of chunks that
//! leaves something for the right one (BLAKE3 paper, section 2.1). A work unit covers whole *leaves* of 8 MiB = 2^13
//! chunks, so each leaf is a complete subtree, can be hashed by any thread, and only the 32-byte chaining values meet
//! at the end. The result is the plain BLAKE3 digest: anyone can check it with `b3sum` on the same bytes.

use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use blake3::{Hash, Hasher};

/// Bytes per leaf. Units start at multiples of it.
pub const LEAF: u64 = 8 << 20;

/// What one unit adds to the digest of its tensor.
pub enum Piece {
    /// The tensor fits in one leaf: this is its digest.
    Whole(Hash),
    /// The chaining values of the unit's leaves, in order.
    Leaves(Vec<ChainingValue>),
}

/// Hashes the bytes of one unit as they come.
pub struct UnitHasher {
    hasher: Hasher,
    /// Where in the tensor the next byte lies.
    position: u64,
    tensor_bytes: u64,
    leaves: Vec<ChainingValue>,
}

impl UnitHasher {
    /// For the unit that starts at byte `start` (a multiple of [`LEAF`]) of a tensor of `tensor_bytes`.
    pub fn new(start: u64, tensor_bytes: u64) -> Self {
        debug_assert!(start.is_multiple_of(LEAF));
        Self { hasher: leaf_hasher(start), position: start, tensor_bytes, leaves: Vec::new() }
    }

    /// Add the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = (LEAF - self.position % LEAF) as usize;
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.hasher.update(now);
            self.position += now.len() as u64;
            if self.position.is_multiple_of(LEAF) && self.position < self.tensor_bytes {
                self.leaves.push(self.hasher.finalize_non_root());
                self.hasher = leaf_hasher(self.position);
            }
            bytes = later;
        }
    }

    /// The unit is read: what it adds.
    pub fn finish(mut self) -> Piece {
        if self.tensor_bytes <= LEAF {
            return Piece::Whole(self.hasher.finalize());
        }
        // A unit that ended in the middle of the tensor has closed its last leaf already.
        if self.position == self.tensor_bytes {
            self.leaves.push(self.hasher.finalize_non_root());
        }
        Piece::Leaves(self.leaves)
    }
}

fn leaf_hasher(start: u64) -> Hasher {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(start);
    hasher
}

/// The digest of a tensor from its pieces in unit order; an empty tensor has none and gets the digest of no bytes.
pub fn join(pieces: impl Iterator<Item = Piece>) -> Hash {
    let mut leaves = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Whole(hash) => return hash,
            Piece::Leaves(values) => leaves.extend(values),
        }
    }
    match leaves.len() {
        0 => blake3::hash(b""),
        n => {
            let (left, right) = leaves.split_at(left_len(n));
            merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash)
        }
    }
}

fn subtree(leaves: &[ChainingValue]) -> ChainingValue {
    match leaves {
        [one] => *one,
        many => {
            let (left, right) = many.split_at(left_len(many.len()));
            merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
        }
    }
}

/// The largest power of two below `n` (n ≥ 2).
fn left_len(n: usize) -> usize {
    1 << (n - 1).ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However the tensor is cut into units and chunks, the digest is BLAKE3 of its bytes.
    #[test]
    fn equals_plain_blake3() {
        let bytes: Vec<u8> = (0..(5 * LEAF + 12_345)).map(|i| ((i * 2_654_435_761) >> 13) as u8).collect();
        for (len, unit_leaves) in
            [(0, 1), (1, 1), (LEAF - 1, 1), (LEAF, 1), (LEAF + 1, 1), (2 * LEAF, 1), (3 * LEAF, 1)].into_iter().chain([
                (5 * LEAF + 12_345, 1),
                (5 * LEAF + 12_345, 3),
                (4 * LEAF, 3),
            ])
        {
            let tensor = &bytes[..len as usize];
            let pieces = tensor.chunks((unit_leaves * LEAF) as usize).enumerate().map(|(i, unit)| {
                let mut hasher = UnitHasher::new(i as u64 * unit_leaves * LEAF, len);
                unit.chunks(393_216).for_each(|chunk| hasher.update(chunk));
                hasher.finish()
            });
            assert_eq!(join(pieces), blake3::hash(tensor), "{len} bytes in units of {unit_leaves} leaves");
        }
    }
}
