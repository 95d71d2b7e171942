//! Run-time choice of the instruction set: which ones the machine has, and the macro that compiles a kernel for each.
//!
//! A kernel is a function generic over `FMA`, `#[inline(always)]`, of plain loops that compilers vectorise. [`shells`]
//! wraps it once per instruction set, and the dispatcher that it makes takes an [`Isa`], a value, so that tests and
//! benchmarks can force every one of them.

use std::sync::OnceLock;

/// Whether scalar `mul_add` is one instruction in code compiled for the baseline.
pub(crate) const BASE_FMA: bool = cfg!(any(target_feature = "fma", target_arch = "aarch64"));

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

/// One function per instruction set around an `inline(always)` body; the body's plain loops are vectorised for each.
macro_rules! shells {
    ($name:ident, $v3:ident, $v4:ident, $body:ident, ($($arg:ident: $t:ty),*) $(-> $ret:ty)?) => {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,f16c")]
        fn $v3($($arg: $t),*) $(-> $ret)? {
            $body::<true>($($arg),*)
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        fn $v4($($arg: $t),*) $(-> $ret)? {
            $body::<true>($($arg),*)
        }
        pub(crate) fn $name(isa: $crate::kernels::dispatch::Isa, $($arg: $t),*) $(-> $ret)? {
            match isa.supported() {
                // SAFETY: `supported` returns only what the machine was seen to have.
                #[cfg(target_arch = "x86_64")]
                $crate::kernels::dispatch::Isa::Avx512 => unsafe { $v4($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::kernels::dispatch::Isa::Avx2 => unsafe { $v3($($arg),*) },
                _ => $body::<{ $crate::kernels::dispatch::BASE_FMA }>($($arg),*),
            }
        }
    };
}
pub(crate) use shells;
