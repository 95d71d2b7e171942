//! Integers packed into words, against codes that were packed one bit field at a time.

mod quant_support;
mod stats_support;

use proptest::prelude::*;
use quant_support::*;
use stats_support::Rng;
use weightprint_core::control::Control;
use weightprint_core::error::ErrorKind;
use weightprint_core::quant::{Axis, Layout, Order, Packed, Settings, unpack};

/// The order that AutoAWQ packs in: place k of a word holds code `AWQ[k]` of eight.
const AWQ: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];

/// A weight's codes with what scales them, rows being outputs.
struct Weight {
    rows: usize,
    columns: usize,
    bits: u32,
    codes: Vec<u32>,
    n_groups: usize,
    groups: Vec<i32>,
    /// By (row, group).
    scales: Vec<f32>,
    zeros: Vec<f32>,
}

impl Weight {
    fn random(r: &mut Rng, rows: usize, columns: usize, bits: u32, group: usize, act_order: bool) -> Self {
        let n_groups = columns.div_ceil(group);
        let groups = (0..columns)
            .map(|c| if act_order { (r.next() % n_groups as u64) as i32 } else { (c / group) as i32 })
            .collect();
        let integer = |r: &mut Rng| (r.next() % (1 << bits)) as f32;
        Self {
            rows,
            columns,
            bits,
            codes: (0..rows * columns).map(|_| r.next() as u32 & ((1 << bits) - 1)).collect(),
            n_groups,
            groups,
            scales: floats(r, rows * n_groups),
            zeros: (0..rows * n_groups).map(|_| if r.next().is_multiple_of(4) { 7.3 } else { integer(r) }).collect(),
        }
    }

    fn code(&self, row: usize, column: usize) -> u32 {
        self.codes[row * self.columns + column]
    }

    fn values(&self, zero: Option<f32>, signed: bool) -> Vec<f32> {
        let mut out = Vec::new();
        for r in 0..self.rows {
            for c in 0..self.columns {
                let at = r * self.n_groups + self.groups[c] as usize;
                let code = i64::from(self.code(r, c));
                let half = 1i64 << (self.bits - 1);
                let number = if signed && code >= half { code - 2 * half } else { code };
                out.push(mul(sub(number as f32, zero.unwrap_or(self.zeros[at])), self.scales[at]));
            }
        }
        out
    }

    /// (stored shape, words) with `first` places of rubbish before the first code.
    fn pack(&self, layout: Layout, first: usize) -> ((usize, usize), Vec<u8>) {
        let per = layout.unit() * 8 / self.bits as usize;
        let along = |n: usize| (first + n).div_ceil(per);
        let shape = match layout {
            Layout::Gptq => (along(self.columns), self.rows),
            Layout::Awq => (self.columns, along(self.rows)),
            Layout::Words | Layout::Bytes => (self.rows, along(self.columns)),
        };
        let mut words = vec![0x5aa5_5aa5u32 & (u32::MAX >> (32 - 8 * layout.unit())); shape.0 * shape.1];
        for r in 0..self.rows {
            for c in 0..self.columns {
                let (at, place) = match layout {
                    Layout::Gptq => ((first + c) / per * shape.1 + r, (first + c) % per),
                    Layout::Awq => {
                        let place = AWQ.iter().position(|&code| code == (first + r) % 8).unwrap();
                        (c * shape.1 + (first + r) / per, place)
                    }
                    Layout::Words | Layout::Bytes => (r * shape.1 + (first + c) / per, (first + c) % per),
                };
                let shift = place as u32 * self.bits;
                words[at] &= !(((1 << self.bits) - 1) << shift);
                words[at] |= self.code(r, c) << shift;
            }
        }
        let bytes = words.iter().flat_map(|w| w.to_le_bytes()[..layout.unit()].to_vec()).collect();
        (shape, bytes)
    }

    /// Scales or zeros in the layout's shape.
    fn lay(&self, layout: Layout, values: &[f32]) -> Vec<f32> {
        if matches!(layout, Layout::Words | Layout::Bytes) {
            return values.to_vec();
        }
        (0..self.n_groups).flat_map(|g| (0..self.rows).map(move |r| values[r * self.n_groups + g])).collect()
    }

    /// Unsigned, with the zero point 0 where `zeros` is none.
    fn packed<'a>(
        &'a self,
        layout: Layout,
        stored: (usize, usize),
        words: &'a [u8],
        scales: &'a [f32],
        zeros: Option<&'a [f32]>,
        first: usize,
    ) -> Packed<'a> {
        Packed {
            words,
            layout,
            stored,
            bits: self.bits,
            first,
            rows: self.rows,
            columns: self.columns,
            scales,
            zeros,
            zero: 0.0,
            n_groups: self.n_groups,
            groups: &self.groups,
            signed: false,
        }
    }

    fn verify(&self, layout: Layout, first: usize) {
        let (stored, words) = self.pack(layout, first);
        let (scales, zeros) = (self.lay(layout, &self.scales), self.lay(layout, &self.zeros));
        let what = format!("{} {}×{} {} bits from {first}", layout.name(), self.rows, self.columns, self.bits);
        for (zero, signed) in [(None, false), (Some(8.0), false), (Some(0.0), true), (None, true)] {
            let given = zero.is_none().then_some(&zeros[..]);
            let packed = self.packed(layout, stored, &words, &scales, given, first);
            let packed = Packed { zero: zero.unwrap_or(99.0), signed, ..packed };
            check(&self.values(zero, signed), &what, |settings, control, out| packed.decode(settings, control, out));
        }
    }
}

#[test]
fn every_layout_and_shape() {
    let mut r = Rng(11);
    for layout in Layout::ALL {
        for bits in [2, 4, 8] {
            if layout == Layout::Awq && bits != 4 {
                continue;
            }
            for (rows, columns) in [(1, 1), (8, 128), (3, 33), (130, 77), (67, 1100), (129, 16), (16, 2100)] {
                // Groups of 5 in any order are many to a row, those of all columns one.
                let orders =
                    [(32, false), (columns, false), (128, false), (5, false), (16, true), (5, true), (128, true)];
                for (group, act_order) in orders {
                    let weight = Weight::random(&mut r, rows, columns, bits, group, act_order);
                    for first in [0, 1, 5, 21] {
                        weight.verify(layout, first);
                    }
                }
            }
        }
    }
}

/// Inputs whose groups were sorted by something else: each group has as many inputs, in no order, and none are neighbours
/// but by chance. Outputs and inputs end in every place of a block of 16.
#[test]
fn permuted_groups_in_ragged_blocks() {
    let mut r = Rng(14);
    for layout in [Layout::Gptq, Layout::Words, Layout::Bytes] {
        for bits in [2, 4, 8] {
            for n in 1..=34 {
                let mut weight = Weight::random(&mut r, n, 70 - n, bits, 8, false);
                for c in (1..weight.columns).rev() {
                    weight.groups.swap(c, (r.next() % (c as u64 + 1)) as usize);
                }
                weight.verify(layout, n % 17);
            }
        }
    }
}

/// What the formula makes of numbers at the ends of float32, where neighbours share no group.
#[test]
fn nan_and_infinite_scales_in_any_order() {
    let mut r = Rng(15);
    for bits in [4, 8] {
        let mut weight = Weight::random(&mut r, 37, 200, bits, 16, true);
        for (i, x) in [f32::NAN, f32::INFINITY, f32::MIN_POSITIVE, -0.0, f32::MAX, 1e-45].into_iter().enumerate() {
            weight.scales[i * 7] = x;
            weight.zeros[i * 11] = x;
        }
        weight.verify(Layout::Gptq, 3);
    }
}

#[test]
fn groups_out_of_range() {
    let mut r = Rng(16);
    for act_order in [false, true] {
        for bad in [-1, 13, i32::MIN, i32::MAX] {
            let mut weight = Weight::random(&mut r, 20, 200, 4, 16, act_order);
            weight.groups[150] = bad;
            let (stored, words) = weight.pack(Layout::Gptq, 0);
            let scales = weight.lay(Layout::Gptq, &weight.scales);
            let packed = weight.packed(Layout::Gptq, stored, &words, &scales, None, 0);
            let mut out = vec![0.0; weight.codes.len()];
            let result = packed.decode(Settings::default(), &Control::new(), &mut out);
            assert_eq!(usage_code(result), "group_out_of_range", "{bad}");
        }
    }
}

#[test]
fn several_threads() {
    let mut r = Rng(12);
    for act_order in [false, true] {
        let weight = Weight::random(&mut r, 1030, 2100, 4, 128, act_order);
        for layout in Layout::ALL {
            let (stored, words) = weight.pack(layout, 3);
            let (scales, zeros) = (weight.lay(layout, &weight.scales), weight.lay(layout, &weight.zeros));
            let packed = weight.packed(layout, stored, &words, &scales, Some(&zeros), 3);
            let mut out = vec![0.0; weight.codes.len()];
            packed.decode(Settings { threads: 3, ..Settings::default() }, &Control::new(), &mut out).unwrap();
            assert_same(&out, &weight.values(None, false), layout.name());
        }
    }
}

#[test]
fn zero_points_unpack() {
    let mut r = Rng(13);
    for bits in [2, 4, 8] {
        let per = 32 / bits as usize;
        let (rows, columns) = (5, 7);
        for order in [Order::Linear, Order::Awq] {
            if order == Order::Awq && bits != 4 {
                continue;
            }
            let place = |i: usize| if order == Order::Awq { AWQ.iter().position(|&c| c == i).unwrap() } else { i };
            let words: Vec<u32> = (0..rows * columns).map(|_| r.next() as u32).collect();
            let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
            let code = |word: u32, i: usize| ((word >> (place(i) as u32 * bits)) & ((1 << bits) - 1)) as u8;
            let along = unpack(&bytes, (rows, columns), bits, Axis::Columns, order, &Control::new()).unwrap();
            let down = unpack(&bytes, (rows, columns), bits, Axis::Rows, order, &Control::new()).unwrap();
            assert_eq!((along.len(), down.len()), (rows * columns * per, rows * columns * per));
            for i in 0..rows {
                for j in 0..columns {
                    for k in 0..per {
                        let want = code(words[i * columns + j], k);
                        assert_eq!(along[i * columns * per + j * per + k], want);
                        assert_eq!(down[(i * per + k) * columns + j], want);
                    }
                }
            }
        }
    }
    assert_eq!(unpack(&[], (9, 0), 4, Axis::Rows, Order::Linear, &Control::new()).unwrap(), [0u8; 0]);
    let bad = |bytes: usize, shape, bits, order| {
        usage_code(unpack(&vec![0; bytes], shape, bits, Axis::Rows, order, &Control::new()).map(drop))
    };
    assert_eq!(bad(15, (2, 2), 4, Order::Linear), "length_mismatch");
    assert_eq!(bad(16, (usize::MAX, 2), 4, Order::Linear), "too_large");
    assert_eq!(bad(16, (2, 2), 3, Order::Linear), "unknown_bits");
    assert_eq!(bad(16, (2, 2), 8, Order::Awq), "unknown_bits");
}

fn arbitrary() -> impl Strategy<Value = (Layout, u32)> {
    (0usize..4, prop_oneof![Just(2u32), Just(4), Just(8), Just(3), Just(0), Just(40)])
        .prop_map(|(layout, bits)| (Layout::ALL[layout], bits))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn no_length_panics(
        (layout, bits) in arbitrary(),
        words in 0usize..80,
        stored in (0usize..6, 0usize..6),
        // Seldom, but often enough, everything fits.
        exact in any::<bool>(),
        (first, rows, columns) in (prop_oneof![0usize..9, Just(usize::MAX)], 0usize..6, 0usize..6),
        (n_scales, n_groups) in (0usize..20, 0usize..4),
        groups in proptest::collection::vec(-1i32..4, 0..6),
        zeros in proptest::option::of(0usize..20),
        n in 0usize..30,
    ) {
        let (words, n_scales, n) = if exact {
            (stored.0 * stored.1 * layout.unit(), rows * n_groups, rows * columns)
        } else {
            (words, n_scales, n)
        };
        let (words, scales) = (vec![0x21; words], vec![1.0; n_scales]);
        let zeros = zeros.map(|n| vec![0.5; n]);
        let packed = Packed {
            words: &words, layout, stored, bits, first, rows, columns, scales: &scales, zeros: zeros.as_deref(),
            zero: 1.0, n_groups, groups: &groups, signed: true,
        };
        let mut out = vec![0.0; n];
        if let Err(e) = packed.decode(Settings::default(), &Control::new(), &mut out) {
            prop_assert_eq!(e.kind, ErrorKind::Usage);
        }
    }
}
