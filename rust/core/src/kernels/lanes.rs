//! Power sums of a block of f32, bf16 or f16 in 32 fixed lanes of f32.
//!
//! Element i of a block always belongs to one lane, a function of i mod 32, and every lane does, in this order,
//!
//! ```text
//! z = fma(x, scale, −pivot·scale);  q = z·z
//! S1 += z;  S2 += q;  S3 = fma(q, z, S3);  S4 = fma(q, q, S4);  A += |x|
//! ```
//!
//! so AVX-512 (2 registers per sum), AVX2 (4) and the portable loop give the same bits; a target without FMA rounds q·z
//! and q·q once more. The lanes are added in one fixed order, once in f32, then in f64. `scale` is a power of two, so z
//! carries one rounding (u = 2^-24), and with b = elements / 32 additions per lane each sum is within (b + 6)·u of the
//! sum of its terms' magnitudes (Higham 2002, §4.2), in practice √b·u.

use super::decode::{bf16_to_f32, f16_to_f32};

/// Lanes per sum.
pub(crate) const LANES: usize = 32;
/// Most bytes per sweep, half of L1: 8192 elements of 16 bits, so at most 256 additions per lane.
pub(crate) const SWEEP_BYTES: usize = 16 << 10;
/// Bytes per block: what is judged, searched and merged at once, so that a sweep's end costs little. It stays in L2.
pub(crate) const BLOCK_BYTES: usize = 4 * SWEEP_BYTES;

/// The three float types whose blocks run in f32 lanes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    F32,
    Bf16,
    F16,
}

/// One of the three, as a type, so that the loops are compiled for each.
pub(crate) trait Narrow {
    const KIND: Kind;
    /// Bytes per element.
    const WORD: usize;
    /// Bytes of 32 elements.
    const GROUP: usize = Self::WORD * LANES;
    /// The word's bits, zero-extended.
    fn bits(word: &[u8]) -> u32;
    fn value(bits: u32) -> f32;
    /// The lane of element `i` of 32.
    #[inline(always)]
    fn lane(i: usize) -> usize {
        i
    }
    /// The values of a group of 32, by lane.
    #[inline(always)]
    fn load(group: &[u8]) -> [f32; LANES] {
        let mut x = [0.0; LANES];
        for (i, word) in group.chunks_exact(Self::WORD).enumerate() {
            x[Self::lane(i)] = Self::value(Self::bits(word));
        }
        x
    }
}

pub(crate) struct F32;
pub(crate) struct Bf16;
pub(crate) struct F16;

impl Narrow for F32 {
    const KIND: Kind = Kind::F32;
    const WORD: usize = 4;
    #[inline(always)]
    fn bits(w: &[u8]) -> u32 {
        u32::from_le_bytes([w[0], w[1], w[2], w[3]])
    }
    #[inline(always)]
    fn value(bits: u32) -> f32 {
        f32::from_bits(bits)
    }
}

impl Narrow for Bf16 {
    const KIND: Kind = Kind::Bf16;
    const WORD: usize = 2;
    #[inline(always)]
    fn bits(w: &[u8]) -> u32 {
        u32::from(u16::from_le_bytes([w[0], w[1]]))
    }
    #[inline(always)]
    fn value(bits: u32) -> f32 {
        bf16_to_f32(bits as u16)
    }
    /// Even elements first: a shift and a mask split a register of 16-bit words so, a permutation would cost more.
    #[inline(always)]
    fn lane(i: usize) -> usize {
        (i % 2) * 16 + i / 2
    }
    /// Pairs of words at once, so that compilers vectorise it.
    #[inline(always)]
    fn load(group: &[u8]) -> [f32; LANES] {
        let mut x = [0.0; LANES];
        let (even, odd) = x.split_at_mut(LANES / 2);
        for ((even, odd), pair) in even.iter_mut().zip(odd).zip(group.as_chunks::<4>().0) {
            let bits = u32::from_le_bytes(*pair);
            *even = f32::from_bits(bits << 16);
            *odd = f32::from_bits(bits & 0xffff_0000);
        }
        x
    }
}

impl Narrow for F16 {
    const KIND: Kind = Kind::F16;
    const WORD: usize = 2;
    #[inline(always)]
    fn bits(w: &[u8]) -> u32 {
        u32::from(u16::from_le_bytes([w[0], w[1]]))
    }
    #[inline(always)]
    fn value(bits: u32) -> f32 {
        f16_to_f32(bits as u16)
    }
}

/// What is subtracted and multiplied before powers are taken: z = x·scale + shift, scale a power of two.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Pivot {
    pub scale: f32,
    pub shift: f32,
}

impl Pivot {
    /// z = x, which most weights allow; the kernels then leave the operation out, with the same bits.
    pub const NONE: Self = Self { scale: 1.0, shift: 0.0 };
}

/// S1..S4 of z and the sum of |x|.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sums(pub [f64; 5]);

/// A run of at most [`SWEEP_BYTES`] in one row, that is reduced to its sums.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece {
    /// Elements.
    pub len: usize,
    pub sums: Sums,
}

impl Piece {
    /// Of `len` elements, not summed yet.
    pub fn new(len: usize) -> Self {
        Self { len, sums: Sums([0.0; 5]) }
    }
}

/// The lanes of the five sums, in the order of [`Sums`].
#[repr(C, align(64))]
pub(crate) struct Lanes(pub [[f32; LANES]; 5]);

impl Lanes {
    pub const ZERO: Self = Self([[0.0; LANES]; 5]);

    /// One element into its lane.
    #[inline(always)]
    pub fn add<const FMA: bool>(&mut self, lane: usize, x: f32, pivot: Pivot) {
        let s = &mut self.0;
        let z = fma::<FMA>(x, pivot.scale, pivot.shift);
        let q = z * z;
        s[0][lane] += z;
        s[1][lane] += q;
        s[2][lane] = fma::<FMA>(q, z, s[2][lane]);
        s[3][lane] = fma::<FMA>(q, q, s[3][lane]);
        s[4][lane] += x.abs();
    }

    /// The sum of each sum's lanes, in an order that vectors can follow: halves in f32, the rest in f64.
    #[inline(always)]
    pub fn reduce(&self) -> Sums {
        Sums(self.0.map(|l| {
            let half = |j: usize| f64::from(l[j] + l[j + 16]);
            let pair = |j: usize| (half(j) + half(j + 8)) + (half(j + 1) + half(j + 9));
            (pair(0) + pair(4)) + (pair(2) + pair(6))
        }))
    }
}

#[inline(always)]
fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// The pieces with their bytes.
#[inline(always)]
pub(crate) fn parts<'a, K: Narrow>(
    bytes: &'a [u8],
    pieces: &'a mut [Piece],
) -> impl Iterator<Item = (&'a [u8], &'a mut Sums)> {
    let mut left = bytes;
    pieces.iter_mut().map(move |piece| {
        let (part, rest) = left.split_at(piece.len * K::WORD);
        left = rest;
        (part, &mut piece.sums)
    })
}

/// The elements after the last whole group of 32, then the reduction.
#[inline(always)]
pub(crate) fn finish<K: Narrow, const FMA: bool>(mut lanes: Lanes, tail: &[u8], pivot: Pivot) -> Sums {
    for (i, word) in tail.chunks_exact(K::WORD).enumerate() {
        lanes.add::<FMA>(K::lane(i), K::value(K::bits(word)), pivot);
    }
    lanes.reduce()
}
