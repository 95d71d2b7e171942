//! Checks of lengths and shapes, before the first byte is touched.

use crate::error::{Error, Result};

/// `Ok` if `what` has `found == expected` entries.
pub(super) fn length(what: &str, found: usize, expected: Option<usize>) -> Result<()> {
    match expected {
        Some(expected) if expected == found => Ok(()),
        Some(expected) => {
            Err(Error::usage("length_mismatch", format!("{what}: {found} given where the shape needs {expected}")))
        }
        None => Err(Error::usage("too_large", format!("{what}: the shape has more elements than memory can address"))),
    }
}

/// `Ok` if a size that divides something is not 0.
pub(super) fn positive(what: &str, size: usize) -> Result<()> {
    if size > 0 { Ok(()) } else { Err(Error::usage("zero_size", format!("{what} must be at least 1"))) }
}

/// Checks that blocks of `block` from `offset` on, `n` elements long, lie within `n_blocks`.
pub(super) fn check_blocks(what: &str, n: usize, block: usize, offset: usize, n_blocks: usize) -> Result<()> {
    positive(what, block)?;
    let Some(end) = offset.checked_add(n) else {
        return Err(Error::usage("too_large", format!("{what}: the offset {offset} is too large")));
    };
    let needed = end.div_ceil(block);
    if n > 0 && needed > n_blocks {
        let message =
            format!("{what}: {n} elements from {offset} on in blocks of {block} need {needed} scales, not {n_blocks}");
        return Err(Error::usage("grid_too_small", message));
    }
    Ok(())
}

/// Checks scales and zero points against the grid's shape.
pub(super) fn check_grid(scales: &[f32], zeros: Option<&[f32]>, shape: (usize, usize)) -> Result<()> {
    let expected = shape.0.checked_mul(shape.1);
    length("scales", scales.len(), expected)?;
    zeros.map_or(Ok(()), |zeros| length("zeros", zeros.len(), expected))
}
