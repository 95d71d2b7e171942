//! Properties of the header parser over random input: no panic, no broken promise, and what was written is read.

mod common;
#[path = "common/mutate.rs"]
mod mutate;

use mutate::{Random, check_accepted, mutate};
use proptest::prelude::*;
use weightprint_core::control::Control;
use weightprint_core::dtype::Dtype;
use weightprint_core::format::{Header, Index, Limits, Mode, parse_bytes};

fn parse(file: &[u8], mode: Mode) -> weightprint_core::error::Result<Header> {
    parse_bytes(file, mode, &Limits::default(), &Control::new())
}

/// A file of these tensors, one after another, and of this metadata, as any JSON library would write it.
fn write(tensors: &[(String, Dtype, Vec<u64>)], metadata: &[(String, String)], pad: usize) -> Vec<u8> {
    let quote = |text: &str| serde_json::to_string(text).unwrap();
    let mut parts = Vec::new();
    if !metadata.is_empty() {
        let pairs: Vec<_> = metadata.iter().map(|(k, v)| format!("{}:{}", quote(k), quote(v))).collect();
        parts.push(format!("\"__metadata__\":{{{}}}", pairs.join(",")));
    }
    let mut end = 0;
    for (name, dtype, shape) in tensors {
        let begin = end;
        end += shape.iter().product::<u64>() * u64::from(dtype.bits()) / 8;
        let (name, dtype) = (quote(name), dtype.name());
        parts.push(format!("{name}:{{\"dtype\":\"{dtype}\",\"shape\":{shape:?},\"data_offsets\":[{begin},{end}]}}"));
    }
    let json = format!("{{{}}}{}", parts.join(","), " ".repeat(pad));
    let mut file = (json.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(json.as_bytes());
    file.resize(file.len() + end as usize, 0);
    file
}

/// Tensors of distinct names, whose sizes are whole bytes.
fn tensors() -> impl Strategy<Value = Vec<(String, Dtype, Vec<u64>)>> {
    let dtype = proptest::sample::select(Dtype::all().collect::<Vec<_>>());
    let shape = proptest::collection::vec(0u64..5, 0..4);
    proptest::collection::btree_map(any::<String>(), (dtype, shape), 0..20).prop_map(|map| {
        map.into_iter()
            .filter(|(name, _)| name != "__metadata__")
            .map(|(name, (dtype, mut shape))| {
                if dtype.bits() < 8 {
                    shape.push(4);
                }
                (name, dtype, shape)
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        tensors in tensors(),
        metadata in proptest::collection::btree_map(any::<String>(), any::<String>(), 0..5),
        pad in 0usize..9,
    ) {
        let metadata: Vec<_> = metadata.into_iter().collect();
        let file = write(&tensors, &metadata, pad);
        for mode in [Mode::Strict, Mode::Compatible] {
            let header = parse(&file, mode).unwrap();
            prop_assert_eq!(header.len(), tensors.len());
            for (name, dtype, shape) in &tensors {
                let i = header.find(name).unwrap();
                prop_assert_eq!(header.name(i), name);
                prop_assert_eq!(header.dtype(i), *dtype);
                prop_assert_eq!(&header.shape(i), shape);
            }
            prop_assert_eq!(header.metadata(), &metadata[..]);
            let n = u64::from_le_bytes(*file.first_chunk().unwrap());
            check_accepted(&header, file.len() as u64 - 8 - n);
        }
    }

    #[test]
    fn any_bytes_have_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for mode in [Mode::Strict, Mode::Compatible] {
            let _ = parse(&bytes, mode);
            let _ = Header::parse(&bytes, bytes.len() as u64, mode, &Limits::default(), &Control::new());
        }
        let _ = Index::parse(&bytes, &Limits::default(), &Control::new());
    }

    #[test]
    fn any_text_as_header_has_an_answer(text in "[\\[\\]{}\",:0-9a-z_\\\\ ]{0,80}", data_len in any::<u64>()) {
        for mode in [Mode::Strict, Mode::Compatible] {
            if let Ok(header) = Header::parse(text.as_bytes(), data_len, mode, &Limits::default(), &Control::new()) {
                check_accepted(&header, data_len);
            }
        }
    }
}

#[test]
fn mutated_rows_have_an_answer() {
    let rows: Vec<_> = common::rows().iter().filter(|row| row.nbytes() < 4000).map(common::Row::content).collect();
    let mut random = Random(2026);
    for _ in 0..100_000 {
        let mut file = random.pick(&rows).clone();
        let other = random.pick(&rows).clone();
        mutate(&mut file, &other, &mut random);
        let (strict, compatible) = (parse(&file, Mode::Strict), parse(&file, Mode::Compatible));
        for header in [&strict, &compatible].into_iter().flatten() {
            let n = u64::from_le_bytes(*file.first_chunk().unwrap());
            check_accepted(header, file.len() as u64 - 8 - n);
        }
        assert!(strict.is_err() || compatible.is_ok(), "strict accepts what compatible refuses: {file:?}");
    }
}
