//! `compare_values` and `compare_stored`: two runs of float32, or two stored tensors in; their sums out.

use pyo3::prelude::*;
use weightprint_core::error::Error;
use weightprint_core::kernels::Isa;
use weightprint_core::pair::stored;
use weightprint_core::pair::values::Pair;

use crate::file::SafetensorsFile;
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
    Ok((pair.n, pair.n_finite, pair.n_differ, pair.n_flipped, sums(&pair)))
}

/// Elements, those finite on both sides, differing ones, of opposite sign; not finite on either side; sums.
type Compared = (u64, u64, u64, u64, [u64; 2], [f64; 7]);

/// Sums over two stored tensors of as many elements; see the stub.
#[pyfunction]
#[pyo3(signature = (a, i, b, j, *, threads = 0))]
pub fn compare_stored(
    py: Python<'_>,
    a: &SafetensorsFile,
    i: usize,
    b: &SafetensorsFile,
    j: usize,
    threads: usize,
) -> PyResult<Compared> {
    a.check_index(i)?;
    b.check_index(j)?;
    let (a, b) = (&*a.inner, &*b.inner);
    let (begin, end) = a.header().range(i);
    let size = usize::try_from(end - begin).unwrap_or(usize::MAX);
    let found =
        gateway::run_sized(py, size, |control| stored::compare((a, i), (b, j), threads, Isa::detect(), control))?;
    let pair = found.pair;
    Ok((pair.n, pair.n_finite, pair.n_differ, pair.n_flipped, found.nonfinite, sums(&pair)))
}

fn sums(pair: &Pair) -> [f64; 7] {
    [pair.sum_a, pair.sum_b, pair.aa, pair.bb, pair.ab, pair.dd, pair.max_difference]
}

/// Bytes may lie at any address, so they are copied, a few MB at a time.
fn values(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|word| f32::from_ne_bytes(*word)).collect()
}
