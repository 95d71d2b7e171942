//! Power sums and extremes with AVX-512: the 32 lanes lie in two 512-bit registers per sum, the maxima of the words,
//! taken in the same pass, in two more.
//!
//! The whole loop is one load (two for f32), two conversions, 14 or 16 float and 3 integer operations per 32 elements
//! (6 for f32). With data in L2 the vector ports are what limits it: a Zen 4 does two such operations per cycle and
//! takes 9.6 cycles for the 19 of bf16, 11.1 for f16, whose conversions count for two each. Masked loads in place of
//! the mask of the odd words occupy the same ports and gained nothing. Data is prefetched, since the hardware stops at
//! page ends.

use std::arch::x86_64::*;
use std::hint::black_box;

use super::extremes::Bits;
use super::fetch::prefetch;
use super::lanes::{Kind, Lanes, Narrow, Piece, Pivot, Sums, finish, parts};

/// How far ahead to prefetch, in bytes.
const AHEAD: usize = 8192;

struct Acc([[__m512; 2]; 5]);

struct Words([__m512i; 2]);

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: 64 readable bytes; the load needs no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn store(bytes: &mut [u8; 64], v: __m512i) {
    // SAFETY: 64 writable bytes; the store needs no alignment.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), v) }
}

/// 32 f32 from 32 words: lanes 0..16 and 16..32 as [`Narrow::lane`] numbers them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn floats<K: Narrow>(bytes: &[u8; 64], a: __m512i, b: __m512i) -> [__m512; 2] {
    match K::KIND {
        Kind::F32 => [_mm512_castsi512_ps(a), _mm512_castsi512_ps(b)],
        Kind::Bf16 => [
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(a)),
            _mm512_castsi512_ps(_mm512_and_si512(a, _mm512_set1_epi32(0xffff_0000_u32.cast_signed()))),
        ],
        // From memory once more: from registers a conversion takes the shuffling port too, and so does the upper half.
        Kind::F16 => [0, 32].map(|at| {
            // SAFETY: 32 of 64 readable bytes; the load needs no alignment.
            _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(bytes.as_ptr().add(at).cast()) })
        }),
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn tops<K: Narrow>(w: &mut Words, v: __m512i) {
    let [smax, umax] = w.0;
    w.0 = if K::WORD == 2 {
        let v = _mm512_add_epi16(v, _mm512_set1_epi16(-1));
        [_mm512_max_epi16(smax, v), _mm512_max_epu16(umax, v)]
    } else {
        let v = _mm512_add_epi32(v, _mm512_set1_epi32(-1));
        [_mm512_max_epi32(smax, v), _mm512_max_epu32(umax, v)]
    };
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn step<const PLAIN: bool>(acc: &mut Acc, x: [__m512; 2], scale: __m512, shift: __m512, one: __m512) {
    for (h, &x) in x.iter().enumerate() {
        let s = &mut acc.0;
        let z = if PLAIN { x } else { _mm512_fmadd_ps(x, scale, shift) };
        let q = _mm512_mul_ps(z, z);
        s[0][h] = if h == 0 { _mm512_fmadd_ps(z, one, s[0][h]) } else { _mm512_add_ps(s[0][h], z) };
        s[1][h] = _mm512_add_ps(s[1][h], q);
        s[2][h] = _mm512_fmadd_ps(q, z, s[2][h]);
        s[3][h] = _mm512_fmadd_ps(q, q, s[3][h]);
        s[4][h] = _mm512_add_ps(s[4][h], _mm512_abs_ps(x));
    }
}

/// See [`super::sweep`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(crate) fn sweep<K: Narrow>(bytes: &[u8], pieces: &mut [Piece], pivot: Pivot, bits: &mut Bits) {
    if pivot == Pivot::NONE {
        sweep_around::<K, true>(bytes, pieces, pivot, bits);
    } else {
        sweep_around::<K, false>(bytes, pieces, pivot, bits);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn sweep_around<K: Narrow, const PLAIN: bool>(bytes: &[u8], pieces: &mut [Piece], pivot: Pivot, bits: &mut Bits) {
    let mut words = Words([load(&bits.smax), load(&bits.umax)]);
    let (scale, shift) = (_mm512_set1_ps(pivot.scale), _mm512_set1_ps(pivot.shift));
    // z·1 + S1 has the bits of S1 + z and may use the multipliers' ports, which have room: 3 % for bf16. Hidden from the
    // compiler, which would make it an addition again.
    let one = _mm512_set1_ps(black_box(1.0));
    for (part, sums) in parts::<K>(bytes, pieces) {
        let mut acc = Acc([[_mm512_setzero_ps(); 2]; 5]);
        let (vectors, _) = part.as_chunks::<64>();
        let per_group = K::GROUP / 64;
        for group in vectors.chunks_exact(per_group) {
            let a = load(&group[0]);
            prefetch(group[0].as_ptr().wrapping_add(AHEAD));
            tops::<K>(&mut words, a);
            let b = if per_group == 2 {
                let b = load(&group[1]);
                prefetch(group[1].as_ptr().wrapping_add(AHEAD));
                tops::<K>(&mut words, b);
                b
            } else {
                a
            };
            step::<PLAIN>(&mut acc, floats::<K>(&group[0], a, b), scale, shift, one);
        }
        let tail = &part[part.len() / K::GROUP * K::GROUP..];
        *sums = if tail.is_empty() {
            reduce(acc)
        } else {
            bits.add_rest::<K>(tail);
            with_tail::<K>(acc, tail, pivot)
        };
    }
    for (to, v) in [&mut bits.smax, &mut bits.umax].into_iter().zip(words.0) {
        store(to, v);
    }
}

/// The sums of a part that ends inside a group of 32.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn with_tail<K: Narrow>(acc: Acc, tail: &[u8], pivot: Pivot) -> Sums {
    let mut lanes = Lanes::ZERO;
    for (to, from) in lanes.0.iter_mut().zip(acc.0) {
        for (half, v) in to.as_chunks_mut::<16>().0.iter_mut().zip(from) {
            // SAFETY: 16 floats are 64 writable bytes; the store needs no alignment.
            unsafe { _mm512_storeu_ps(half.as_mut_ptr(), v) }
        }
    }
    finish::<K, true>(lanes, tail, pivot)
}

/// [`Lanes::reduce`] of all five sums without leaving the registers: the same additions in the same order.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn reduce(acc: Acc) -> Sums {
    // Eight per sum: half(j) + half(j + 8).
    let eights = acc.0.map(|[a, b]| {
        let half = _mm512_add_ps(a, b);
        let (low, high) = (_mm512_castps512_ps256(half), _mm512_extractf32x8_ps::<1>(half));
        _mm512_add_pd(_mm512_cvtps_pd(low), _mm512_cvtps_pd(high))
    });
    // Neighbours added, two sums side by side: pair(0), pair(2), pair(4), pair(6) of each.
    let pairs = |a, b| _mm512_add_pd(_mm512_unpacklo_pd(a, b), _mm512_unpackhi_pd(a, b));
    let (p, q, r) = (pairs(eights[0], eights[1]), pairs(eights[2], eights[3]), pairs(eights[4], eights[4]));
    // pair(0) + pair(4) and pair(2) + pair(6) of four sums, and of the fifth.
    let four = _mm512_add_pd(_mm512_shuffle_f64x2::<0b01_00_01_00>(p, q), _mm512_shuffle_f64x2::<0b11_10_11_10>(p, q));
    let (p, q) = (_mm512_castpd512_pd256(four), _mm512_extractf64x4_pd::<1>(four));
    let four = _mm256_add_pd(_mm256_permute2f128_pd::<0x20>(p, q), _mm256_permute2f128_pd::<0x31>(p, q));
    let fifth = _mm256_add_pd(_mm512_castpd512_pd256(r), _mm512_extractf64x4_pd::<1>(r));
    let fifth = _mm_add_pd(_mm256_castpd256_pd128(fifth), _mm256_extractf128_pd::<1>(fifth));
    let mut out = [0.0; 5];
    // SAFETY: five writable f64, of which four; the store needs no alignment.
    unsafe { _mm256_storeu_pd(out.as_mut_ptr(), four) };
    out[4] = _mm_cvtsd_f64(fifth);
    Sums(out)
}
