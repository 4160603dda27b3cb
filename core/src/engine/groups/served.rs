//! A volume as an NBD connection serves it: opened by its first request.
//!
//! ```text
//!   INFO, LIST, contexts ─► length only
//!   first request ─► the session is let in ─► Group::volume, kept to the end
//! ```
//!
//! Opening is not free of meaning: an inbound export that was opened and closed has lost its writer.
//! A client that only asks about an export must not do that.

use std::cell::OnceCell;
use std::rc::Rc;

use super::seats::Seat;
use super::status::kind_of;
use crate::disk::{Disk, Error, ErrorKind, Result};
use crate::engine::api::ByteLen;
use crate::replication::{Group, Volume};
use crate::runtime::{Buf, Data, ShardEnv};
use crate::units::{ByteOffset, ByteRange};

/// An export of a group. Clones are the same opening.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Served(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    group: Group<ShardEnv>,
    seat: Seat,
    name: String,
    size: ByteLen,
    opened: OnceCell<Volume<ShardEnv>>,
}

impl Served {
    pub(super) fn new(group: Group<ShardEnv>, seat: Seat, name: &str, size: ByteLen) -> Self {
        let (name, opened) = (name.to_owned(), OnceCell::new());
        Self(Rc::new(Inner { group, seat, name, size, opened }))
    }

    /// The volume; an error if it is no longer what the client asked for. The first request waits
    /// until its session is let in, durably.
    async fn volume(&self) -> Result<Volume<ShardEnv>> {
        let this = &*self.0;
        if let Some(volume) = this.opened.get() {
            return Ok(volume.clone());
        }
        let place = this.seat.place();
        if let Some(number) = place.session {
            if !this.seat.make_room().await {
                let text = format!("{}: connections before this one don't end", this.name);
                // Not an error of the volume: who asked connects anew, and waits on.
                return Err(Error::own(ErrorKind::Stale, text));
            }
            this.group.let_in(place.index, number, place.generation).await?;
        }
        let volume = this.group.volume_of(place.index, kind_of(place.kind), place.generation)?;
        this.seat.enter();
        Ok(this.opened.get_or_init(|| volume).clone())
    }
}

impl Disk for Served {
    fn len(&self) -> u64 {
        self.0.size.0
    }

    fn read(&self, at: ByteOffset, buf: Buf) -> impl Future<Output = (Buf, Result<()>)> + 'static {
        let me = self.clone();
        async move {
            match me.volume().await {
                Ok(v) => v.read(at, buf).await,
                Err(e) => (buf, Err(e)),
            }
        }
    }

    fn write(&self, at: ByteOffset, data: Data) -> impl Future<Output = Result<()>> + 'static {
        let me = self.clone();
        async move { me.volume().await?.write(at, data).await }
    }

    fn writev(
        &self,
        at: ByteOffset,
        data: Vec<Data>,
    ) -> impl Future<Output = Result<()>> + 'static {
        let me = self.clone();
        async move { me.volume().await?.writev(at, data).await }
    }

    fn write_zeroes(
        &self,
        range: ByteRange,
        punch: bool,
    ) -> impl Future<Output = Result<()>> + 'static {
        let me = self.clone();
        async move { me.volume().await?.write_zeroes(range, punch).await }
    }

    fn flush(&self) -> impl Future<Output = Result<()>> + 'static {
        let me = self.clone();
        async move { me.volume().await?.flush().await }
    }

    fn discard(&self, range: ByteRange) -> impl Future<Output = Result<()>> + 'static {
        let me = self.clone();
        async move { me.volume().await?.discard(range).await }
    }

    fn allocation(
        &self,
        range: ByteRange,
    ) -> impl Future<Output = Result<Vec<(ByteRange, bool)>>> + 'static {
        let me = self.clone();
        async move { me.volume().await?.allocation(range).await }
    }
}
