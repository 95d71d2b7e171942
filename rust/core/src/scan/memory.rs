//! Computes the statistics of a tensor that lies in no file: its float32 values come piece by piece, in flat order.
//!
//! Pieces are gathered into the very units that a file of these values would be cut into ([`plan`](super::plan)), and
//! each unit goes through the same worker as a unit of a file. So there is one implementation of every statistic, and
//! the bits are those of scanning that file, whatever the sizes of the pieces. Memory: one unit (at most 8 MiB), and
//! the partial results.

use super::plan::Tensor;
use super::reader::Source;
use super::request::{Io, Request, Settings};
use super::result::TensorResult;
use super::run::{Job, State, Worker};
use crate::control::Control;
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::kernels::Isa;

/// Statistics of one tensor in the making.
pub struct Measure {
    tensor: Tensor,
    request: Request,
    isa: Isa,
    /// Bytes of the unit that is being gathered.
    gathered: Vec<u8>,
    /// Units done.
    done: u64,
    state: State,
}

impl Measure {
    /// For float32 values of this shape, and with a key for the signs their linear sketch too. Errors: more values than 2^61.
    pub fn new(shape: &[u64], request: Request, sketch: Option<u64>, isa: Isa) -> Result<Self> {
        let components = shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d)).filter(|&n| n < 1 << 61);
        let Some(components) = components else {
            return Err(Error::usage("shape_too_large", format!("a tensor of shape {shape:?} has too many values")));
        };
        let row = (shape.len() >= 2 && components > 0).then(|| shape[shape.len() - 1]);
        let tensor =
            Tensor { file: 0, index: 0, dtype: Dtype::F32, offset: 0, nbytes: 4 * components, components, row, sketch };
        let mut measure = Self { tensor, request, isa, gathered: Vec::new(), done: 0, state: State::Waiting };
        if components == 0 {
            measure.run_unit(&Control::new())?;
        }
        Ok(measure)
    }

    /// The next values: little-endian float32, any number of them.
    ///
    /// Errors: half a value, or more values than the shape holds; `Cancelled`, after which nothing more may be added.
    pub fn add(&mut self, mut bytes: &[u8], control: &Control) -> Result<()> {
        let left = self.tensor.nbytes - self.bytes_seen();
        if !bytes.len().is_multiple_of(4) || bytes.len() as u64 > left {
            let message = format!("{} bytes added where {left} bytes of float32 are left", bytes.len());
            return Err(Error::usage("bad_piece", message));
        }
        while !bytes.is_empty() {
            let unit = self.tensor.unit(0, self.done);
            let size = (unit.end - unit.start) as usize;
            let (now, later) = bytes.split_at((size - self.gathered.len()).min(bytes.len()));
            self.gathered.reserve_exact(size - self.gathered.len());
            self.gathered.extend_from_slice(now);
            if self.gathered.len() == size {
                self.run_unit(control)?;
            }
            bytes = later;
        }
        Ok(())
    }

    /// What was found. Errors: values are missing.
    pub fn finish(self) -> Result<TensorResult> {
        let seen = self.bytes_seen();
        match self.state {
            State::Done(result) if seen == self.tensor.nbytes => Ok(*result),
            _ => {
                let message = format!("{} of {} values were added", seen / 4, self.tensor.components);
                Err(Error::usage("values_missing", message))
            }
        }
    }

    fn bytes_seen(&self) -> u64 {
        let units = if self.done == self.tensor.n_units() { self.tensor.nbytes } else { self.start() };
        units + self.gathered.len() as u64
    }

    /// First byte of the unit that is being gathered.
    fn start(&self) -> u64 {
        self.tensor.unit(0, self.done).start
    }

    /// The gathered unit through a worker, as a job of its own that takes the tensor's state along.
    fn run_unit(&mut self, control: &Control) -> Result<()> {
        let tensors = std::slice::from_ref(&self.tensor);
        let states = vec![std::mem::replace(&mut self.state, State::Waiting)];
        let settings = Settings { threads: 1, io: Io::Pread, isa: self.isa };
        let source = Source::Memory(self.start(), &self.gathered);
        let job = Job::new(&[], source, tensors, self.request, settings, control, states);
        Worker::new(&job).run(self.tensor.unit(0, self.done))?;
        let Some(state) = job.into_states().next() else { unreachable!("the job of one tensor") };
        self.state = state;
        self.done += 1;
        self.gathered.clear();
        Ok(())
    }
}
