//! What is measured: the library's scan, under the workload names that every benchmark of the project uses.

use std::path::PathBuf;

use weightprint_core::control::Control;
use weightprint_core::error::Result;
use weightprint_core::format::{Limits, Mode};
use weightprint_core::kernels::Isa;
use weightprint_core::scan::{Io, Request, Settings, Tensor, scan};
use weightprint_core::source::TensorFile;

/// (name, what is asked for). The first is what `weightprint stats` computes by default.
pub const WORKLOADS: &[(&str, Request)] = &[
    ("moments", Request { exact: false, rows: false, columns: false, digest: false }),
    ("rows", Request { exact: false, rows: true, columns: false, digest: false }),
    ("columns", Request { exact: false, rows: false, columns: true, digest: false }),
    ("exact", Request { exact: true, rows: false, columns: false, digest: false }),
    ("digest", Request { exact: false, rows: false, columns: false, digest: true }),
    ("all", Request { exact: true, rows: true, columns: false, digest: true }),
];

/// One case: a workload, an instruction set and a way to the bytes.
#[derive(Clone)]
pub struct Case {
    /// The workload's name.
    pub work: &'static str,
    request: Request,
    /// Instruction set, `auto` resolved.
    pub isa: Isa,
    /// `pread` or `mmap`.
    pub io: &'static str,
}

impl Case {
    /// From `WORK/ISA/IO`, e.g. `moments/auto/pread`.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        let usage = || format!("'{text}' is not WORK/ISA/IO, e.g. moments/auto/pread");
        let [work, isa, io] = text.split('/').collect::<Vec<_>>()[..] else { return Err(usage()) };
        let &(work, request) = WORKLOADS.iter().find(|w| w.0 == work).ok_or_else(usage)?;
        let isa = if isa == "auto" { Isa::detect() } else { Isa::from_name(isa).ok_or_else(usage)? };
        if !Isa::available().contains(&isa) {
            return Err(format!("this CPU has no {}", isa.name()));
        }
        let io = ["pread", "mmap"].into_iter().find(|&name| name == io).ok_or_else(usage)?;
        Ok(Self { work, request, isa, io })
    }
}

/// The open checkpoint.
pub struct Checkpoint {
    files: Vec<TensorFile>,
    tensors: Vec<Tensor>,
}

impl Checkpoint {
    /// Open every file and list every tensor.
    pub fn open(paths: &[PathBuf]) -> Result<Self> {
        let control = Control::new();
        let files = paths
            .iter()
            .map(|path| TensorFile::open(path, Mode::Strict, &Limits::default(), &control))
            .collect::<Result<Vec<_>>>()?;
        let open: Vec<&TensorFile> = files.iter().collect();
        let numbers = files.iter().enumerate().flat_map(|(i, f)| (0..f.header().len()).map(move |t| (i, t)));
        let tensors = numbers.map(|(file, tensor)| Tensor::new(&open, file, tensor)).collect();
        Ok(Self { files, tensors })
    }

    /// Elements of all tensors.
    pub fn elements(&self) -> u64 {
        self.tensors.iter().map(|t| t.components).sum()
    }

    /// One scan from end to end; every result is observed, so that nothing of it can be left out.
    pub fn scan(&self, case: &Case, threads: usize) -> Result<()> {
        let io = if case.io == "mmap" { Io::Mmap } else { Io::Pread };
        let settings = Settings { threads, io, isa: case.isa };
        let files: Vec<&TensorFile> = self.files.iter().collect();
        std::hint::black_box(scan(&files, &self.tensors, case.request, settings, &Control::new())?);
        Ok(())
    }
}
