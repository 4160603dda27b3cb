//! A slow disk and a catalog of it, for the tests of this module.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use super::test_stream::World;
use super::{Catalog, Export, ExportInfo, Refusal, Revocation};
use crate::disk::{Disk, Memory, Result};
use crate::runtime::{Buf, Data, Env};
use crate::units::{ByteOffset, ByteRange, u64_of};

/// A disk that takes its time, by default none.
#[derive(Clone)]
pub(super) struct Slow<D>(Rc<Inner<D>>);

struct Inner<D> {
    disk: D,
    world: World,
    alignment: Cell<u64>,
    /// How long a request takes at most; each takes a random part of it.
    delay: Cell<Duration>,
    now: Cell<usize>,
    peak: Cell<usize>,
    /// What `allocation` answers; all allocated if none is set.
    holes: RefCell<Vec<ByteRange>>,
}

impl<D: Disk> Slow<D> {
    pub(super) fn new(world: &World, disk: D) -> Self {
        Self(Rc::new(Inner {
            disk,
            world: world.clone(),
            alignment: Cell::new(1),
            delay: Cell::default(),
            now: Cell::new(0),
            peak: Cell::new(0),
            holes: RefCell::default(),
        }))
    }

    pub(super) fn delay(&self, delay: Duration) {
        self.0.delay.set(delay);
    }

    pub(super) fn align(&self, alignment: u64) {
        self.0.alignment.set(alignment);
    }

    pub(super) fn holes(&self, holes: &[ByteRange]) {
        *self.0.holes.borrow_mut() = holes.to_vec();
    }

    /// How many requests are in flight now, and how many were at most.
    pub(super) fn load(&self) -> (usize, usize) {
        (self.0.now.get(), self.0.peak.get())
    }

    fn slowly<T>(
        &self,
        work: impl Future<Output = T> + 'static,
    ) -> impl Future<Output = T> + 'static {
        let inner = self.0.clone();
        let limit = u64::try_from(inner.delay.get().as_micros()).unwrap();
        let delay = if limit == 0 { 0 } else { inner.world.random() % limit };
        async move {
            let now = inner.now.get() + 1;
            inner.now.set(now);
            inner.peak.set(inner.peak.get().max(now));
            if delay > 0 {
                inner.world.sleep(Duration::from_micros(delay)).await;
            }
            let out = work.await;
            inner.now.set(inner.now.get() - 1);
            out
        }
    }

    fn aligned(&self, at: u64, len: u64) {
        let range = ByteRange::new(at, at + len);
        assert!(range.is_aligned(self.0.alignment.get()), "misaligned {range} reached the disk");
    }
}

impl<D: Disk> Disk for Slow<D> {
    fn len(&self) -> u64 {
        self.0.disk.len()
    }

    fn alignment(&self) -> u64 {
        self.0.alignment.get()
    }

    fn read(&self, at: ByteOffset, buf: Buf) -> impl Future<Output = (Buf, Result<()>)> + 'static {
        self.aligned(at.0, u64_of(buf.len()));
        self.slowly(self.0.disk.read(at, buf))
    }

    fn write(&self, at: ByteOffset, data: Data) -> impl Future<Output = Result<()>> + 'static {
        self.aligned(at.0, u64_of(data.len()));
        self.slowly(self.0.disk.write(at, data))
    }

    fn writev(
        &self,
        at: ByteOffset,
        data: Vec<Data>,
    ) -> impl Future<Output = Result<()>> + 'static {
        self.slowly(self.0.disk.writev(at, data))
    }

    fn write_zeroes(
        &self,
        range: ByteRange,
        punch: bool,
    ) -> impl Future<Output = Result<()>> + 'static {
        self.aligned(range.start, range.len());
        self.slowly(self.0.disk.write_zeroes(range, punch))
    }

    fn flush(&self) -> impl Future<Output = Result<()>> + 'static {
        self.slowly(self.0.disk.flush())
    }

    fn allocation(
        &self,
        range: ByteRange,
    ) -> impl Future<Output = Result<Vec<(ByteRange, bool)>>> + 'static {
        let mut parts = Vec::new();
        let mut at = range.start;
        for hole in self.0.holes.borrow().iter().map(|h| h.intersect(range)) {
            if !hole.is_empty() {
                parts.push((ByteRange::new(at, hole.start), true));
                parts.push((hole, false));
                at = hole.end;
            }
        }
        parts.push((ByteRange::new(at, range.end), true));
        parts.retain(|(p, _)| !p.is_empty());
        self.slowly(std::future::ready(Ok(parts)))
    }
}

/// One export named `vol`.
#[derive(Clone)]
pub(super) struct One<D> {
    pub(super) disk: D,
    pub(super) read_only: bool,
    pub(super) maximum: Option<u32>,
    pub(super) revoked: Revocation,
}

impl<D: Disk> One<D> {
    pub(super) fn new(disk: D) -> Self {
        Self { disk, read_only: false, maximum: None, revoked: Revocation::new() }
    }
}

impl<D: Disk> Catalog for One<D> {
    type Disk = D;

    fn list(&self) -> Vec<ExportInfo> {
        vec![ExportInfo { name: "vol".into(), description: "a volume".into() }]
    }

    fn open(&self, name: &str) -> std::result::Result<Export<D>, Refusal> {
        if name != "vol" {
            return Err(Refusal::unknown(format!("no export '{name}'; there is 'vol'")));
        }
        let mut export = Export::new(self.disk.clone());
        export.read_only = self.read_only;
        export.revoked = self.revoked.clone();
        export.blocks.maximum = self.maximum.unwrap_or(export.blocks.maximum);
        Ok(export)
    }
}

/// A slow disk over memory filled with `fill`.
pub(super) fn slow(world: &World, len: u64, fill: u8) -> Slow<Memory> {
    Slow::new(world, Memory::new(len, fill))
}
