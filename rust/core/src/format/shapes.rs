//! All shapes of a header in one byte arena, as LEB128 numbers.
//!
//! A dimension costs two bytes of JSON (`1,`) but eight as a u64, so a 98 MB header of deep shapes would need 400 MB.
//! Written in LEB128 (seven bits per byte, the high bit says that more follow) a number of d decimal digits takes at
//! most d bytes: the arena is never larger than the text it came from.

/// Shapes, one after another, as LEB128 numbers.
#[derive(Debug, Default)]
pub(super) struct Shapes {
    bytes: Vec<u8>,
}

impl Shapes {
    /// Where the next dimension will be written.
    pub fn end(&self) -> usize {
        self.bytes.len()
    }

    /// Append one dimension.
    pub fn push(&mut self, mut dimension: u64) {
        while dimension >= 0x80 {
            self.bytes.push(dimension as u8 | 0x80);
            dimension >>= 7;
        }
        self.bytes.push(dimension as u8);
    }

    /// The `rank` dimensions that begin at byte `start`.
    pub fn get(&self, start: usize, rank: usize) -> impl Iterator<Item = u64> + Clone + '_ {
        let mut rest = self.bytes[start..].iter();
        (0..rank).map(move |_| {
            let (mut value, mut shift) = (0u64, 0);
            for &byte in rest.by_ref() {
                value |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    break;
                }
                shift += 7;
            }
            value
        })
    }

    /// Give back what was reserved and not used.
    pub fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_never_outgrow_their_decimal_text() {
        let mut values: Vec<u64> = (0..64).flat_map(|b| [(1u64 << b) - 1, 1 << b, (1 << b) + 1]).collect();
        values.push(u64::MAX);
        values.extend((0..20).map(|d| 10u64.pow(d)));
        let mut shapes = Shapes::default();
        for &v in &values {
            let before = shapes.end();
            shapes.push(v);
            assert!(shapes.end() - before <= v.to_string().len(), "{v}");
        }
        assert_eq!(shapes.get(0, values.len()).collect::<Vec<_>>(), values);
    }
}
