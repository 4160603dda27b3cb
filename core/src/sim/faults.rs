//! Errors of disks on command: which requests of which file fail, and how.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::random::Random;
use crate::disk::ErrorKind;

/// What kind of request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Operation {
    /// A read.
    Read,
    /// A write, or zeroes.
    Write,
    /// A flush.
    Flush,
    /// Creating the file.
    Create,
}

/// Which of those requests fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// None, from now on.
    Never,
    /// All, from now on.
    Always,
    /// One: the n-th from now on, 0 being the next.
    Nth(u64),
    /// Each with a chance of one in this many.
    OneIn(u64),
}

/// The failures that were asked for, of one node.
#[derive(Default)]
pub(super) struct Injected(RefCell<BTreeMap<(String, Operation), (Failure, ErrorKind)>>);

impl Injected {
    pub(super) fn set(&self, path: &str, operation: Operation, failure: Failure, kind: ErrorKind) {
        self.0.borrow_mut().insert((path.to_owned(), operation), (failure, kind));
    }

    /// Whether the next such request fails, and how. Counts it.
    pub(super) fn next(
        &self,
        path: &str,
        operation: Operation,
        random: &Random,
    ) -> Option<ErrorKind> {
        let mut all = self.0.borrow_mut();
        if all.is_empty() {
            return None;
        }
        let (failure, kind) = all.get_mut(&(path.to_owned(), operation))?;
        let fails = match failure {
            Failure::Never => false,
            Failure::Always => true,
            Failure::OneIn(n) => random.one_in(*n),
            Failure::Nth(0) => {
                *failure = Failure::Never;
                true
            }
            Failure::Nth(n) => {
                *n -= 1;
                false
            }
        };
        fails.then_some(*kind)
    }
}
