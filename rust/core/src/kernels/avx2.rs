//! Power sums and extremes with AVX2: the 32 lanes lie in four 256-bit registers per sum. 20 sums do not fit 16
//! registers, so two passes over bytes that stay in L1 take 16 lanes each, and a third takes the maxima.

use std::arch::x86_64::*;

use super::extremes::Bits;
use super::fetch::prefetch;
use super::lanes::{Kind, Lanes, Narrow, Piece, Pivot, SWEEP_BYTES, Sums, finish, parts};

/// How far ahead to prefetch, in bytes: what the next sweep reads, while this one sums.
const AHEAD: usize = SWEEP_BYTES;

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: 32 readable bytes; the load needs no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn store(bytes: &mut [u8; 64], v: __m256i) {
    // SAFETY: 32 of 64 writable bytes; the store needs no alignment.
    unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), v) }
}

/// 16 f32 from one vector of 16 words or two of 8.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn floats<K: Narrow>(v: &[[u8; 32]]) -> [__m256; 2] {
    let a = load(&v[0]);
    match K::KIND {
        Kind::F32 => [_mm256_castsi256_ps(a), _mm256_castsi256_ps(load(&v[1]))],
        Kind::Bf16 => [
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(a)),
            _mm256_castsi256_ps(_mm256_and_si256(a, _mm256_set1_epi32(0xffff_0000_u32.cast_signed()))),
        ],
        Kind::F16 => [_mm256_cvtph_ps(_mm256_castsi256_si128(a)), _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(a))],
    }
}

/// The sums of one half of the lanes: 16 of them in two registers each.
type Half = [[__m256; 2]; 5];

/// The first 16 elements of every group (`h` = 0) or the last.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn half<K: Narrow, const PLAIN: bool>(vectors: &[[u8; 32]], h: usize, pivot: Pivot) -> Half {
    let mut acc = [[_mm256_setzero_ps(); 2]; 5];
    let (scale, shift) = (_mm256_set1_ps(pivot.scale), _mm256_set1_ps(pivot.shift));
    let sign = _mm256_set1_ps(-0.0);
    let per_half = K::GROUP / 64;
    for group in vectors.chunks_exact(2 * per_half) {
        // One of the two passes fetches what comes next, so that the maxima, which come first, find it in L1 or L2.
        if h == 0 {
            group.chunks_exact(2).for_each(|line| prefetch(line[0].as_ptr().wrapping_add(AHEAD)));
        }
        let x = floats::<K>(&group[h * per_half..(h + 1) * per_half]);
        for i in 0..2 {
            let z = if PLAIN { x[i] } else { _mm256_fmadd_ps(x[i], scale, shift) };
            let q = _mm256_mul_ps(z, z);
            acc[0][i] = _mm256_add_ps(acc[0][i], z);
            acc[1][i] = _mm256_add_ps(acc[1][i], q);
            acc[2][i] = _mm256_fmadd_ps(q, z, acc[2][i]);
            acc[3][i] = _mm256_fmadd_ps(q, q, acc[3][i]);
            acc[4][i] = _mm256_add_ps(acc[4][i], _mm256_andnot_ps(sign, x[i]));
        }
    }
    acc
}

/// Lanes 0, 8, 16 and 24 on of a sum.
fn eights<K: Narrow>(first: [__m256; 2], second: [__m256; 2]) -> [__m256; 4] {
    let ([a, b], [c, d]) = (first, second);
    if K::KIND == Kind::Bf16 { [a, c, b, d] } else { [a, b, c, d] }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn tops<K: Narrow>(vectors: &[[u8; 32]], bits: &mut Bits) {
    let low = |b: &[u8; 64]| load(b.first_chunk().expect("64 bytes hold 32"));
    let (mut smax, mut umax) = (low(&bits.smax), low(&bits.umax));
    for v in vectors {
        let v = load(v);
        if K::WORD == 2 {
            let v = _mm256_add_epi16(v, _mm256_set1_epi16(-1));
            smax = _mm256_max_epi16(smax, v);
            umax = _mm256_max_epu16(umax, v);
        } else {
            let v = _mm256_add_epi32(v, _mm256_set1_epi32(-1));
            smax = _mm256_max_epi32(smax, v);
            umax = _mm256_max_epu32(umax, v);
        }
    }
    store(&mut bits.smax, smax);
    store(&mut bits.umax, umax);
}

/// See [`super::sweep`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn sweep<K: Narrow>(bytes: &[u8], pieces: &mut [Piece], pivot: Pivot, bits: &mut Bits) {
    let (vectors, rest) = bytes.as_chunks::<32>();
    tops::<K>(vectors, bits);
    bits.add_rest::<K>(rest);
    if pivot == Pivot::NONE {
        sums::<K, true>(bytes, pieces, pivot);
    } else {
        sums::<K, false>(bytes, pieces, pivot);
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn sums<K: Narrow, const PLAIN: bool>(bytes: &[u8], pieces: &mut [Piece], pivot: Pivot) {
    for (part, sums) in parts::<K>(bytes, pieces) {
        let (whole, tail) = part.split_at(part.len() / K::GROUP * K::GROUP);
        let (vectors, _) = whole.as_chunks::<32>();
        let (first, second) = (half::<K, PLAIN>(vectors, 0, pivot), half::<K, PLAIN>(vectors, 1, pivot));
        *sums = if tail.is_empty() { reduce::<K>(first, second) } else { with_tail::<K>(first, second, tail, pivot) };
    }
}

/// The sums of a part that ends inside a group of 32.
#[target_feature(enable = "avx2,fma,f16c")]
fn with_tail<K: Narrow>(first: Half, second: Half, tail: &[u8], pivot: Pivot) -> Sums {
    let mut lanes = Lanes::ZERO;
    for (to, (first, second)) in lanes.0.iter_mut().zip(first.into_iter().zip(second)) {
        for (eight, v) in to.as_chunks_mut::<8>().0.iter_mut().zip(eights::<K>(first, second)) {
            // SAFETY: 8 floats are 32 writable bytes; the store needs no alignment.
            unsafe { _mm256_storeu_ps(eight.as_mut_ptr(), v) }
        }
    }
    finish::<K, true>(lanes, tail, pivot)
}

/// [`Lanes::reduce`] of all five sums without leaving the registers: the same additions in the same order.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn reduce<K: Narrow>(first: Half, second: Half) -> Sums {
    // half(j) + half(j + 8) for j in 0..4 and in 4..8.
    let fours = |k: usize| {
        let [a, b, c, d] = eights::<K>(first[k], second[k]);
        let (low, high) = (_mm256_add_ps(a, c), _mm256_add_ps(b, d));
        let wide = |v: __m128, w: __m128| _mm256_add_pd(_mm256_cvtps_pd(v), _mm256_cvtps_pd(w));
        [
            wide(_mm256_castps256_ps128(low), _mm256_castps256_ps128(high)),
            wide(_mm256_extractf128_ps::<1>(low), _mm256_extractf128_ps::<1>(high)),
        ]
    };
    // Neighbours added, two sums side by side: pair(0) and pair(2) of each, or pair(4) and pair(6).
    let pairs = |a, b| _mm256_add_pd(_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b));
    let two = |[a, c]: [__m256d; 2], [b, d]: [__m256d; 2]| {
        let t = _mm256_add_pd(pairs(a, b), pairs(c, d));
        _mm_add_pd(_mm256_castpd256_pd128(t), _mm256_extractf128_pd::<1>(t))
    };
    let fifth = fours(4);
    let mut out = [0.0; 5];
    for (to, v) in out.as_chunks_mut::<2>().0.iter_mut().zip([two(fours(0), fours(1)), two(fours(2), fours(3))]) {
        // SAFETY: two f64 are 16 writable bytes; the store needs no alignment.
        unsafe { _mm_storeu_pd(to.as_mut_ptr(), v) }
    }
    out[4] = _mm_cvtsd_f64(two(fifth, fifth));
    Sums(out)
}
