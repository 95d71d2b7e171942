//! Cuts a list of tensors into work units of about 8 MiB, so that one huge embedding does not serialise the scan.
//!
//! A unit is a run of bytes of one tensor that starts at a multiple of 8 MiB ([`digest::LEAF`](super::digest::LEAF));
//! it is read in chunks of 512 KiB. Both cuts depend on the dtype and the tensor's size alone, never on the thread
//! count, the machine or the I/O path, so the same tensor always goes through the same sequence of kernel calls and the
//! results have the same bits. Rows may straddle units: their partial sums are merged like everything else.

use super::digest::LEAF;
use crate::dtype::Dtype;
use crate::source::TensorFile;

/// Bytes read at once into a thread's buffer: half of a typical L2, and what measured fastest for `pread`.
pub const CHUNK: u64 = 512 << 10;

/// One tensor of a list of files, with all that a scan needs to know of it.
#[derive(Debug, Clone)]
pub struct Tensor {
    /// Which of the scan's files.
    pub file: usize,
    /// Its number in that file's header, for error messages.
    pub index: usize,
    /// Element type.
    pub dtype: Dtype,
    /// First byte, from the start of the file.
    pub offset: u64,
    /// Bytes.
    pub nbytes: u64,
    /// Real numbers: elements, or twice as many for complex types.
    pub components: u64,
    /// Components in one row (the last axis), for tensors of rank 2 or more that are not empty.
    pub row: Option<u64>,
    /// Key of the signs of its linear sketch; `None` for no sketch.
    pub sketch: Option<u64>,
}

impl Tensor {
    /// Tensor `index` of `files[file]`.
    pub fn new(files: &[&TensorFile], file: usize, index: usize) -> Self {
        let (source, header) = (files[file], files[file].header());
        let (dtype, shape, (begin, end)) = (header.dtype(index), header.shape(index), header.range(index));
        let components = header.numel(index) * dtype.components();
        let row = (shape.len() >= 2 && components > 0).then(|| shape[shape.len() - 1] * dtype.components());
        Self {
            file,
            index,
            dtype,
            offset: source.data_start() + begin,
            nbytes: end - begin,
            components,
            row,
            sketch: None,
        }
    }

    /// Bytes per unit and per chunk. A 6-bit element straddles bytes, four of them fill three; so its cuts are
    /// multiples of three as well.
    fn cuts(&self) -> (u64, u64) {
        if self.dtype.bits() == 6 { (3 * LEAF, 3 * (CHUNK >> 2)) } else { (LEAF, CHUNK) }
    }

    /// How many units the tensor is cut into; an empty tensor has one, which reads nothing.
    pub fn n_units(&self) -> u64 {
        self.nbytes.div_ceil(self.cuts().0).max(1)
    }

    /// The unit `number` of this tensor, which stands at `tensor` in the scan's list.
    pub fn unit(&self, tensor: usize, number: u64) -> Unit {
        let (unit, chunk) = self.cuts();
        Unit { tensor, number, start: number * unit, end: (number * unit + unit).min(self.nbytes), chunk }
    }

    /// The component that starts at `byte` of the tensor (a chunk's start).
    pub fn component_at(&self, byte: u64) -> u64 {
        // Split so that byte × 8 cannot overflow.
        let bits = u64::from(self.dtype.bits());
        (byte / bits * 8 + byte % bits * 8 / bits) * self.dtype.components()
    }
}

/// A run of bytes of one tensor: the smallest thing a thread takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unit {
    /// Which of the scan's tensors.
    pub tensor: usize,
    /// Which of that tensor's units, from 0.
    pub number: u64,
    /// First byte within the tensor.
    pub start: u64,
    /// One past the last byte within the tensor.
    pub end: u64,
    /// Bytes per chunk.
    chunk: u64,
}

impl Unit {
    /// The unit's chunks as (begin, end) within the tensor.
    pub fn chunks(self) -> impl Iterator<Item = (u64, u64)> {
        let step = self.chunk;
        (self.start..self.end).step_by(step as usize).map(move |begin| (begin, (begin + step).min(self.end)))
    }
}

/// All units of `tensors`, in plan order: tensor by tensor, front to back. Computed, not stored: a terabyte has 10^5.
pub struct Plan<'a> {
    tensors: &'a [Tensor],
    /// First unit of each tensor, and the total at the end.
    first: Vec<u64>,
}

impl<'a> Plan<'a> {
    /// The plan for `tensors`.
    pub fn new(tensors: &'a [Tensor]) -> Self {
        let mut first = Vec::with_capacity(tensors.len() + 1);
        let mut total = 0;
        for tensor in tensors {
            first.push(total);
            total += tensor.n_units();
        }
        first.push(total);
        Self { tensors, first }
    }

    /// How many units there are.
    pub fn len(&self) -> u64 {
        self.first[self.tensors.len()]
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Unit `i` of the plan.
    pub fn unit(&self, i: u64) -> Unit {
        let tensor = self.first.partition_point(|&first| first <= i) - 1;
        self.tensors[tensor].unit(tensor, i - self.first[tensor])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(dtype: Dtype, components: u64) -> Tensor {
        let nbytes = components / dtype.components() * u64::from(dtype.bits()) / 8;
        Tensor { file: 0, index: 0, dtype, offset: 100, nbytes, components, row: None, sketch: None }
    }

    #[test]
    fn units_and_chunks_tile_every_tensor_at_element_boundaries() {
        let tensors: Vec<Tensor> = Dtype::all()
            .flat_map(|dtype| [0, 8, 1 << 20, 20_000_008, 40 << 20].map(|n| tensor(dtype, n * dtype.components())))
            .collect();
        let plan = Plan::new(&tensors);
        let mut seen = vec![0; tensors.len()];
        for i in 0..plan.len() {
            let unit = plan.unit(i);
            let t = &tensors[unit.tensor];
            assert_eq!(unit.start, seen[unit.tensor], "{t:?}");
            for (begin, end) in unit.chunks() {
                assert_eq!(begin, seen[unit.tensor]);
                assert!(end - begin <= CHUNK);
                assert_eq!(begin * 8 % u64::from(t.dtype.bits()), 0, "a chunk starts inside an element of {t:?}");
                assert_eq!(t.component_at(begin), begin * 8 / u64::from(t.dtype.bits()) * t.dtype.components());
                seen[unit.tensor] = end;
            }
            seen[unit.tensor] = unit.end;
        }
        assert!(tensors.iter().zip(&seen).all(|(t, &end)| t.nbytes == end));
    }
}
