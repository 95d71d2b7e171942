//! Decoders with AVX2 and AVX-512: table look-ups in registers, transposition in registers, fp8 through half precision.

use std::arch::x86_64::*;
use std::sync::OnceLock;

use super::block::{DecodeBlock, Lanes, SIDE, Square};
use super::grid::Affine;
use super::lookup::{Look, Table, look_up};
use crate::dtype::Dtype;
use crate::kernels::prefetch;

/// Whether the machine has permutations of bytes besides the rest of AVX-512.
pub(super) fn has_vbmi() -> bool {
    is_x86_feature_detected!("avx512vbmi")
}

/// How far ahead to prefetch, in bytes. Decoding stores four to eight times what it loads, so that the machine's own
/// window of loads in flight is too short for memory.
const AHEAD: usize = 512;

/// Bit positions of the eight nibbles of a byte-ordered word: low half first, high half first.
const SHIFTS: [[i32; 8]; 2] = [[0, 4, 8, 12, 16, 20, 24, 28], [4, 0, 12, 8, 20, 16, 28, 24]];

/// Look-ups with AVX-512: the table is one register.
pub(super) struct V4;

impl Look for V4 {
    type Table = __m512;
    #[inline(always)]
    fn fetch_ahead(codes: &[u8]) {
        prefetch(codes.as_ptr().wrapping_add(AHEAD));
    }
    #[inline(always)]
    fn table(numbers: &Table, a: Affine) -> __m512 {
        // SAFETY: 64 readable bytes; only functions with AVX-512 use this type.
        unsafe {
            let centred = _mm512_sub_ps(_mm512_loadu_ps(numbers.as_ptr()), _mm512_set1_ps(a.zero));
            _mm512_mul_ps(centred, _mm512_set1_ps(a.scale))
        }
    }
    #[inline(always)]
    fn bytes<const HIGH: bool>(table: __m512, codes: &[u8; 8], out: &mut [f32; 16]) {
        // SAFETY: 8 readable and 64 writable bytes; only functions with AVX-512 use this type.
        unsafe {
            let s = SHIFTS[HIGH as usize];
            let shifts = _mm512_broadcast_i64x4(_mm256_loadu_si256(s.as_ptr().cast()));
            let halves = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
            let both = _mm512_castsi128_si512(_mm_loadl_epi64(codes.as_ptr().cast()));
            let index = _mm512_srlv_epi32(_mm512_permutexvar_epi32(halves, both), shifts);
            // The permutation looks at the four low bits of each lane only.
            _mm512_storeu_ps(out.as_mut_ptr(), _mm512_permutexvar_ps(index, table));
        }
    }
    #[inline(always)]
    fn words(table: __m512, words: &[[u8; 4]; 16], shift: u32, out: &mut [f32; 16]) {
        // SAFETY: 64 readable and 64 writable bytes; only functions with AVX-512 use this type.
        unsafe {
            let w = _mm512_loadu_si512(words.as_ptr().cast());
            let index = _mm512_srl_epi32(w, _mm_cvtsi32_si128(shift.cast_signed()));
            _mm512_storeu_ps(out.as_mut_ptr(), _mm512_permutexvar_ps(index, table));
        }
    }
}

/// Look-ups with AVX2: the table is two registers, chosen by the code's top bit.
pub(super) struct V3;

impl V3 {
    /// # Safety
    /// The caller has AVX2.
    #[inline(always)]
    unsafe fn look(table: (__m256, __m256), index: __m256i) -> __m256 {
        // SAFETY: the caller has AVX2.
        unsafe {
            let low = _mm256_permutevar8x32_ps(table.0, index);
            let high = _mm256_permutevar8x32_ps(table.1, index);
            // The blend looks at the sign: the code's bit 3.
            _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32::<28>(index)))
        }
    }
}

impl Look for V3 {
    type Table = (__m256, __m256);
    #[inline(always)]
    fn fetch_ahead(codes: &[u8]) {
        prefetch(codes.as_ptr().wrapping_add(AHEAD));
    }
    #[inline(always)]
    fn table(numbers: &Table, a: Affine) -> Self::Table {
        let half = |numbers: &[f32]| {
            // SAFETY: 32 readable bytes in each half; only functions with AVX2 use this type.
            unsafe {
                let centred = _mm256_sub_ps(_mm256_loadu_ps(numbers.as_ptr()), _mm256_set1_ps(a.zero));
                _mm256_mul_ps(centred, _mm256_set1_ps(a.scale))
            }
        };
        (half(&numbers[..8]), half(&numbers[8..]))
    }
    #[inline(always)]
    fn bytes<const HIGH: bool>(table: Self::Table, codes: &[u8; 8], out: &mut [f32; 16]) {
        let (words, (halves, _)) = (codes.as_chunks::<4>().0, out.as_chunks_mut::<8>());
        for (half, word) in halves.iter_mut().zip(words) {
            // SAFETY: 32 readable and 32 writable bytes; only functions with AVX2 use this type.
            unsafe {
                let shifts = _mm256_loadu_si256(SHIFTS[HIGH as usize].as_ptr().cast());
                let index = _mm256_srlv_epi32(_mm256_set1_epi32(i32::from_le_bytes(*word)), shifts);
                _mm256_storeu_ps(half.as_mut_ptr(), Self::look(table, index));
            }
        }
    }
    #[inline(always)]
    fn words(table: Self::Table, words: &[[u8; 4]; 16], shift: u32, out: &mut [f32; 16]) {
        let (words, (halves, _)) = (words.as_chunks::<8>().0, out.as_chunks_mut::<8>());
        for (half, words) in halves.iter_mut().zip(words) {
            // SAFETY: 32 readable and 32 writable bytes; only functions with AVX2 use this type.
            unsafe {
                let w = _mm256_loadu_si256(words.as_ptr().cast());
                let index = _mm256_srl_epi32(w, _mm_cvtsi32_si128(shift.cast_signed()));
                _mm256_storeu_ps(half.as_mut_ptr(), Self::look(table, index));
            }
        }
    }
}

impl DecodeBlock for V4 {
    const ROWS: usize = SIDE;
    #[inline(always)]
    fn block<const PER: usize, const SIGNED: bool>(square: Square<'_>, _: usize, out: &mut [f32], stride: usize) {
        // SAFETY: only functions with AVX-512 use this type.
        unsafe { block_v4::<PER, SIGNED>(square, out, stride) }
    }
}

/// What a block's loads and stores stay within.
#[inline(always)]
fn check_block<const PER: usize>(square: Square<'_>, out: &[f32], stride: usize) {
    assert!(stride >= SIDE && out.len() >= (SIDE - 1) * stride + SIDE);
    assert!(square.words.len() >= (SIDE / PER - 1) * square.stride + SIDE);
}

/// Values are computed input by input, 16 outputs each, and transposed before they leave the registers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn block_v4<const PER: usize, const SIGNED: bool>(square: Square<'_>, out: &mut [f32], stride: usize) {
    check_block::<PER>(square, out, stride);
    let bits = 32 / PER;
    let down = _mm_cvtsi32_si128(32 - bits as i32);
    let input = |j: usize| {
        let [scales, zeros] = &square.lanes[square.groups[j] as usize];
        let above = _mm_cvtsi32_si128((32 - bits * (j % PER + 1)) as i32);
        // SAFETY: 64 readable bytes each; the words were checked to hold 16 of the last row.
        let (words, scales, zeros) = unsafe {
            let words = square.words.as_ptr().add(j / PER * square.stride);
            (_mm512_loadu_si512(words.cast()), _mm512_loadu_ps(scales.as_ptr()), _mm512_loadu_ps(zeros.as_ptr()))
        };
        let top = _mm512_sll_epi32(words, above);
        let number = if SIGNED { _mm512_sra_epi32(top, down) } else { _mm512_srl_epi32(top, down) };
        _mm512_mul_ps(_mm512_sub_ps(_mm512_cvtepi32_ps(number), zeros), scales)
    };
    // 4 × 4 transposed in each quarter: four inputs of the outputs k, 4 + k, 8 + k and 12 + k, for k below 4.
    let quarter = |j: usize| {
        let (a, b, c, d) = (input(j), input(j + 1), input(j + 2), input(j + 3));
        let (low, high) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
        let (lower, higher) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
        [
            _mm512_shuffle_ps::<0x44>(low, lower),
            _mm512_shuffle_ps::<0xee>(low, lower),
            _mm512_shuffle_ps::<0x44>(high, higher),
            _mm512_shuffle_ps::<0xee>(high, higher),
        ]
    };
    let (a, b, c, d) = (quarter(0), quarter(4), quarter(8), quarter(12));
    for k in 0..4 {
        // Quarters 0 and 2, and 1 and 3, of two; then every other one of those.
        let (ab, cd) = (_mm512_shuffle_f32x4::<0x88>(a[k], b[k]), _mm512_shuffle_f32x4::<0x88>(c[k], d[k]));
        let (ba, dc) = (_mm512_shuffle_f32x4::<0xdd>(a[k], b[k]), _mm512_shuffle_f32x4::<0xdd>(c[k], d[k]));
        let rows = [
            _mm512_shuffle_f32x4::<0x88>(ab, cd),
            _mm512_shuffle_f32x4::<0x88>(ba, dc),
            _mm512_shuffle_f32x4::<0xdd>(ab, cd),
            _mm512_shuffle_f32x4::<0xdd>(ba, dc),
        ];
        for (quarter, row) in rows.into_iter().enumerate() {
            // SAFETY: 64 writable bytes, since row 15 ends within the output.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr().add((4 * quarter + k) * stride), row) };
        }
    }
}

impl DecodeBlock for V3 {
    const ROWS: usize = SIDE / 2;
    #[inline(always)]
    fn block<const PER: usize, const SIGNED: bool>(square: Square<'_>, part: usize, out: &mut [f32], stride: usize) {
        // SAFETY: only functions with AVX2 use this type.
        unsafe { half_block_v3::<PER, SIGNED>(square, part, out, stride) }
    }
}

/// Eight outputs from output `part` on, in quarters of eight inputs: a cache line of each is whole before the next.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn half_block_v3<const PER: usize, const SIGNED: bool>(
    square: Square<'_>,
    part: usize,
    out: &mut [f32],
    stride: usize,
) {
    check_block::<PER>(square, out, stride);
    assert!(part <= SIDE / 2);
    let lanes: [&Lanes; SIDE] = std::array::from_fn(|j| &square.lanes[square.groups[j] as usize]);
    // SAFETY: this function has AVX2, and the block and the part were checked.
    unsafe {
        quarter_v3::<PER, SIGNED, 0>(square, &lanes, part, out, stride);
        quarter_v3::<PER, SIGNED, 8>(square, &lanes, part, out, stride);
    }
}

/// Eight outputs from output `i` on, and eight inputs from input `J` on. A function with constants and no closures of
/// arrays: those are not always inlined, and then pass everything through memory, which takes twice as long.
///
/// # Safety
/// The caller has AVX2, `check_block` held, and `i` is at most 8.
#[inline(always)]
unsafe fn quarter_v3<const PER: usize, const SIGNED: bool, const J: usize>(
    square: Square<'_>,
    lanes: &[&Lanes; SIDE],
    i: usize,
    out: &mut [f32],
    stride: usize,
) {
    let bits = 32 / PER;
    // SAFETY: 32 readable bytes of each row of words, scales and zero points, and 32 writable ones of each output.
    unsafe {
        let down = _mm_cvtsi32_si128(32 - bits as i32);
        let input = |k: usize| {
            let [scales, zeros] = lanes[J + k];
            let above = _mm_cvtsi32_si128((32 - bits * ((J + k) % PER + 1)) as i32);
            let words = _mm256_loadu_si256(square.words.as_ptr().add((J + k) / PER * square.stride + i).cast());
            let top = _mm256_sll_epi32(words, above);
            let number = if SIGNED { _mm256_sra_epi32(top, down) } else { _mm256_srl_epi32(top, down) };
            let centred = _mm256_sub_ps(_mm256_cvtepi32_ps(number), _mm256_loadu_ps(zeros.as_ptr().add(i)));
            _mm256_mul_ps(centred, _mm256_loadu_ps(scales.as_ptr().add(i)))
        };
        let x = [input(0), input(1), input(2), input(3), input(4), input(5), input(6), input(7)];
        for (k, row) in transpose_v3(x).into_iter().enumerate() {
            _mm256_storeu_ps(out.as_mut_ptr().add((i + k) * stride + J), row);
        }
    }
}

/// Eight rows of eight, transposed.
///
/// # Safety
/// The caller has AVX2.
#[inline(always)]
unsafe fn transpose_v3(x: [__m256; 8]) -> [__m256; 8] {
    // SAFETY: the caller has AVX2.
    unsafe {
        // 4 × 4 transposed in each half: four inputs of the outputs k and 4 + k, for k below 4.
        let mut halves = x;
        for k in [0, 4] {
            let (low, high) = (_mm256_unpacklo_ps(x[k], x[k + 1]), _mm256_unpackhi_ps(x[k], x[k + 1]));
            let (lower, higher) = (_mm256_unpacklo_ps(x[k + 2], x[k + 3]), _mm256_unpackhi_ps(x[k + 2], x[k + 3]));
            halves[k] = _mm256_shuffle_ps::<0x44>(low, lower);
            halves[k + 1] = _mm256_shuffle_ps::<0xee>(low, lower);
            halves[k + 2] = _mm256_shuffle_ps::<0x44>(high, higher);
            halves[k + 3] = _mm256_shuffle_ps::<0xee>(high, higher);
        }
        let mut out = x;
        for k in 0..4 {
            out[k] = _mm256_permute2f128_ps::<0x20>(halves[k], halves[k + 4]);
            out[k + 4] = _mm256_permute2f128_ps::<0x31>(halves[k], halves[k + 4]);
        }
        out
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn affine_v3<const PLAIN: bool>(x: __m256, a: Affine) -> __m256 {
    let y = _mm256_mul_ps(if PLAIN { x } else { _mm256_sub_ps(x, _mm256_set1_ps(a.zero)) }, _mm256_set1_ps(a.scale));
    if PLAIN { y } else { _mm256_mul_ps(y, _mm256_set1_ps(a.factor)) }
}

/// Codes of E5M2, which are the top bytes of half-precision floats.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn e5m2_v3<const PLAIN: bool>(values: &[f32; 256], codes: &[u8], a: Affine, out: &mut [f32]) {
    halves_v3::<PLAIN>(codes, a, out, values, |c| _mm256_slli_epi16::<8>(c), |x| x);
}

/// Codes of E4M3: as half-precision floats their exponents are 8 too small, and 0x7f must be made a NaN.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn e4m3_v3<const PLAIN: bool>(values: &[f32; 256], codes: &[u8], a: Affine, out: &mut [f32]) {
    let bits = |c: __m256i| {
        // The sign moves to bit 15, the other seven bits to 13..7.
        let magnitude = _mm256_slli_epi16::<7>(_mm256_and_si256(c, _mm256_set1_epi16(0x7f)));
        let sign = _mm256_slli_epi16::<8>(_mm256_and_si256(c, _mm256_set1_epi16(0x80)));
        let nan = _mm256_cmpeq_epi16(magnitude, _mm256_set1_epi16(0x3f80));
        let nan = _mm256_and_si256(nan, _mm256_set1_epi16(0x7e00));
        _mm256_or_si256(_mm256_or_si256(magnitude, sign), nan)
    };
    // Exact: the largest value is 448.
    halves_v3::<PLAIN>(codes, a, out, values, bits, |x| _mm256_mul_ps(x, _mm256_set1_ps(256.0)));
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn halves_v3<const PLAIN: bool>(
    codes: &[u8],
    a: Affine,
    out: &mut [f32],
    values: &[f32; 256],
    bits: impl Fn(__m256i) -> __m256i,
    finish: impl Fn(__m256) -> __m256,
) {
    let (groups, tail) = out.as_chunks_mut::<16>();
    let (words, rest) = codes.as_chunks::<16>();
    for (o, c) in groups.iter_mut().zip(words) {
        prefetch(c.as_ptr().wrapping_add(AHEAD));
        // SAFETY: 16 readable and 64 writable bytes.
        unsafe {
            let half = bits(_mm256_cvtepu8_epi16(_mm_loadu_si128(c.as_ptr().cast())));
            let low = finish(_mm256_cvtph_ps(_mm256_castsi256_si128(half)));
            let high = finish(_mm256_cvtph_ps(_mm256_extracti128_si256::<1>(half)));
            _mm256_storeu_ps(o.as_mut_ptr(), affine_v3::<PLAIN>(low, a));
            _mm256_storeu_ps(o[8..].as_mut_ptr(), affine_v3::<PLAIN>(high, a));
        }
    }
    look_up::<PLAIN>(values, rest, a, tail);
}

/// Bytes 2 and 3 of the f32 of each code: tables that permutations of bytes look up.
pub(super) struct ByteTables([[[u8; 64]; 4]; 2]);

impl ByteTables {
    /// Of the values of `dtype`, whose f32 have nothing in their bottom halves. Made once.
    pub fn of(dtype: Dtype, values: &[f32; 256]) -> &'static Self {
        static TABLES: [OnceLock<ByteTables>; 22] = [const { OnceLock::new() }; 22];
        TABLES[dtype as usize].get_or_init(|| {
            let mut bytes = [[[0u8; 64]; 4]; 2];
            for (code, v) in values.iter().enumerate() {
                let [.., low, high] = v.to_bits().to_le_bytes();
                bytes[0][code / 64][code % 64] = low;
                bytes[1][code / 64][code % 64] = high;
            }
            Self(bytes)
        })
    }
}

impl ByteTables {
    /// In registers.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx2,fma,f16c")]
    pub fn load(&self) -> [[__m512i; 4]; 2] {
        // SAFETY: 64 readable bytes each.
        self.0.map(|table| table.map(|part| unsafe { _mm512_loadu_si512(part.as_ptr().cast()) }))
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx2,fma,f16c")]
fn look_bytes(table: &[__m512i; 4], codes: __m512i, top: __mmask64) -> __m512i {
    let below = _mm512_permutex2var_epi8(table[0], codes, table[1]);
    let above = _mm512_permutex2var_epi8(table[2], codes, table[3]);
    _mm512_mask_blend_epi8(top, below, above)
}

/// Codes of any type whose values `tables` holds; `values` are the same, for those that fill no register.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx2,fma,f16c")]
pub(super) fn bytes_v4<const PLAIN: bool>(
    [lows, highs]: [[__m512i; 4]; 2],
    values: &[f32; 256],
    codes: &[u8],
    a: Affine,
    out: &mut [f32],
) {
    // Unpacking works in quarters of a register; the codes are put so that what comes out is in order.
    let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    let (zero, scale, factor) = (_mm512_set1_ps(a.zero), _mm512_set1_ps(a.scale), _mm512_set1_ps(a.factor));
    let none = _mm512_setzero_si512();
    let (groups, tail) = out.as_chunks_mut::<64>();
    let (words, rest) = codes.as_chunks::<64>();
    for (o, c) in groups.iter_mut().zip(words) {
        prefetch(c.as_ptr().wrapping_add(AHEAD));
        // SAFETY: 64 readable bytes.
        let c = _mm512_permutexvar_epi32(order, unsafe { _mm512_loadu_si512(c.as_ptr().cast()) });
        let top = _mm512_movepi8_mask(c);
        let (low, high) = (look_bytes(&lows, c, top), look_bytes(&highs, c, top));
        let (front, back) = (_mm512_unpacklo_epi8(low, high), _mm512_unpackhi_epi8(low, high));
        let x = [
            _mm512_unpacklo_epi16(none, front),
            _mm512_unpackhi_epi16(none, front),
            _mm512_unpacklo_epi16(none, back),
            _mm512_unpackhi_epi16(none, back),
        ];
        for (o, x) in o.as_chunks_mut::<16>().0.iter_mut().zip(x) {
            let x = _mm512_castsi512_ps(x);
            let y = if PLAIN {
                _mm512_mul_ps(x, scale)
            } else {
                _mm512_mul_ps(_mm512_mul_ps(_mm512_sub_ps(x, zero), scale), factor)
            };
            // SAFETY: 64 writable bytes.
            unsafe { _mm512_storeu_ps(o.as_mut_ptr(), y) };
        }
    }
    look_up::<PLAIN>(values, rest, a, tail);
}
