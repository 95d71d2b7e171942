//! The statistics of one tensor, as every state of this folder ends.

/// An extreme value, exact for its type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// Of a float type.
    Float(f64),
    /// Of an integer type or bool.
    Int(i128),
}

impl Number {
    /// As f64, rounded to nearest.
    pub fn to_f64(self) -> f64 {
        match self {
            Self::Float(x) => x,
            Self::Int(i) => i as f64,
        }
    }
}

/// What one pass says about a tensor. All but the counts of non-finite values run over the finite values; a complex
/// tensor counts as its real components.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Components.
    pub n: u64,
    /// Components that are neither NaN nor infinite.
    pub n_finite: u64,
    /// Components equal to zero, of either sign.
    pub n_zero: u64,
    /// Components that are NaN.
    pub n_nan: u64,
    /// Components that are +∞.
    pub n_posinf: u64,
    /// Components that are −∞.
    pub n_neginf: u64,
    /// Smallest value.
    pub min: Option<Number>,
    /// Largest value.
    pub max: Option<Number>,
    /// Largest magnitude.
    pub abs_max: Option<Number>,
    /// Flat component index of the first value with the largest magnitude.
    pub abs_max_index: Option<u64>,
    /// Flat component index of the first NaN.
    pub first_nan: Option<u64>,
    /// Flat component index of the first infinity.
    pub first_inf: Option<u64>,
    /// Mean; NaN where nothing is finite.
    pub mean: f64,
    /// Standard deviation, ddof 0; NaN where nothing is finite.
    pub std: f64,
    /// √(mean of squares); NaN where nothing is finite.
    pub rms: f64,
    /// Sum of magnitudes.
    pub l1: f64,
    /// √(sum of squares).
    pub l2: f64,
    /// Third standardised moment; NaN for a constant.
    pub skewness: f64,
    /// Fourth standardised moment, 3 for a normal distribution; NaN for a constant.
    pub kurtosis: f64,
}
