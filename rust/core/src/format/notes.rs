//! Collects warnings: what was accepted but is worth saying. Their number is bounded: a hostile header cannot make a
//! million notes.

/// A warning: accepted, but worth saying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// A stable snake_case code; for a liberty taken in `Compatible`, the code of the error that `Strict` gives.
    pub code: &'static str,
    /// One sentence for a person; names in it are escaped.
    pub message: String,
    /// The tensor's name as stored (not escaped), when it is about one.
    pub tensor: Option<String>,
    /// Byte offset in the file, when one is known.
    pub offset: Option<u64>,
}

impl Note {
    /// A note about the file as a whole.
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), tensor: None, offset: None }
    }

    /// Name the tensor.
    pub(super) fn about(mut self, tensor: &str) -> Self {
        self.tensor = Some(tensor.to_owned());
        self
    }

    /// Name the byte.
    pub(super) fn at(mut self, offset: u64) -> Self {
        self.offset = Some(offset);
        self
    }
}

/// Notes kept for each code; more are only counted.
const KEPT: usize = 20;

/// Collects notes: the first few of each code, and how many more there were.
#[derive(Debug, Default)]
pub(super) struct Notes {
    list: Vec<Note>,
    seen: Vec<(&'static str, usize)>,
}

impl Notes {
    /// Add the note that `make` builds, or only count it when its code was kept often enough.
    pub fn push(&mut self, code: &'static str, make: impl FnOnce() -> Note) {
        let count = match self.seen.iter_mut().find(|(c, _)| *c == code) {
            Some((_, count)) => count,
            None => {
                self.seen.push((code, 0));
                &mut self.seen.last_mut().expect("pushed on the line above").1
            }
        };
        *count += 1;
        if *count <= KEPT {
            self.list.push(make());
        }
    }

    /// The notes, with one line more for each code that was cut.
    pub fn finish(mut self) -> Vec<Note> {
        for (code, count) in self.seen {
            if count > KEPT {
                self.list.push(Note::new(code, format!("… and {} more like this", count - KEPT)));
            }
        }
        self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted() {
        let mut notes = Notes::default();
        for i in 0..1000 {
            notes.push("a", || Note::new("a", i.to_string()));
        }
        notes.push("b", || Note::new("b", "once").about("t").at(3));
        let list = notes.finish();
        assert_eq!(list.len(), KEPT + 2);
        assert_eq!(list[KEPT].code, "b");
        assert_eq!(list[KEPT + 1].message, "… and 980 more like this");
    }
}
