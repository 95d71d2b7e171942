//! How strictly a header is read, and what it may cost.

/// How strictly the rules are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// The specification, and what it leaves open decided in favour of safety: no duplicates, no unknown fields.
    #[default]
    Strict,
    /// What the reference implementation (safetensors 0.8) accepts; each liberty taken becomes a [`Note`](super::Note).
    /// Bounds, types and caps are held as in `Strict`.
    Compatible,
}

/// What a header may cost. Passing one is an error of kind `Limit`: the file may be legal, raise the cap if you trust
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of JSON; the reference implementation stops at the same number.
    pub header_bytes: u64,
    /// Tensors in one file, or in one index.
    pub tensors: usize,
    /// Dimensions of one tensor.
    pub rank: usize,
    /// Bytes of a tensor's name or of a metadata key.
    pub name_bytes: usize,
    /// Memory that `__metadata__` may take: its text and [`METADATA_ENTRY_BYTES`] per entry.
    pub metadata_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { header_bytes: 100_000_000, tensors: 1_000_000, rank: 64, name_bytes: 4096, metadata_bytes: 150_000_000 }
    }
}

/// What one metadata entry costs beside its text: two strings, their heap blocks, a slot in the table of keys.
pub const METADATA_ENTRY_BYTES: u64 = 112;
