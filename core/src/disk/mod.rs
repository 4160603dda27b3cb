//! Places for bytes: one small trait for disks, one for the directory they lie in.
//!
//! ```text
//!   Host = Env + Dir                    what a shard, or the simulator, offers to a group
//!    Dir: create / open / remove / list files by name
//!     └─ Disk: len, read, write, write_zeroes, discard, flush at an offset
//!         ├─ File      file or block device (production); its Dir is a Folder
//!         ├─ Memory    tests
//!         ├─ Fault<D>  fails on command
//!         └─ nbd::Client, the views and volumes of the layers above
//! ```

mod error;
mod fault;
mod file;
mod fill;
mod flush;
mod folder;
mod geometry;
mod lock;
mod memory;
mod zeroes;

#[cfg(test)]
mod tests;

pub use error::{Error, ErrorKind, Result};
pub use fault::{Fault, Faults};
pub use file::File;
pub use folder::Folder;
pub use geometry::Caching;
pub(crate) use lock::lock_file;
pub use memory::Memory;

use std::future::Future;

use crate::bug::{Bug, bug};
use crate::runtime::{Buf, Data, Env};
use crate::units::{ByteOffset, ByteRange};

/// Something with a length that bytes are read from and written to at offsets.
///
/// Clones are the same disk. A *leaf* (file, memory) submits at the call and its future only waits,
/// so that N operations are a list of futures awaited in any order; a layer above may begin at its
/// first poll. A dropped future does not undo its request.
///
/// Two requests in flight that overlap have no order: who cares holds a range lock.
/// After a flush has failed, a disk is poisoned: everything fails with [`ErrorKind::Poisoned`].
#[allow(
    clippy::len_without_is_empty,
    reason = "a disk has at least one sector: there is nothing to ask"
)]
pub trait Disk: Clone + 'static {
    /// Its length in bytes.
    fn len(&self) -> u64;

    /// Offsets and lengths of requests must be multiples of this (a power of two; 1 for any).
    fn alignment(&self) -> u64 {
        1
    }

    /// Fills `buf` from `at`. The buffer comes back also after an error, its content then undefined.
    fn read(&self, at: ByteOffset, buf: Buf) -> impl Future<Output = (Buf, Result<()>)> + 'static;

    /// Writes `data` at `at`. Durable only after a [`flush`](Self::flush) that began later.
    fn write(&self, at: ByteOffset, data: Data) -> impl Future<Output = Result<()>> + 'static;

    /// Writes the pieces one behind the other, beginning at `at`.
    fn writev(&self, at: ByteOffset, data: Vec<Data>)
    -> impl Future<Output = Result<()>> + 'static;

    /// Makes `range` read as zeroes; with `punch` the space may be given back, without it stays.
    fn write_zeroes(
        &self,
        range: ByteRange,
        punch: bool,
    ) -> impl Future<Output = Result<()>> + 'static;

    /// Makes every request that completed before this call durable.
    fn flush(&self) -> impl Future<Output = Result<()>> + 'static;

    /// Which parts of `range` surely read as zeroes because nothing is allocated there: the parts
    /// of `range`, in order and without a gap, each with whether it is allocated.
    ///
    /// A disk that can't tell says that all is.
    fn allocation(
        &self,
        range: ByteRange,
    ) -> impl Future<Output = Result<Vec<(ByteRange, bool)>>> + 'static {
        std::future::ready(Ok(vec![(range, true)]))
    }

    /// Lets later reads come from the medium where they would come from memory. After a flush that
    /// failed, memory may hold what the medium never got, and no later flush says so.
    fn forget_cached(&self) -> impl Future<Output = ()> + 'static {
        std::future::ready(())
    }

    /// Makes `range` read as zeroes and gives its space back where that is possible.
    ///
    /// A discard always reads as zeroes afterwards, on both sides alike.
    fn discard(&self, range: ByteRange) -> impl Future<Output = Result<()>> + 'static {
        self.write_zeroes(range, true)
    }
}

/// After this what an opened disk reads counts as durable: a process that was killed may have
/// written some of it and not synced it, or in vain.
pub(crate) async fn settle<D: Disk>(disk: &D) -> Result<()> {
    if bug(Bug::OpenedUnsynced) {
        return Ok(());
    }
    disk.flush().await?;
    if !bug(Bug::PoisonForgotten) {
        disk.forget_cached().await;
    }
    Ok(())
}

/// How a new file gets its space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Space {
    /// Thin: reads as zeroes, takes space when written. For replicas and active disks.
    Sparse,
    /// Written with zeroes once, so that a later write + sync changes no metadata (3–8 times
    /// faster). For logs and superblocks. The writing may go on after `create` has returned.
    Written,
}

/// A directory of files that are disks.
///
/// An open file is locked against other processes until its last clone is dropped. Names are
/// single path components chosen by the layers above, never input. `create`, `remove` and `rename` are
/// durable when they return; after a crash before that they have happened as a whole or not at all.
pub trait Dir: Clone + 'static {
    /// What its files are.
    type Disk: Disk;

    /// Makes a file of `len` bytes that reads as zeroes, durably; an error if the name exists.
    fn create(
        &self,
        name: &str,
        len: u64,
        space: Space,
    ) -> impl Future<Output = Result<Self::Disk>> + 'static;

    /// Opens a file for reading and writing, locked; `None` if there is none of that name.
    /// What was written before counts as durable only after a flush of the opened file.
    fn open(&self, name: &str) -> impl Future<Output = Result<Option<Self::Disk>>> + 'static;

    /// Makes a file longer, durably; the new part reads as zeroes. The open disk must be dropped
    /// and opened again to see the new length.
    fn grow(&self, name: &str, len: u64) -> impl Future<Output = Result<()>> + 'static;

    /// Removes a file, durably; fine if there is none.
    fn remove(&self, name: &str) -> impl Future<Output = Result<()>> + 'static;

    /// Gives a file another name, durably, replacing what was there.
    fn rename(&self, from: &str, to: &str) -> impl Future<Output = Result<()>> + 'static;

    /// The names of its files, sorted.
    fn list(&self) -> impl Future<Output = Result<Vec<String>>> + 'static;
}

/// How many regions of 1 MiB an intent log keeps marked only for speed, at most and unless told otherwise: after a
/// crash so much is sent again in vain. A quarter of them at rest.
pub const INTENT_HOT: usize = 4096;

/// What a group runs on: a shard in production, a node of the simulator in tests.
pub trait Host: Env {
    /// What replicas and logs are stored on.
    type Disk: Disk;
    /// The directories they lie in.
    type Dir: Dir<Disk = Self::Disk>;

    /// How many of the regions marked last an intent log keeps marked only for speed. The simulator keeps
    /// few: its volumes are small, and a mark that is never cleared is never cleared wrongly.
    fn intent_hot(&self) -> usize {
        INTENT_HOT
    }

    /// How many bytes a resync sends before both sides flush, so that they need not be sent again: what a
    /// lost session makes it repeat. The simulator's volumes are smaller than one such stretch.
    fn resync_settle(&self) -> u64 {
        64 << 20
    }
}
