//! The 22 dtypes of safetensors: their names, sizes and what kind of number they hold.

/// An element type of the safetensors format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, non_camel_case_types)]
#[repr(u8)]
pub enum Dtype {
    Bool,
    F4,
    F6E2M3,
    F6E3M2,
    U8,
    I8,
    F8E5M2,
    F8E4M3,
    F8E8M0,
    F8E4M3Fnuz,
    F8E5M2Fnuz,
    I16,
    U16,
    F16,
    Bf16,
    I32,
    U32,
    F32,
    C64,
    F64,
    I64,
    U64,
}

/// What kind of number a dtype holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Any byte but zero is true.
    Bool,
    /// Two's complement integer.
    Signed,
    /// Unsigned integer.
    Unsigned,
    /// A binary floating point format, however small.
    Float,
    /// A pair of floats.
    Complex,
}

/// One row per dtype, in the order of the enum: (dtype, name in the header, bits per element, class).
static TABLE: [(Dtype, &str, u32, Class); 22] = [
    (Dtype::Bool, "BOOL", 8, Class::Bool),
    (Dtype::F4, "F4", 4, Class::Float),
    (Dtype::F6E2M3, "F6_E2M3", 6, Class::Float),
    (Dtype::F6E3M2, "F6_E3M2", 6, Class::Float),
    (Dtype::U8, "U8", 8, Class::Unsigned),
    (Dtype::I8, "I8", 8, Class::Signed),
    (Dtype::F8E5M2, "F8_E5M2", 8, Class::Float),
    (Dtype::F8E4M3, "F8_E4M3", 8, Class::Float),
    (Dtype::F8E8M0, "F8_E8M0", 8, Class::Float),
    (Dtype::F8E4M3Fnuz, "F8_E4M3FNUZ", 8, Class::Float),
    (Dtype::F8E5M2Fnuz, "F8_E5M2FNUZ", 8, Class::Float),
    (Dtype::I16, "I16", 16, Class::Signed),
    (Dtype::U16, "U16", 16, Class::Unsigned),
    (Dtype::F16, "F16", 16, Class::Float),
    (Dtype::Bf16, "BF16", 16, Class::Float),
    (Dtype::I32, "I32", 32, Class::Signed),
    (Dtype::U32, "U32", 32, Class::Unsigned),
    (Dtype::F32, "F32", 32, Class::Float),
    (Dtype::C64, "C64", 64, Class::Complex),
    (Dtype::F64, "F64", 64, Class::Float),
    (Dtype::I64, "I64", 64, Class::Signed),
    (Dtype::U64, "U64", 64, Class::Unsigned),
];

impl Dtype {
    /// All dtypes, in the order of the enum.
    pub fn all() -> impl Iterator<Item = Dtype> {
        TABLE.iter().map(|row| row.0)
    }

    /// The dtype whose name in a header is exactly `name`.
    // Not inlined: unrolled into a caller, 22 comparisons of strings cost the compiler minutes.
    #[inline(never)]
    pub fn from_name(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// All names, for messages.
    #[inline(never)]
    pub fn names() -> String {
        TABLE.iter().map(|row| row.1).collect::<Vec<_>>().join(", ")
    }

    /// The name used in a header.
    pub fn name(self) -> &'static str {
        TABLE[self as usize].1
    }

    /// Bits per element: 4, 6, 8, 16, 32 or 64.
    pub fn bits(self) -> u32 {
        TABLE[self as usize].2
    }

    /// What kind of number it holds.
    pub fn class(self) -> Class {
        TABLE[self as usize].3
    }

    /// Real numbers per element: 2 for complex, else 1. Statistics of a complex tensor run over its components.
    pub fn components(self) -> u64 {
        if self.class() == Class::Complex { 2 } else { 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_follows_the_enum() {
        for (i, row) in TABLE.iter().enumerate() {
            assert_eq!(row.0 as usize, i);
            assert_eq!(Dtype::from_name(row.1), Some(row.0));
        }
        assert_eq!(Dtype::from_name("bf16"), None);
    }
}
