//! A volume as an NBD connection serves it: opened by its first request.
//!
//! ```text
//!   INFO, LIST, contexts ─► length only        first request ─► Group::volume, kept to the end
//! ```
//!
//! Opening is not free of meaning: an inbound export that was opened and closed has lost its writer.
//! A client that only asks about an export must not do that.

use std::cell::OnceCell;
use std::rc::Rc;

use super::status::kind_of;
use crate::disk::{Disk, Error, ErrorKind, Result};
use crate::engine::api::{ByteLen, ExportKind, Generation};
use crate::replication::{Group, Volume};
use crate::runtime::{Buf, Data, ShardEnv};
use crate::units::{ByteOffset, ByteRange, VolumeIndex};

/// An export of a group. Clones are the same opening.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Served(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    group: Group<ShardEnv>,
    index: VolumeIndex,
    kind: ExportKind,
    generation: Generation,
    name: String,
    size: ByteLen,
    opened: OnceCell<Volume<ShardEnv>>,
}

impl Served {
    pub(super) fn new(
        group: Group<ShardEnv>,
        index: VolumeIndex,
        kind: ExportKind,
        name: String,
        size: ByteLen,
    ) -> Self {
        let generation = group.status().generation;
        Self(Rc::new(Inner { group, index, kind, generation, name, size, opened: OnceCell::new() }))
    }

    /// The volume; an error if it is no longer what the client asked for.
    fn volume(&self) -> Result<Volume<ShardEnv>> {
        let this = &*self.0;
        if let Some(volume) = this.opened.get() {
            return Ok(volume.clone());
        }
        let generation = this.group.status().generation;
        if generation != this.generation {
            let text = format!("{} went stale: the generation is {generation} now", this.name);
            return Err(Error::own(ErrorKind::Stale, text));
        }
        let volume = this.group.volume(this.index, kind_of(this.kind))?;
        Ok(this.opened.get_or_init(|| volume).clone())
    }
}

impl Disk for Served {
    fn len(&self) -> u64 {
        self.0.size.0
    }

    fn read(&self, at: ByteOffset, buf: Buf) -> impl Future<Output = (Buf, Result<()>)> + 'static {
        let volume = self.volume();
        async move {
            match volume {
                Ok(v) => v.read(at, buf).await,
                Err(e) => (buf, Err(e)),
            }
        }
    }

    fn write(&self, at: ByteOffset, data: Data) -> impl Future<Output = Result<()>> + 'static {
        let volume = self.volume();
        async move { volume?.write(at, data).await }
    }

    fn writev(&self, at: ByteOffset, data: Vec<Data>) -> impl Future<Output = Result<()>> + 'static {
        let volume = self.volume();
        async move { volume?.writev(at, data).await }
    }

    fn write_zeroes(&self, range: ByteRange, punch: bool) -> impl Future<Output = Result<()>> + 'static {
        let volume = self.volume();
        async move { volume?.write_zeroes(range, punch).await }
    }

    fn flush(&self) -> impl Future<Output = Result<()>> + 'static {
        let volume = self.volume();
        async move { volume?.flush().await }
    }

    fn discard(&self, range: ByteRange) -> impl Future<Output = Result<()>> + 'static {
        let volume = self.volume();
        async move { volume?.discard(range).await }
    }

    fn allocation(
        &self,
        range: ByteRange,
    ) -> impl Future<Output = Result<Vec<(ByteRange, bool)>>> + 'static {
        let volume = self.volume();
        async move { volume?.allocation(range).await }
    }
}
