//! The macro that compiles a decoder for each instruction set; see [`crate::kernels`], `dispatch`.

/// One function per instruction set around a body that is generic over [`Look`](super::lookup::Look) or
/// [`DecodeBlock`](super::block::DecodeBlock).
macro_rules! look_shells {
    ($name:ident, $v3:ident, $v4:ident, $body:ident $(, <$c:ident>)?, ($($arg:ident: $t:ty),*)) => {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,f16c")]
        fn $v3$(<const $c: bool>)?($($arg: $t),*) {
            $body::<$crate::quant::x86::V3 $(, $c)?>($($arg),*)
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        fn $v4$(<const $c: bool>)?($($arg: $t),*) {
            $body::<$crate::quant::x86::V4 $(, $c)?>($($arg),*)
        }
        pub(super) fn $name$(<const $c: bool>)?(isa: $crate::kernels::Isa, $($arg: $t),*) {
            match isa.supported() {
                // SAFETY: `supported` returns only what the machine was seen to have.
                #[cfg(target_arch = "x86_64")]
                $crate::kernels::Isa::Avx512 => unsafe { $v4$(::<$c>)?($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::kernels::Isa::Avx2 => unsafe { $v3$(::<$c>)?($($arg),*) },
                _ => $body::<$crate::quant::lookup::Portable $(, $c)?>($($arg),*),
            }
        }
    };
}
pub(super) use look_shells;
