//! What an engine tells Prometheus.
//!
//! ```text
//!   GET /metrics ─► sample: each shard's groups, the pool, refused connections   (one pass, at most 5 s)
//!                        ─► families: name, help, unit, value per group          (pure)
//!                        ─► OpenMetrics text
//! ```
//!
//! Nothing is collected between scrapes: counts live where they are made, one cell each.

mod families;
mod text;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

pub(crate) use text::text;

use super::api::{Capacity, GroupId};
use super::error::EngineError;
use crate::replication::GroupStatus;

/// A group at one moment, with how many NBD connections have it open.
#[derive(Debug)]
pub(crate) struct GroupSample {
    pub(crate) group: GroupId,
    pub(crate) status: GroupStatus,
    pub(crate) clients: usize,
}

/// An engine at one moment.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) groups: Vec<GroupSample>,
    /// Groups and replicas that can't be opened.
    pub(crate) damaged: usize,
    pub(crate) replicas: usize,
    /// The pool's space, or why it can't be told.
    pub(crate) capacity: Result<Capacity, EngineError>,
    pub(crate) refused: BTreeMap<&'static str, u64>,
}

/// Connections that were refused since the start, by what they were for. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refused(Arc<Mutex<BTreeMap<&'static str, u64>>>);

impl Refused {
    /// From here on the count is told, though it be zero.
    pub(crate) fn watch(&self, what: &'static str) {
        self.add(what, 0);
    }

    /// One more.
    pub(crate) fn one(&self, what: &'static str) {
        self.add(what, 1);
    }

    fn add(&self, what: &'static str, n: u64) {
        // Nothing panics while it is held.
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += n;
    }

    /// All of them now.
    pub(crate) fn all(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
