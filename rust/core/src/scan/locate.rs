//! Finds the values of a tensor beyond a threshold: a second pass, for one that a scan has found to have outliers.

use super::plan::Tensor;
use crate::control::Control;
use crate::error::Result;
use crate::kernels::decode_f64;
use crate::source::{Buffer, TensorFile};

/// The finite components beyond a threshold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outliers {
    /// How many there are.
    pub total: u64,
    /// Flat component indices of the first ones, ascending.
    pub indices: Vec<u64>,
    /// Their values.
    pub values: Vec<f64>,
}

/// Count the finite components of `tensor` with |x| > `threshold`, and name the first `limit` of them.
pub fn find_above(
    file: &TensorFile,
    tensor: &Tensor,
    threshold: f64,
    limit: usize,
    control: &Control,
) -> Result<Outliers> {
    let mut found = Outliers::default();
    let (mut buffer, mut values) = (Buffer::default(), Vec::new());
    for number in 0..tensor.n_units() {
        for (begin, end) in tensor.unit(0, number).chunks() {
            control.check()?;
            let bytes = buffer.read(file, tensor.offset + begin, (end - begin) as usize)?;
            let first = tensor.component_at(begin);
            values.resize((tensor.component_at(end) - first) as usize, 0.0);
            decode_f64(tensor.dtype, bytes, 0, &mut values);
            for (i, &x) in values.iter().enumerate().filter(|(_, x)| x.is_finite() && x.abs() > threshold) {
                found.total += 1;
                if found.indices.len() < limit {
                    found.indices.push(first + i as u64);
                    found.values.push(x);
                }
            }
            control.advance(end - begin);
        }
    }
    file.verify_unchanged()?;
    Ok(found)
}
