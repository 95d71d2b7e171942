//! Power sums of a block of f32, bf16 or f16 in 32 fixed lanes of f32, and the extremes of its raw bits.
//!
//! Element i of a block always belongs to one lane, a function of i mod 32, and every lane does, in this order,
//!
//! ```text
//! z = fma(x, scale, −pivot·scale);  q = z·z
//! S1 += z;  S2 += q;  S3 = fma(q, z, S3);  S4 = fma(q, q, S4);  A += |x|
//! ```
//!
//! so AVX-512 (2 registers per sum), AVX2 (4) and the loop below give the same bits; a target without FMA rounds q·z
//! and q·q once more. The lanes are added in one fixed order, once in f32, then in f64. `scale` is a power of two, so z
//! carries one rounding (u = 2^-24), and with b = elements / 32 additions per lane each sum is within (b + 6)·u of the sum
//! of its terms' magnitudes (Higham 2002, §4.2), in practice √b·u.
//!
//! Extremes come from three integer operations per vector. Floats are sign-magnitude: as *signed* words their maximum is
//! the largest value if one is positive, as *unsigned* words the most negative value if one is negative. Both maxima are
//! taken of v − 1, which wraps the zeros, and nothing else, to the largest word there is: +0 unsigned, −0 signed. So a
//! block that holds both signs and no zero, as weights do, is done; any other is surveyed in a second pass.
//! NaN and ±Inf need no test of their own: they make A non-finite, and the block is done again in f64 ([`super::wide`]).

use super::Isa;
use super::decode::{bf16_to_f32, f16_to_f32};
use super::wide::shells;

/// Lanes per sum.
pub(crate) const LANES: usize = 32;
/// Most bytes per sweep, half of L1: 8192 elements of 16 bits, so at most 256 additions per lane.
pub(crate) const SWEEP_BYTES: usize = 16 << 10;
/// Bytes per block: what is judged, searched and merged at once, so that a sweep's end costs little. It stays in L2.
pub(crate) const BLOCK_BYTES: usize = 4 * SWEEP_BYTES;

/// Whether scalar `mul_add` is one instruction in code compiled for the baseline.
pub(crate) const BASE_FMA: bool = cfg!(any(target_feature = "fma", target_arch = "aarch64"));

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

/// Running maxima of raw words less one, a vector each for signed and unsigned ones, and those of words that no vector
/// held. They outlive a sweep, so that many short rows cost one reduction.
#[repr(C, align(64))]
pub(crate) struct Bits {
    pub smax: [u8; 64],
    pub umax: [u8; 64],
    rest: Tops,
}

/// The two maxima, sign- or zero-extended from 16 bits where the words have 16.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tops {
    smax: i32,
    umax: u32,
}

/// What the words of a block say without decoding it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    /// The words of the smallest and the largest value; where there is a NaN, one of them is.
    pub min: u32,
    pub max: u32,
    /// How many words are ±0.
    pub zeros: u64,
}

impl Bits {
    /// The state before the first word.
    pub fn new<K: Narrow>() -> Self {
        let smax = if K::WORD == 2 { const { repeat([0, 0x80]) } } else { const { repeat([0, 0, 0, 0x80]) } };
        Self { smax, umax: [0; 64], rest: Tops::NONE }
    }

    /// Takes in words that no vector held.
    #[inline(always)]
    pub fn add_rest<K: Narrow>(&mut self, words: &[u8]) {
        for word in words.chunks_exact(K::WORD) {
            self.rest.add::<K>(K::bits(word));
        }
    }

    /// The extent of `block`, whose words these are the maxima of.
    pub fn extent<K: Narrow>(&self, isa: Isa, block: &[u8]) -> Extent {
        let tops = if K::WORD == 2 { tops_2(isa, self) } else { tops_4(isa, self) };
        match tops.extent(sign::<K>()) {
            Some(extent) => extent,
            None if K::WORD == 2 => survey_2(isa, block),
            None => survey_4(isa, block),
        }
    }
}

const fn repeat<const N: usize>(word: [u8; N]) -> [u8; 64] {
    let mut out = [0; 64];
    let mut i = 0;
    while i < 64 {
        out[i] = word[i % N];
        i += 1;
    }
    out
}

impl Tops {
    const NONE: Self = Self { smax: i32::MIN, umax: 0 };

    #[inline(always)]
    fn add<K: Narrow>(&mut self, bits: u32) {
        let one_less = bits.wrapping_sub(1);
        self.merge(if K::WORD == 2 {
            let word = one_less as u16;
            Self { smax: word.cast_signed().into(), umax: word.into() }
        } else {
            Self { smax: one_less.cast_signed(), umax: one_less }
        });
    }

    #[inline(always)]
    fn merge(&mut self, other: Self) {
        *self = Self { smax: self.smax.max(other.smax), umax: self.umax.max(other.umax) };
    }

    /// If there are words of both signs and no zero.
    fn extent(self, sign: u32) -> Option<Extent> {
        let zero = self.smax.cast_unsigned() == sign - 1 || self.umax == (sign | (sign - 1));
        let both = self.smax >= 0 && self.umax >= sign;
        (both && !zero).then(|| Extent { min: self.umax + 1, max: self.smax.cast_unsigned() + 1, zeros: 0 })
    }
}

impl Extent {
    /// The word of max |x|, sign cleared.
    pub fn magnitude(self, sign: u32) -> u32 {
        (self.min & (sign - 1)).max(self.max & (sign - 1))
    }
}

/// The sign bit of a word of `K`.
pub(crate) const fn sign<K: Narrow>() -> u32 {
    1 << (8 * K::WORD - 1)
}

/// The sums of each of `pieces` around `pivot`, which follow each other and make up `bytes`, at most [`SWEEP_BYTES`]; the
/// maxima of all words go into `bits`.
pub(crate) fn sweep<K: Narrow>(isa: Isa, bytes: &[u8], pieces: &mut [Piece], pivot: Pivot, bits: &mut Bits) {
    debug_assert!(pieces.iter().map(|piece| piece.len * K::WORD).sum::<usize>() == bytes.len());
    match isa.supported() {
        // SAFETY: `supported` returns only what the machine was seen to have.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { super::avx512::sweep::<K>(bytes, pieces, pivot, bits) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { super::avx2::sweep::<K>(bytes, pieces, pivot, bits) },
        _ => sweep_portable::<K>(bytes, pieces, pivot, bits),
    }
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

fn sweep_portable<K: Narrow>(bytes: &[u8], pieces: &mut [Piece], pivot: Pivot, bits: &mut Bits) {
    bits.rest.merge(if K::WORD == 2 { tops_of_2(bytes) } else { tops_of_4(bytes) });
    for (part, sums) in parts::<K>(bytes, pieces) {
        let mut lanes = Lanes::ZERO;
        let groups = part.chunks_exact(K::GROUP);
        let tail = groups.remainder();
        for group in groups {
            // Decoded to its lanes first: then the sums are plain loops over arrays, which every compiler vectorises.
            let x = K::load(group);
            for (lane, &x) in x.iter().enumerate() {
                lanes.add::<BASE_FMA>(lane, x, pivot);
            }
        }
        *sums = finish::<K, BASE_FMA>(lanes, tail, pivot);
    }
}

/// The elements after the last whole group of 32, then the reduction.
#[inline(always)]
pub(crate) fn finish<K: Narrow, const FMA: bool>(mut lanes: Lanes, tail: &[u8], pivot: Pivot) -> Sums {
    for (i, word) in tail.chunks_exact(K::WORD).enumerate() {
        lanes.add::<FMA>(K::lane(i), K::value(K::bits(word)), pivot);
    }
    lanes.reduce()
}

/// The first element whose magnitude's bits are `target`.
pub(crate) fn find_magnitude<K: Narrow>(isa: Isa, bytes: &[u8], target: u32) -> Option<u64> {
    if K::WORD == 2 { find_2(isa, bytes, target) } else { find_4(isa, bytes, target) }
}

shells!(tops_2, tops_2_v3, tops_2_v4, tops_body_2, (bits: &Bits) -> Tops);
shells!(tops_4, tops_4_v3, tops_4_v4, tops_body_4, (bits: &Bits) -> Tops);
shells!(survey_2, survey_2_v3, survey_2_v4, survey_body_2, (bytes: &[u8]) -> Extent);
shells!(survey_4, survey_4_v3, survey_4_v4, survey_body_4, (bytes: &[u8]) -> Extent);
shells!(find_2, find_2_v3, find_2_v4, find_body_2, (bytes: &[u8], target: u32) -> Option<u64>);
shells!(find_4, find_4_v3, find_4_v4, find_body_4, (bytes: &[u8], target: u32) -> Option<u64>);

macro_rules! searches {
    ($tops:ident, $tops_of:ident, $survey:ident, $find:ident, $word:ty, $signed:ty) => {
        #[inline(always)]
        fn $tops<const FMA: bool>(bits: &Bits) -> Tops {
            let word = |w: &[u8; size_of::<$word>()]| <$word>::from_le_bytes(*w);
            let smax = bits.smax.as_chunks().0.iter().map(|w| word(w).cast_signed()).fold(<$signed>::MIN, Ord::max);
            let umax = bits.umax.as_chunks().0.iter().map(word).fold(<$word>::MIN, Ord::max);
            let mut tops = bits.rest;
            tops.merge(Tops { smax: smax.into(), umax: umax.into() });
            tops
        }

        /// The maxima of the words in `bytes` less one.
        #[inline(always)]
        fn $tops_of(bytes: &[u8]) -> Tops {
            let (words, _) = bytes.as_chunks::<{ size_of::<$word>() }>();
            let (mut smax, mut umax) = (<$signed>::MIN, <$word>::MIN);
            for w in words {
                let w = <$word>::from_le_bytes(*w).wrapping_sub(1);
                (smax, umax) = (smax.max(w.cast_signed()), umax.max(w));
            }
            Tops { smax: smax.into(), umax: umax.into() }
        }

        /// The extent of the words in `bytes`, at most a block of them, whatever their signs.
        #[inline(always)]
        fn $survey<const FMA: bool>(bytes: &[u8]) -> Extent {
            let (words, _) = bytes.as_chunks::<{ size_of::<$word>() }>();
            let (mut smax, mut smin) = (<$signed>::MIN, <$signed>::MAX);
            let (mut umax, mut umin) = (<$word>::MIN, <$word>::MAX);
            // Counted in words, of which a block has at most 2^15, so that the lanes stay as narrow as the data.
            let mut zeros: $word = 0;
            for w in words {
                let u = <$word>::from_le_bytes(*w);
                let s = u.cast_signed();
                (smax, smin) = (smax.max(s), smin.min(s));
                (umax, umin) = (umax.max(u), umin.min(u));
                zeros += <$word>::from(u & (<$word>::MAX >> 1) == 0);
            }
            // Without a positive word the largest value is the negative one nearest zero, and so on.
            let max = if smax >= 0 { smax } else { smin }.cast_unsigned();
            let min = if umax > <$word>::MAX >> 1 { umax } else { umin };
            Extent { min: min.into(), max: max.into(), zeros: zeros.into() }
        }

        #[inline(always)]
        fn $find<const FMA: bool>(bytes: &[u8], target: u32) -> Option<u64> {
            let (words, _) = bytes.as_chunks::<{ size_of::<$word>() }>();
            let hit =
                |w: &[u8; size_of::<$word>()]| <$word>::from_le_bytes(*w) & (<$word>::MAX >> 1) == target as $word;
            for (i, group) in words.chunks(128).enumerate() {
                // No early exit inside a group: that is what lets it vectorise.
                if group.iter().fold(false, |any, w| any | hit(w)) {
                    return group.iter().position(hit).map(|j| (i * 128 + j) as u64);
                }
            }
            None
        }
    };
}
searches!(tops_body_2, tops_of_2, survey_body_2, find_body_2, u16, i16);
searches!(tops_body_4, tops_of_4, survey_body_4, find_body_4, u32, i32);
