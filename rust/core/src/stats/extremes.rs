//! Extreme and special values of a run of elements: how many, which, and where the first of each is.

/// What a table of counts does not tell: where values are and, of types whose bins are ranges, the values themselves.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Extremes {
    pub abs_max: Option<f64>,
    pub abs_max_index: Option<u64>,
    pub first_nan: Option<u64>,
    pub first_inf: Option<u64>,
    /// Wide types only, here and below: their bins do not tell.
    pub zeros: u64,
    pub negative_zeros: u64,
    pub n_nan: u64,
    pub n_posinf: u64,
    pub n_neginf: u64,
    pub min: Option<f64>,
    pub max: Option<f64>,
}

impl Extremes {
    pub fn specials(&mut self, x: &[f64]) {
        for x in x {
            self.n_nan += u64::from(x.is_nan());
            self.n_posinf += u64::from(*x == f64::INFINITY);
            self.n_neginf += u64::from(*x == f64::NEG_INFINITY);
        }
    }

    pub fn finite(&mut self, zeros: u64, negative_zeros: u64, min: f64, max: f64) {
        self.zeros += zeros;
        self.negative_zeros += negative_zeros;
        self.min = Some(self.min.map_or(min, |m| m.min(min)));
        self.max = Some(self.max.map_or(max, |m| m.max(max)));
    }

    pub fn merge(&mut self, other: &Self) {
        if other.abs_max > self.abs_max {
            (self.abs_max, self.abs_max_index) = (other.abs_max, other.abs_max_index);
        } else if other.abs_max == self.abs_max {
            self.abs_max_index = earlier(self.abs_max_index, other.abs_max_index);
        }
        self.first_nan = earlier(self.first_nan, other.first_nan);
        self.first_inf = earlier(self.first_inf, other.first_inf);
        self.n_nan += other.n_nan;
        self.n_posinf += other.n_posinf;
        self.n_neginf += other.n_neginf;
        if let (Some(min), Some(max)) = (other.min, other.max) {
            self.finite(other.zeros, other.negative_zeros, min, max);
        }
    }
}

/// The first of two places.
pub(super) fn earlier(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    a.into_iter().chain(b).min()
}
