//! What a holder's threads tell about the device: atomics, for the control thread to read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::status::{DeviceState, IoCounters};

/// Shared by a holder's threads.
#[derive(Debug)]
pub(super) struct Counters {
    reads: AtomicU64,
    read_bytes: AtomicU64,
    writes: AtomicU64,
    written_bytes: AtomicU64,
    flushes: AtomicU64,
    discards: AtomicU64,
    errors: AtomicU64,
    in_flight: AtomicU64,
    connections: AtomicU64,
    longest_stall: AtomicU64,
    state: Mutex<(DeviceState, Option<String>)>,
}

/// What a request was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Read(u64),
    Write(u64),
    Flush,
    Zero,
}

impl Counters {
    pub(super) fn new() -> Self {
        Self {
            reads: AtomicU64::new(0),
            read_bytes: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
            discards: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            longest_stall: AtomicU64::new(0),
            state: Mutex::new((DeviceState::Waiting, None)),
        }
    }

    pub(super) fn begun(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn ended(&self, kind: Kind, good: bool) {
        let add = |counter: &AtomicU64, n| counter.fetch_add(n, Ordering::Relaxed);
        match kind {
            _ if !good => add(&self.errors, 1),
            Kind::Read(bytes) => {
                add(&self.read_bytes, bytes);
                add(&self.reads, 1)
            }
            Kind::Write(bytes) => {
                add(&self.written_bytes, bytes);
                add(&self.writes, 1)
            }
            Kind::Flush => add(&self.flushes, 1),
            Kind::Zero => add(&self.discards, 1),
        };
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stalled(&self, for_: Duration) {
        let micros = u64::try_from(for_.as_micros()).unwrap_or(u64::MAX);
        self.longest_stall.fetch_max(micros, Ordering::Relaxed);
    }

    pub(super) fn set_state(&self, state: DeviceState, why: Option<String>) {
        *self.lock() = (state, why);
    }

    pub(super) fn state(&self) -> (DeviceState, Option<String>) {
        self.lock().clone()
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn reconnects(&self) -> u64 {
        self.connections.load(Ordering::Relaxed).saturating_sub(1)
    }

    pub(super) fn longest_stall(&self) -> u64 {
        self.longest_stall.load(Ordering::Relaxed)
    }

    pub(super) fn io(&self) -> IoCounters {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        IoCounters {
            reads: get(&self.reads),
            read_bytes: get(&self.read_bytes),
            writes: get(&self.writes),
            written_bytes: get(&self.written_bytes),
            flushes: get(&self.flushes),
            discards: get(&self.discards),
            errors: get(&self.errors),
            in_flight: get(&self.in_flight),
        }
    }

    fn lock(&self) -> MutexGuard<'_, (DeviceState, Option<String>)> {
        // Nothing can panic while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
