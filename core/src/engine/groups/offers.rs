//! The exports of all shards, as far as a handshake needs to know them.
//!
//! ```text
//!   shard 0 ── offers ──┐
//!   shard 1 ── offers ──┴─► OfferCatalog ─► handshake on any shard ─► the shard that has the export
//! ```

use super::all;
use super::exports::{describe, unknown};
use crate::disk::{self, Disk, ErrorKind};
use crate::engine::api::ExportKind;
use crate::nbd::{Catalog, Export, ExportInfo, Refusal};
use crate::runtime::{Buf, Data};
use crate::units::{ByteOffset, ByteRange};

/// What another thread needs to know of an export, to negotiate it.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Offer {
    name: String,
    kind: ExportKind,
    len: u64,
}

/// The exports of this shard, for other threads.
pub(in crate::engine) fn offers() -> Vec<Offer> {
    let offered = all().into_iter().flat_map(|(_, l)| l.offered());
    offered.map(|o| Offer { name: o.name, kind: o.kind, len: o.size.0 }).collect()
}

/// The exports of all shards, to negotiate with: a disk of them has a length and no content.
#[derive(Clone, Debug)]
pub(in crate::engine) struct OfferCatalog(pub(in crate::engine) Vec<Offer>);

impl Offer {
    /// The export's name.
    pub(in crate::engine) fn name(&self) -> &str {
        &self.name
    }
}

impl Catalog for OfferCatalog {
    type Disk = Offer;

    fn list(&self) -> Vec<ExportInfo> {
        let info = |o: &Offer| ExportInfo {
            name: o.name.clone(),
            description: describe(o.kind).to_owned(),
        };
        self.0.iter().map(info).collect()
    }

    fn open(&self, name: &str) -> Result<Export<Offer>, Refusal> {
        let Some(offer) = self.0.iter().find(|o| o.name == name) else {
            let volume = format!("{}/", name.split('/').next().unwrap_or_default());
            let others = self.0.iter().map(|o| o.name.as_str()).filter(|n| n.starts_with(&volume));
            return Err(unknown(name, &others.collect::<Vec<_>>()));
        };
        let mut export = Export::new(offer.clone());
        export.read_only = offer.kind == ExportKind::Secondary;
        describe(offer.kind).clone_into(&mut export.description);
        Ok(export)
    }
}

/// A disk that is on another shard: the connection moves there before its first request.
impl Disk for Offer {
    fn len(&self) -> u64 {
        self.len
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
        let text = format!("export {} is served by another shard", self.name);
        Err(disk::Error::own(ErrorKind::NotPermitted, text))
    }
}
