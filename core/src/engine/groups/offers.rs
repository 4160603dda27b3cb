//! The exports of all shards, as far as a handshake needs to know them.
//!
//! ```text
//!   shard 0 ── offers ──┐
//!   shard 1 ── offers ──┴─► OfferCatalog ─► handshake on any shard ─► the shard that has the export
//! ```

use super::admission::{Offer, choose};
use super::all;
use super::exports::{describe, list};
use crate::disk::{self, Disk, ErrorKind};
use crate::engine::api::ExportKind;
use crate::nbd::{Catalog, Export, ExportInfo, Refusal};
use crate::runtime::{Buf, Data};
use crate::units::{ByteOffset, ByteRange};

/// The volumes of this shard, for other threads.
pub(in crate::engine) fn offers() -> Vec<Offer> {
    all().into_iter().flat_map(|(_, l)| l.offers()).collect()
}

/// The exports of all shards, to negotiate with: a disk of them has a length and no content. Who
/// is let in is decided once more by the shard that has it.
#[derive(Clone, Debug)]
pub(in crate::engine) struct OfferCatalog(pub(in crate::engine) Vec<Offer>);

impl Catalog for OfferCatalog {
    type Disk = Offer;

    fn list(&self) -> Vec<ExportInfo> {
        list(&self.0)
    }

    fn open(&self, name: &str) -> Result<Export<Offer>, Refusal> {
        let (offer, wanted) = choose(&self.0, name)?;
        let mut export = Export::new(offer.clone());
        export.read_only = wanted.kind == ExportKind::Secondary;
        describe(wanted.kind).clone_into(&mut export.description);
        Ok(export)
    }
}

/// A disk that is on another shard: the connection moves there before its first request.
impl Disk for Offer {
    fn len(&self) -> u64 {
        self.size.0
    }

    fn read(
        &self,
        _: ByteOffset,
        buf: Buf,
    ) -> impl Future<Output = (Buf, disk::Result<()>)> + 'static {
        std::future::ready((buf, self.elsewhere()))
    }

    fn write(&self, _: ByteOffset, _: Data) -> impl Future<Output = disk::Result<()>> + 'static {
        std::future::ready(self.elsewhere())
    }

    fn writev(
        &self,
        _: ByteOffset,
        _: Vec<Data>,
    ) -> impl Future<Output = disk::Result<()>> + 'static {
        std::future::ready(self.elsewhere())
    }

    fn write_zeroes(
        &self,
        _: ByteRange,
        _: bool,
    ) -> impl Future<Output = disk::Result<()>> + 'static {
        std::future::ready(self.elsewhere())
    }

    fn flush(&self) -> impl Future<Output = disk::Result<()>> + 'static {
        std::future::ready(self.elsewhere())
    }
}

impl Offer {
    fn elsewhere(&self) -> disk::Result<()> {
        let text = format!("volume {} is served by another shard", self.volume());
        Err(disk::Error::own(ErrorKind::NotPermitted, text))
    }
}
