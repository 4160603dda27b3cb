//! What happened, in order: as a hash that two runs of one seed share, and as its last lines for people.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use super::node::Node;

/// How many lines a failure shows.
const LINES: usize = 48;

/// One thing that happened.
pub(super) struct Line {
    pub(super) at: Duration,
    pub(super) node: Option<Rc<Node>>,
    pub(super) what: &'static str,
    /// Of what: a task, a file.
    pub(super) of: Rc<str>,
    pub(super) number: u64,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = self.node.as_ref().map_or("", |n| n.name.as_str());
        write!(f, "{:>14.6?} {node:<10} {:<10} {} {}", self.at, self.what, self.of, self.number)
    }
}

/// The trace of one world.
pub(super) struct Trace {
    hash: Cell<u64>,
    last: RefCell<VecDeque<Line>>,
    /// Whether each line is printed as it happens (`UNDERSTUDY_TRACE` is set).
    loud: bool,
}

impl Trace {
    pub(super) fn new() -> Self {
        let loud = std::env::var_os("UNDERSTUDY_TRACE").is_some();
        Self { hash: Cell::new(0xcbf2_9ce4_8422_2325), last: RefCell::default(), loud }
    }

    pub(super) fn add(&self, line: Line) {
        let node = line.node.as_ref().map_or("", |n| n.name.as_str());
        let time = line.at.as_nanos().to_le_bytes();
        let text = node.bytes().chain(line.what.bytes()).chain(line.of.bytes());
        let all = text.chain(time).chain(line.number.to_le_bytes());
        let hash = all.fold(self.hash.get(), |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        self.hash.set(hash);
        if self.loud {
            eprintln!("{line}");
        }
        let mut last = self.last.borrow_mut();
        if last.len() == LINES {
            last.pop_front();
        }
        last.push_back(line);
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash.get()
    }

    /// The last lines, oldest first.
    pub(super) fn lines(&self) -> Vec<String> {
        self.last.borrow().iter().map(ToString::to_string).collect()
    }
}
