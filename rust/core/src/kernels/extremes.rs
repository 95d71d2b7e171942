//! Smallest and largest value and the zeros of a block of f32, bf16 or f16, from its raw words.
//!
//! They come from three integer operations per vector. Floats are sign-magnitude: as *signed* words their maximum is
//! the largest value if one is positive, as *unsigned* words the most negative value if one is negative. Both maxima
//! are taken of v − 1, which wraps the zeros, and nothing else, to the largest word there is: +0 unsigned, −0 signed.
//! So a block that holds both signs and no zero, as weights do, is done; any other is surveyed in a second pass.

use super::dispatch::{Isa, shells};
use super::lanes::Narrow;

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

    /// Takes in all of `bytes`, in plain loops.
    #[inline(always)]
    pub fn add_all<K: Narrow>(&mut self, bytes: &[u8]) {
        self.rest.merge(if K::WORD == 2 { tops_of_2(bytes) } else { tops_of_4(bytes) });
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
