//! The 32 lanes in four 256-bit registers per sum. 20 sums do not fit 16 registers, so two passes over bytes that
//! stay in L1 take 16 lanes each, and a third takes the maxima.

use std::arch::x86_64::*;

use super::lanes::{Bits, Kind, LANES, Lanes, Narrow, Pivot, SWEEP_BYTES, Sums, finish};

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

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn prefetch(bytes: &[u8]) {
    _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().wrapping_add(AHEAD).cast());
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

/// Where the two registers of half `h` of a group belong in an array of 32 lanes.
fn places<K: Narrow>(h: usize) -> [usize; 2] {
    if K::KIND == Kind::Bf16 { [8 * h, 16 + 8 * h] } else { [16 * h, 16 * h + 8] }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn half<K: Narrow, const PLAIN: bool>(vectors: &[[u8; 32]], h: usize, pivot: Pivot, lanes: &mut Lanes) {
    let mut acc = [[_mm256_setzero_ps(); 2]; 5];
    let (scale, shift) = (_mm256_set1_ps(pivot.scale), _mm256_set1_ps(pivot.shift));
    let sign = _mm256_set1_ps(-0.0);
    let per_half = K::GROUP / 64;
    for group in vectors.chunks_exact(2 * per_half) {
        // One of the two passes fetches what comes next, so that the maxima, which come first, find it in L1 or L2.
        if h == 0 {
            group.chunks_exact(2).for_each(|line| prefetch(&line[0]));
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
    for (to, from) in lanes.0.iter_mut().zip(acc) {
        for (at, v) in places::<K>(h).into_iter().zip(from) {
            // SAFETY: `at` is at most 24, so 8 floats fit in the array of 32.
            unsafe { _mm256_storeu_ps(to.as_mut_ptr().add(at), v) }
        }
    }
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

/// See [`super::lanes::sweep`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn sweep<K: Narrow>(bytes: &[u8], pivot: Pivot, bits: &mut Bits) -> Sums {
    let (whole, tail) = bytes.split_at(bytes.len() / K::GROUP * K::GROUP);
    let (vectors, _) = whole.as_chunks::<32>();
    let mut lanes = Lanes::ZERO;
    tops::<K>(vectors, bits);
    for h in 0..2 {
        if pivot == Pivot::NONE {
            half::<K, true>(vectors, h, pivot, &mut lanes);
        } else {
            half::<K, false>(vectors, h, pivot, &mut lanes);
        }
    }
    if tail.is_empty() {
        return Sums(lanes.0.map(|l| reduce(l)));
    }
    finish::<K, true>(lanes, tail, pivot, bits)
}

/// [`Lanes::reduce`] of one sum: the same additions in the same order.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn reduce(l: [f32; LANES]) -> f64 {
    let (quads, _) = l.as_chunks::<4>();
    // SAFETY: four floats are 16 readable bytes; the load needs no alignment.
    let quad = |i: usize| unsafe { _mm_loadu_ps(quads[i].as_ptr()) };
    let half = |i: usize| _mm256_cvtps_pd(_mm_add_ps(quad(i), quad(i + 4)));
    let four = |i: usize| _mm256_add_pd(half(i), half(i + 2));
    // pair(0), pair(4), pair(2), pair(6)
    let pairs = _mm256_hadd_pd(four(0), four(1));
    let t = _mm_hadd_pd(_mm256_castpd256_pd128(pairs), _mm256_extractf128_pd::<1>(pairs));
    _mm_cvtsd_f64(_mm_hadd_pd(t, t))
}
