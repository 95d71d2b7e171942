//! One timed run: wall time, CPU time of the whole process, page faults.
//!
//! CPU over wall says how many threads really ran: below the thread count, a neighbour took a core and the run is not
//! to be trusted. Major faults say that the file was not warm.

use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

/// What one run cost.
pub struct Run {
    wall: f64,
    cpu: f64,
    minor_faults: u64,
    major_faults: u64,
}

impl Run {
    /// Run `work` and measure it; the caller must have made its result count (`black_box`).
    pub fn of(work: impl FnOnce()) -> Self {
        let (cpu, faults, start) = (cpu_seconds(), page_faults(), Instant::now());
        work();
        let wall = start.elapsed().as_secs_f64();
        let later = page_faults();
        Self { wall, cpu: cpu_seconds() - cpu, minor_faults: later.0 - faults.0, major_faults: later.1 - faults.1 }
    }

    /// As one JSON object.
    pub fn json(&self) -> Value {
        json!({ "wall": self.wall, "cpu": self.cpu, "minor_faults": self.minor_faults, "major_faults": self.major_faults })
    }
}

/// CPU seconds this process has used, over all threads, the finished ones included.
fn cpu_seconds() -> f64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 * 1e-9
}

/// (minor, major) page faults of this process so far: fields 10 and 12 of /proc/self/stat, 0 where there is none.
fn page_faults() -> (u64, u64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field is the program's name in parentheses and may hold spaces.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let field = |i: usize| fields.get(i).and_then(|f| f.parse().ok()).unwrap_or(0);
    (field(7), field(9))
}

/// Peak resident memory of this process so far, in bytes; 0 where the system does not tell.
pub fn peak_rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or("");
    line.trim().trim_end_matches("kB").trim().parse().map_or(0, |kb: u64| kb << 10)
}
