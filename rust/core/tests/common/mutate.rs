//! Turns sound and malformed files into others, and says what must hold of whatever a reader accepts.

#![allow(dead_code, reason = "each user uses its part")]

use weightprint_core::format::Header;

/// SplitMix64 (Steele, Lea and Flood, 2014): a seed gives the same run everywhere.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, or 0 where there is none.
    pub fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { (self.next() % n as u64) as usize }
    }

    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

/// What the format's text is made of, and what breaks parsers.
const WORDS: [&str; 50] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "\\udc00",
    "\\u0061",
    "null",
    "true",
    "-0",
    "1e9",
    "0",
    "1",
    "2",
    "8",
    "64",
    "4294967296",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "0.5",
    " ",
    "\n",
    "\0",
    "\u{feff}",
    "\u{202e}",
    "//",
    "/*",
    "\"t\"",
    "\"dtype\"",
    "\"shape\"",
    "\"data_offsets\"",
    "\"__metadata__\":{\"a\":\"b\"}",
    "\"dtype\":\"F32\"",
    "\"F4\"",
    "\"F6_E2M3\"",
    "\"BOOL\"",
    "\"U8\"",
    "\"C64\"",
    "\"shape\":[0]",
    "\"data_offsets\":[0,0]",
    "{\"F32\":null}",
    "[\"F32\",[],[0,4]]",
    "\"e\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},",
    "{\"x\":[1]}",
];

/// Change `file` in one to four places, and mostly put its length right again so that the change is looked at.
pub fn mutate(file: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..=random.below(4) {
        let end = file.len();
        let at = random.below(end + 1);
        let until = at + random.below((end - at).min(24) + 1);
        match random.below(9) {
            0 if at < end => file[at] ^= 1 << random.below(7),
            1 if at < end => file[at] = random.next() as u8,
            2 => drop(file.drain(at..until)),
            3 => {
                let copy = file[at..until].to_vec();
                let place = random.below(file.len() + 1);
                file.splice(place..place, copy);
            }
            4 => drop(file.splice(at..at, random.pick(&WORDS).bytes())),
            5 => drop(file.splice(at..until, random.pick(&WORDS).bytes())),
            6 => number(file, at, random),
            7 => {
                let from = random.below(other.len() + 1);
                let piece = &other[from..from + random.below((other.len() - from).min(60) + 1)];
                file.splice(at..at, piece.iter().copied());
            }
            _ => file.truncate(at.max(file.len().saturating_sub(4))),
        }
    }
    if random.below(8) > 0 {
        mend(file, random);
    }
}

/// Replace the run of digits around `at` by a number that is close to it or known to hurt.
fn number(file: &mut Vec<u8>, at: usize, random: &mut Random) {
    let Some(start) = (at..file.len()).find(|&i| file[i].is_ascii_digit()) else { return };
    let end = (start..file.len()).find(|&i| !file[i].is_ascii_digit()).unwrap_or(file.len());
    let value: u64 = String::from_utf8_lossy(&file[start..end]).parse().unwrap_or(7);
    let new = match random.below(6) {
        0 => value.wrapping_add(1),
        1 => value.wrapping_sub(1),
        2 => value.wrapping_mul(2),
        3 => 1u64 << random.below(64),
        4 => u64::MAX >> random.below(64),
        _ => random.below(20) as u64,
    };
    file.splice(start..end, new.to_string().bytes());
}

/// Let the length end at the last closing bracket, so that what follows it is data.
fn mend(file: &mut [u8], random: &mut Random) {
    if file.len() < 8 {
        return;
    }
    let last = file[8..].iter().rposition(|&b| b == b'}').map_or(file.len() - 8, |i| i + 1);
    let n = if random.below(16) == 0 { random.below(file.len()) } else { last };
    file[..8].copy_from_slice(&(n as u64).to_le_bytes());
}

/// What holds of every accepted file: names are found again, sizes follow from shapes, ranges tile the data.
pub fn check_accepted(header: &Header, data_len: u64) {
    let mut cursor = 0;
    for i in 0..header.len() {
        let (begin, end) = header.range(i);
        assert_eq!(begin, cursor, "tensor {i} begins where the one before it ended");
        assert_eq!(u128::from(end - begin) * 8, u128::from(header.numel(i)) * u128::from(header.dtype(i).bits()));
        let product = header.shape(i).iter().try_fold(1u128, |p, &d| p.checked_mul(d.into()));
        let empty = header.shape(i).contains(&0);
        assert_eq!(u128::from(header.numel(i)), if empty { 0 } else { product.unwrap() });
        assert_eq!(header.find(header.name(i)), Some(i), "the name of tensor {i} leads back to it");
        cursor = end;
    }
    assert_eq!(cursor, data_len, "the last tensor ends with the file");
}
