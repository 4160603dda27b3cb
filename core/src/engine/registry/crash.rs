//! Ends an engine between two durable steps, for tests.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::engine::api::Refusal;
use crate::engine::error::EngineError;

/// How many more steps are taken before the engine counts as dead; 0: it never dies.
#[derive(Debug, Default)]
pub(super) struct Crash {
    after: AtomicUsize,
    steps: AtomicUsize,
}

impl Crash {
    /// Dies at the n-th step from now, counted from 1.
    pub(super) fn at(&self, n: usize) {
        self.after.store(self.steps.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    }

    /// How many steps there were.
    pub(super) fn steps(&self) -> usize {
        self.steps.load(Ordering::Relaxed)
    }

    pub(super) fn step(&self) -> Result<(), EngineError> {
        let step = self.steps.fetch_add(1, Ordering::Relaxed) + 1;
        let after = self.after.load(Ordering::Relaxed);
        if after > 0 && step >= after {
            return Err(EngineError::new(Refusal::Internal, format!("died at step {step}")));
        }
        Ok(())
    }
}
