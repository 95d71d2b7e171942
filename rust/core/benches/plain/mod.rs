//! The fastest plain read: every byte once, nothing else. What decoding is compared with.

use weightprint_core::kernels::Isa;

/// The exclusive or of all words in `bytes`, but for a tail.
pub fn read(bytes: &[u8]) -> u64 {
    #[inline(always)]
    fn fold(bytes: &[u8]) -> u64 {
        let mut lanes = [0u64; 32];
        for group in bytes.as_chunks::<256>().0 {
            for (lane, word) in lanes.iter_mut().zip(group.as_chunks::<8>().0) {
                *lane ^= u64::from_le_bytes(*word);
            }
        }
        lanes.into_iter().fold(0, |a, b| a ^ b)
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn fold_v3(bytes: &[u8]) -> u64 {
        fold(bytes)
    }
    #[cfg(target_arch = "x86_64")]
    if Isa::detect() >= Isa::Avx2 {
        // SAFETY: the machine was seen to have AVX2.
        return unsafe { fold_v3(bytes) };
    }
    fold(bytes)
}
