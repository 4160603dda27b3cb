//! Traces: a text file of operations, and the digests that any two systems can be compared by.
//!
//! ```text
//!   W offset length byte     write on the primary          SW offset length byte   write by the
//!   Z offset length          zeroes on the primary                                 secondary's consumer
//!   D offset length          discard on the primary        C                       checkpoint
//!   F                        flush on the primary          X                       failover
//!   # and what follows it is a comment; numbers are decimal, or hexadecimal with 0x
//!
//!   each step prints    WORDS | ok or error | P md5 | S md5 | D md5
//!                       P the primary, S the view, D the secondary disk; after X, P is "-"
//! ```

mod generate;

pub use generate::{GenerateOptions, generate};

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use md5::{Digest, Md5};
use understudy_core::units::{u64_of, usize_of};

use crate::harness::nbd::{Client, Failure};

/// The most bytes one operation may touch: it is held in memory.
const LENGTH_MAX: u64 = 64 << 20;

/// The piece a disk is read in for its digest.
const PIECE: u64 = 4 << 20;

/// One operation of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `W`
    Write {
        /// First byte.
        offset: u64,
        /// How many bytes.
        length: u64,
        /// What each becomes.
        byte: u8,
    },
    /// `Z`
    Zeroes {
        /// First byte.
        offset: u64,
        /// How many bytes.
        length: u64,
    },
    /// `D`
    Discard {
        /// First byte.
        offset: u64,
        /// How many bytes.
        length: u64,
    },
    /// `F`
    Flush,
    /// `SW`
    SecondaryWrite {
        /// First byte.
        offset: u64,
        /// How many bytes.
        length: u64,
        /// What each becomes.
        byte: u8,
    },
    /// `C`
    Checkpoint,
    /// `X`
    Failover,
}

/// One line of a trace: its words as they were written, and what they mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The words, one blank between them.
    pub words: String,
    /// Their meaning.
    pub operation: Operation,
}

/// What the three places hold after a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digests {
    /// The primary; none after a failover.
    pub primary: Option<String>,
    /// The view; none when it cannot be read at all.
    pub view: Option<String>,
    /// The secondary disk.
    pub disk: String,
}

impl Step {
    /// Reads one line; `None` for one without words.
    fn parse(line: &str) -> Result<Option<Self>> {
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some((name, rest)) = words.split_first() else { return Ok(None) };
        let numbers = rest.iter().map(|word| number(word)).collect::<Result<Vec<u64>>>()?;
        let operation = match (*name, numbers.as_slice()) {
            ("W", &[offset, length, byte]) => {
                Operation::Write { offset, length, byte: byte.try_into()? }
            }
            ("SW", &[offset, length, byte]) => {
                Operation::SecondaryWrite { offset, length, byte: byte.try_into()? }
            }
            ("Z", &[offset, length]) => Operation::Zeroes { offset, length },
            ("D", &[offset, length]) => Operation::Discard { offset, length },
            ("F", []) => Operation::Flush,
            ("C", []) => Operation::Checkpoint,
            ("X", []) => Operation::Failover,
            _ => bail!(
                "not an operation: {line:?}; known are W and SW offset length byte, \
                 Z and D offset length, F, C, X"
            ),
        };
        if numbers.get(1).is_some_and(|length| *length > LENGTH_MAX) {
            bail!("{line:?}: longer than {LENGTH_MAX} bytes; split it");
        }
        Ok(Some(Self { words: words.join(" "), operation }))
    }

    /// The line that is printed after the step.
    pub fn line(&self, outcome: &std::result::Result<(), String>, digests: &Digests) -> String {
        let outcome = outcome.as_ref().map_or_else(String::as_str, |()| "ok");
        let primary = digests.primary.as_deref().unwrap_or("-");
        let view = digests.view.as_deref().unwrap_or("-");
        format!("{} | {outcome} | P {primary} | S {view} | D {}", self.words, digests.disk)
    }
}

fn number(word: &str) -> Result<u64> {
    let parsed = match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => word.parse(),
    };
    parsed.with_context(|| format!("{word:?} is not a number"))
}

/// Reads a whole trace; an error names the line.
pub fn parse(text: &str) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let step = Step::parse(line).with_context(|| format!("line {}", index + 1))?;
        steps.extend(step);
    }
    Ok(steps)
}

/// Reads the trace in a file.
pub fn read(path: &Path) -> Result<Vec<Step>> {
    let text = std::fs::read_to_string(path);
    let text = text.with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text).with_context(|| format!("in {}", path.display()))
}

/// Applies an operation that is a request to a disk. The error is the words to print.
pub fn apply(operation: &Operation, disk: Option<&mut Client>) -> std::result::Result<(), String> {
    let Some(disk) = disk else { return Err("no such disk any more".to_owned()) };
    let done = match *operation {
        Operation::Write { offset, length, byte }
        | Operation::SecondaryWrite { offset, length, byte } => {
            disk.write(offset, &vec![byte; usize_of(length)])
        }
        Operation::Zeroes { offset, length } => disk.write_zeroes(offset, length, false),
        Operation::Discard { offset, length } => disk.trim(offset, length),
        Operation::Flush => disk.flush(),
        Operation::Checkpoint | Operation::Failover => {
            return Err("not a disk's request".to_owned());
        }
    };
    done.map_err(|failure| failure.to_string())
}

/// The digest of a whole export.
pub fn digest(disk: &mut Client, size: u64) -> std::result::Result<String, Failure> {
    let mut md5 = Md5::new();
    let mut at = 0;
    while at < size {
        let piece = PIECE.min(size - at);
        md5.update(disk.read(at, piece)?);
        at += piece;
    }
    Ok(hex(&md5.finalize()))
}

/// The digest of a whole file.
pub fn digest_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut md5 = Md5::new();
    let mut piece = vec![0; usize_of(PIECE)];
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            return Ok(hex(&md5.finalize()));
        }
        md5.update(&piece[..read]);
    }
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a string cannot fail.
        let _written = write!(text, "{byte:02x}");
        text
    })
}

/// Makes a file of `size` bytes, each `byte`.
pub fn fill_file(path: &Path, size: u64, byte: u8) -> Result<()> {
    let mut file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    let piece = vec![byte; usize_of(PIECE.min(size))];
    let mut left = size;
    while left > 0 {
        let now = usize_of(left.min(u64_of(piece.len())));
        file.write_all(&piece[..now])?;
        left -= u64_of(now);
    }
    file.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_keeps_its_words_and_drops_comment_and_spacing() {
        let steps = parse("# head\n  W  0x1000 4096   0x22 # first\n\nC\n").unwrap();
        assert_eq!(steps.len(), 2);
        assert_eq!(steps[0].words, "W 0x1000 4096 0x22");
        assert_eq!(steps[0].operation, Operation::Write { offset: 4096, length: 4096, byte: 0x22 });
        assert_eq!(steps[1].operation, Operation::Checkpoint);
    }

    #[test]
    fn a_bad_line_is_refused_by_its_number() {
        for bad in ["W 0 4096", "Q 1", "W 0 4096 0x1ff", "Z zero 1", "C 1", "W 0 1000000000000 1"] {
            let error = format!("{:#}", parse(&format!("C\n{bad}\n")).unwrap_err());
            assert!(error.contains("line 2"), "{error}");
        }
    }

    #[test]
    fn a_line_after_a_failover_has_no_primary() {
        let step = Step::parse("SW 0 512 0x55").unwrap().unwrap();
        let digests = Digests { primary: None, view: Some("aa".into()), disk: "bb".into() };
        assert_eq!(step.line(&Ok(()), &digests), "SW 0 512 0x55 | ok | P - | S aa | D bb");
        let failed = Err("Input/output error".to_owned());
        assert!(step.line(&failed, &digests).contains("0x55 | Input/output error | P -"));
    }
}
