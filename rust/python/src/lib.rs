//! The PyO3 module `weightprint._core`: registers, and nothing else. Every rule lives in `weightprint-core` or in
//! Python.

mod arrays;
mod arrow;
mod assign;
mod cells;
mod columns;
mod errors;
mod file;
mod gateway;
mod measure;
mod nearest;
mod pair;
mod quant;
mod rect;
mod sample;
mod scan;
mod standardise;

/// The native half of weightprint; its documented face is the `weightprint` package.
#[pyo3::pymodule(gil_used = false)]
mod _core {
    use pyo3::exceptions::PyRuntimeWarning;
    use pyo3::prelude::*;

    /// Warns, since nothing else would show it, where the kernels are a debug build's.
    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        if cfg!(debug_assertions) {
            let message =
                c"weightprint was built without optimisation: it is many times slower; build it with --release";
            let py = module.py();
            PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), message, 1)?;
        }
        Ok(())
    }

    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");
    #[pymodule_export]
    use crate::arrow::arrow_stream;
    #[pymodule_export]
    use crate::assign::assign;
    #[pymodule_export]
    use crate::cells::cells;
    #[pymodule_export]
    use crate::file::{SafetensorsFile, parse_index};
    #[pymodule_export]
    use crate::measure::Measure;
    #[pymodule_export]
    use crate::nearest::nearest;
    #[pymodule_export]
    use crate::pair::{compare_stored, compare_values};
    #[pymodule_export]
    use crate::quant::{decode_codebook, decode_lookup, decode_packed, decode_scaled, unpack};
    #[pymodule_export]
    use crate::rect::read_rect;
    #[pymodule_export]
    use crate::sample::read_sample;
    #[pymodule_export]
    use crate::scan::{find_above, isa_available, scan};
    #[pymodule_export]
    use crate::standardise::{peaks, standardise};
}
