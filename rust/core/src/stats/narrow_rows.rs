//! Rows of types of at most 8 bits: widened to bf16, which holds all their values, and summed in its f32 lanes.

use super::moments::Moments;
use super::rows::RowMoments;
use crate::dtype::Dtype;
use crate::kernels::{Isa, for_each, lanes, small_values, widen};

impl RowMoments {
    /// Adds the next `n` components of a dtype that [`Moments`] does not take along. `first_bit` as in
    /// [`crate::kernels::decode_f64`].
    pub fn update(&mut self, isa: Isa, dtype: Dtype, bytes: &[u8], first_bit: u32, n: u64) {
        if dtype.bits() <= 8 {
            self.update_narrow(isa, dtype, bytes, first_bit, n);
        } else {
            self.update_wide(isa, dtype, bytes, first_bit, n);
        }
    }

    /// Some four times faster than in f64.
    fn update_narrow(&mut self, isa: Isa, dtype: Dtype, bytes: &[u8], first_bit: u32, n: u64) {
        let mut words = [0; 256];
        for (word, value) in words.iter_mut().zip(small_values(dtype)) {
            *word = (value.to_bits() >> 16) as u16;
        }
        let mut moments = Moments::new(Dtype::Bf16);
        let mut block = [0; lanes::SWEEP_BYTES];
        let mut done = 0;
        while done < n {
            let take = (n - done).min(block.len() as u64 / 2);
            let bit = u64::from(first_bit) + done * u64::from(dtype.bits());
            let (places, _) = block.as_chunks_mut::<2>();
            if dtype.bits() == 8 {
                widen(isa, dtype, &bytes[done as usize..(done + take) as usize], places);
            } else {
                for_each(dtype, &bytes[(bit / 8) as usize..], (bit % 8) as u32, take as usize, |i, code| {
                    places[i] = words[code].to_le_bytes();
                });
            }
            moments.update_rows(isa, &block[..2 * take as usize], self.next(), self);
            done += take;
        }
    }
}
