//! The loops that touch every byte: decoding, power sums of a block, extremes of a block.
//!
//! The algorithm is written once ([`lanes`], [`wide`]); `avx512` and `avx2` are shells that hold the same 32 lanes in
//! registers. Which shell runs is a value, [`Isa`], so that tests and benchmarks can force every one of them.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod compensated;
mod decode;
pub(crate) mod lanes;
mod minifloat;
pub(crate) mod wide;
mod widen;

use std::sync::OnceLock;

pub use decode::{decode_f32, decode_f64};
pub(crate) use decode::{for_each, small_values, value16};
pub(crate) use widen::widen;

/// Which instructions the kernels may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// No more than the target's baseline.
    Portable,
    /// AVX2 + FMA + F16C (x86-64-v3).
    Avx2,
    /// AVX-512 F, BW, DQ, VL besides those of `Avx2` (x86-64-v4).
    Avx512,
}

impl Isa {
    /// The best one this machine has. Asked once, then remembered.
    pub fn detect() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(detect)
    }

    /// All that this machine has, best first.
    pub fn available() -> Vec<Self> {
        [Self::Avx512, Self::Avx2, Self::Portable].into_iter().filter(|&isa| isa <= Self::detect()).collect()
    }

    /// `self`, or the best one this machine has where that is less: what every dispatch goes through, so that naming an
    /// instruction set which the machine lacks is slow, never undefined.
    pub fn supported(self) -> Self {
        self.min(Self::detect())
    }

    /// "avx512", "avx2" or "portable".
    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Portable => "portable",
        }
    }

    /// The instruction set called `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Avx512, Self::Avx2, Self::Portable].into_iter().find(|isa| isa.name() == name)
    }
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Isa {
    let v3 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
    let v4 = v3
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match (v4, v3) {
        (true, _) => Isa::Avx512,
        (_, true) => Isa::Avx2,
        _ => Isa::Portable,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Isa {
    Isa::Portable
}
