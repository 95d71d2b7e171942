//! Statistics of tensors, as states that grow with every block, merge in plan order, and end as one [`Summary`] per
//! tensor.
//!
//! [`Moments`] for types of 16 bits and more, [`Counts`] for narrower ones and where exact ones are asked for, with the
//! [`Distribution`] that follows from them; [`RowMoments`] and [`ColumnMoments`] for the lines of a matrix.

mod columns;
mod counts;
mod distribution;
mod extremes;
mod moments;
mod narrow_rows;
mod rows;
mod sketch;
mod summary;

pub use columns::ColumnMoments;
pub use counts::Counts;
pub use distribution::{Distribution, QUANTILE_LEVELS};
pub use moments::Moments;
pub use rows::{RowMoments, RowPartial};
pub use sketch::Sketch;
pub use summary::{Number, Summary};
