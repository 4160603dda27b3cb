//! What the tests of this layer share.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;

use crate::disk::{Disk, Memory, Result};
use crate::runtime::{Buf, Data, Signal};
use crate::units::{ByteOffset, ByteRange, u64_of};

/// Random numbers whose seed is printed, and taken from `UNDERSTUDY_SEED` when that is set.
pub(super) struct Random(u64);

impl Random {
    /// A fresh seed, or the one that the environment names.
    pub(super) fn from_environment(test: &str) -> Self {
        use std::hash::{BuildHasher, RandomState};
        let seed = match std::env::var("UNDERSTUDY_SEED") {
            Ok(text) => text.parse().unwrap(),
            Err(_) => RandomState::new().hash_one(test),
        };
        println!("{test}: UNDERSTUDY_SEED={seed}");
        Self(seed)
    }

    /// The next 64 bits (splitmix64).
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`; 0 if that is 0.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}

/// A disk in memory whose requests wait while the gate is shut, and take effect when they end.
#[derive(Clone)]
pub(super) struct Gated {
    pub(super) inner: Memory,
    shut: Rc<Cell<bool>>,
    flushes: Rc<Cell<u64>>,
    alignment: u64,
    signal: Signal,
}

impl Gated {
    pub(super) fn new(len: u64, alignment: u64) -> Self {
        let inner = Memory::new(len, 0);
        Self {
            inner,
            shut: Rc::default(),
            flushes: Rc::default(),
            alignment,
            signal: Signal::new(),
        }
    }

    pub(super) fn shut(&self, shut: bool) {
        self.shut.set(shut);
        self.signal.notify();
    }

    pub(super) fn flushes(&self) -> u64 {
        self.flushes.get()
    }

    fn open(&self) -> impl Future<Output = Self> + 'static + use<> {
        let gate = self.clone();
        async move {
            gate.signal.wait_until(|| !gate.shut.get()).await;
            gate
        }
    }

    fn check(&self, at: u64, len: u64) {
        assert!(
            ByteRange::new(at, at + len).is_aligned(self.alignment),
            "{at}+{len} is not aligned"
        );
    }
}

impl Disk for Gated {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn alignment(&self) -> u64 {
        self.alignment
    }

    fn read(&self, at: ByteOffset, buf: Buf) -> impl Future<Output = (Buf, Result<()>)> + 'static {
        self.check(at.0, u64_of(buf.len()));
        let open = self.open();
        async move { open.await.inner.read(at, buf).await }
    }

    fn write(&self, at: ByteOffset, data: Data) -> impl Future<Output = Result<()>> + 'static {
        self.writev(at, vec![data])
    }

    fn writev(
        &self,
        at: ByteOffset,
        data: Vec<Data>,
    ) -> impl Future<Output = Result<()>> + 'static {
        self.check(at.0, data.iter().map(|d| u64_of(d.len())).sum());
        let open = self.open();
        async move { open.await.inner.writev(at, data).await }
    }

    fn write_zeroes(
        &self,
        range: ByteRange,
        punch: bool,
    ) -> impl Future<Output = Result<()>> + 'static {
        self.check(range.start, range.len());
        let open = self.open();
        async move { open.await.inner.write_zeroes(range, punch).await }
    }

    fn flush(&self) -> impl Future<Output = Result<()>> + 'static {
        let open = self.open();
        async move {
            let gate = open.await;
            gate.flushes.set(gate.flushes.get() + 1);
            gate.inner.flush().await
        }
    }
}
