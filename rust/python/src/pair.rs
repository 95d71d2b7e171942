//! `compare_values`: two runs of float32 in, their sums out.

use pyo3::prelude::*;
use weightprint_core::error::Error;
use weightprint_core::kernels::Isa;
use weightprint_core::pair::values::Pair;

use crate::gateway;

/// Values per step between two checks for cancellation.
const STEP: usize = 1 << 20;

/// Sums over two runs of float32 of equal length; see the stub.
#[pyfunction]
pub fn compare_values(py: Python<'_>, a: &[u8], b: &[u8]) -> PyResult<(u64, u64, u64, u64, [f64; 7])> {
    let pair = gateway::run_sized(py, a.len().max(b.len()), |control| {
        if a.len() != b.len() || !a.len().is_multiple_of(4) {
            let message =
                format!("two runs of float32 of equal length are needed, not {} and {} bytes", a.len(), b.len());
            return Err(Error::usage("unequal_lengths", message));
        }
        let isa = Isa::detect();
        let mut total = Pair::default();
        for (a, b) in a.chunks(4 * STEP).zip(b.chunks(4 * STEP)) {
            control.check()?;
            total = total.merge(Pair::of(isa, &values(a), &values(b)));
        }
        Ok(total)
    })?;
    let sums = [pair.sum_a, pair.sum_b, pair.aa, pair.bb, pair.ab, pair.dd, pair.max_difference];
    Ok((pair.n, pair.n_finite, pair.n_differ, pair.n_flipped, sums))
}

/// Bytes may lie at any address, so they are copied, a few MB at a time.
fn values(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|word| f32::from_ne_bytes(*word)).collect()
}
