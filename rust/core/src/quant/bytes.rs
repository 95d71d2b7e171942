//! Kernels for codes of one byte (fp8, int8): the code's value, then its scale.
//!
//! With AVX-512 VBMI one loop serves every format: the top half of the value's f32 comes from two tables of 256 bytes,
//! which eight registers hold, and its bottom half is 0 for all of them (at most 8 significant bits). With AVX2, fp8
//! goes through half precision, whose exponent is as wide as E5M2's and wider than E4M3's; integers are converted.
//! Elsewhere, and for the FNUZ kinds under AVX2, a table of 256 floats in the first-level cache.

use super::grid::{Affine, Grid, Run};
use super::lookup::look_up;
#[cfg(target_arch = "x86_64")]
use super::x86;
use crate::dtype::Dtype;
use crate::kernels::{Isa, small_values};

/// One-byte codes in rows: where they lie, and where their values go.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a> {
    pub grid: &'a Grid<'a>,
    pub runs: &'a [Run],
    /// Row `i` begins at `i · stride + first`.
    pub codes: &'a [u8],
    pub stride: usize,
    pub first: usize,
    /// The output's row that the tile's first row is.
    pub first_row: usize,
    /// Row `i` of the tile goes to `out[i · out_stride + out_first..]`.
    pub out_stride: usize,
    pub out_first: usize,
}

/// Decodes `rows` rows of a tile of `dtype`, a type of 8 bits.
pub(super) fn decode(isa: Isa, dtype: Dtype, tile: Tile<'_>, rows: usize, out: &mut [f32]) {
    if tile.grid.is_plain() {
        dispatch::<true>(isa, dtype, tile, rows, out)
    } else {
        dispatch::<false>(isa, dtype, tile, rows, out)
    }
}

fn dispatch<const PLAIN: bool>(isa: Isa, dtype: Dtype, tile: Tile<'_>, rows: usize, out: &mut [f32]) {
    match isa.supported() {
        // SAFETY: `supported` returns only what the machine was seen to have; `has_vbmi` asked for the rest.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if x86::has_vbmi() => unsafe { decode_v4::<PLAIN>(dtype, tile, rows, out) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx2 => unsafe { decode_v3::<PLAIN>(dtype, tile, rows, out) },
        _ => portable::<PLAIN>(dtype, tile, rows, out),
    }
}

fn portable<const PLAIN: bool>(dtype: Dtype, tile: Tile<'_>, rows: usize, out: &mut [f32]) {
    let values = table(dtype);
    body(tile, rows, out, |codes, affine, out| look_up::<PLAIN>(values, codes, affine, out));
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn decode_v3<const PLAIN: bool>(dtype: Dtype, tile: Tile<'_>, rows: usize, out: &mut [f32]) {
    let values = table(dtype);
    match dtype {
        Dtype::I8 => body(tile, rows, out, |c, a, o| convert::<PLAIN>(c, a, o, |c| f32::from(c.cast_signed()))),
        Dtype::U8 => body(tile, rows, out, |c, a, o| convert::<PLAIN>(c, a, o, f32::from)),
        Dtype::F8E4M3 => body(tile, rows, out, |c, a, o| x86::e4m3_v3::<PLAIN>(values, c, a, o)),
        Dtype::F8E5M2 => body(tile, rows, out, |c, a, o| x86::e5m2_v3::<PLAIN>(values, c, a, o)),
        _ => body(tile, rows, out, |c, a, o| look_up::<PLAIN>(values, c, a, o)),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx2,fma,f16c")]
fn decode_v4<const PLAIN: bool>(dtype: Dtype, tile: Tile<'_>, rows: usize, out: &mut [f32]) {
    let values = table(dtype);
    match dtype {
        Dtype::I8 => body(tile, rows, out, |c, a, o| convert::<PLAIN>(c, a, o, |c| f32::from(c.cast_signed()))),
        Dtype::U8 => body(tile, rows, out, |c, a, o| convert::<PLAIN>(c, a, o, f32::from)),
        _ => {
            let tables = x86::ByteTables::of(dtype, values).load();
            body(tile, rows, out, |c, a, o| x86::bytes_v4::<PLAIN>(tables, values, c, a, o));
        }
    }
}

/// The 256 values of a type of 8 bits.
fn table(dtype: Dtype) -> &'static [f32; 256] {
    static NONE: [f32; 256] = [f32::NAN; 256];
    // Callers let only types of 8 bits through.
    small_values(dtype).first_chunk().unwrap_or(&NONE)
}

#[inline(always)]
fn body(tile: Tile<'_>, rows: usize, out: &mut [f32], run: impl Fn(&[u8], Affine, &mut [f32])) {
    for i in 0..rows {
        let codes = &tile.codes[i * tile.stride + tile.first..];
        let out = &mut out[i * tile.out_stride + tile.out_first..];
        let row = tile.grid.row(tile.first_row + i);
        let mut start = 0;
        for r in tile.runs {
            run(&codes[start..r.end], tile.grid.affine(row, r.group), &mut out[start..r.end]);
            start = r.end;
        }
    }
}

#[inline(always)]
#[cfg(target_arch = "x86_64")]
fn convert<const PLAIN: bool>(codes: &[u8], affine: Affine, out: &mut [f32], value: impl Fn(u8) -> f32) {
    for (o, &code) in out.iter_mut().zip(codes) {
        *o = affine.apply::<PLAIN>(value(code));
    }
}
