//! What NBD clients may open: names `VOLUME/KIND@GENERATION`.
//!
//! ```text
//!   LIST ─► offers of all groups        OPEN name ─┬─ names what is offered now ─► the volume
//!                                                  └─ anything else ─► refused, saying what there is
//!   role, stage or generation changes ─► connections to what is no longer offered are cut
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::status::kind_of;
use super::{Local, all};
use crate::disk::{self, Disk, ErrorKind};
use crate::engine::api::{ExportKind, VolumeId};
use crate::nbd::{Catalog, Export, ExportInfo, Refusal, Revocation};
use crate::replication::Volume;
use crate::runtime::{Buf, Data, ShardEnv};
use crate::units::{ByteOffset, ByteRange, VolumeIndex};

const KINDS: [ExportKind; 4] =
    [ExportKind::Primary, ExportKind::View, ExportKind::Secondary, ExportKind::Inbound];

/// The switches of a group's exports that somebody has open.
#[derive(Default)]
pub(super) struct Exports(RefCell<BTreeMap<String, Revocation>>);

/// An export that is offered now.
pub(super) struct Found {
    pub(super) name: String,
    pub(super) volume: VolumeId,
    pub(super) kind: ExportKind,
    disk: Volume<ShardEnv>,
}

impl Local {
    /// All that is offered now.
    pub(super) fn found(&self) -> Vec<Found> {
        let mut found = Vec::new();
        for (i, volume) in (0_u16..).map(VolumeIndex).zip(&self.members) {
            for kind in KINDS {
                if let Ok(disk) = self.group.volume(i, kind_of(kind)) {
                    let (name, volume) = (disk.export_name(), volume.clone());
                    found.push(Found { name, volume, kind, disk });
                }
            }
        }
        found
    }
}

impl Exports {
    /// Cuts the connections to what is no longer offered.
    pub(super) fn cut_stale(&self, local: &Local) {
        if self.0.borrow().is_empty() {
            return;
        }
        let names: Vec<_> = local.found().into_iter().map(|f| f.name).collect();
        self.0.borrow_mut().retain(|name, switch| {
            let keep = names.contains(name);
            if !keep {
                tracing::info!(export = %name, "export went stale: its connections are cut");
                switch.revoke();
            }
            keep
        });
    }

    /// Cuts all connections.
    pub(super) fn cut_all(&self) {
        for switch in std::mem::take(&mut *self.0.borrow_mut()).values() {
            switch.revoke();
        }
    }

    fn switch(&self, name: &str) -> Revocation {
        self.0.borrow_mut().entry(name.to_owned()).or_default().clone()
    }
}

/// The exports of this shard.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::engine) struct LocalCatalog;

impl Catalog for LocalCatalog {
    type Disk = Volume<ShardEnv>;

    fn list(&self) -> Vec<ExportInfo> {
        let found = all().into_iter().flat_map(|(_, l)| l.found());
        found.map(|f| ExportInfo { name: f.name, description: describe(f.kind).to_owned() }).collect()
    }

    fn open(&self, name: &str) -> Result<Export<Self::Disk>, Refusal> {
        let volume = name.split('/').next().unwrap_or_default();
        let local = all()
            .into_iter()
            .map(|(_, l)| l)
            .find(|l| l.members.iter().any(|m| m.as_str() == volume))
            .ok_or_else(|| unknown(name, &[]))?;
        let mut found = local.found();
        let Some(i) = found.iter().position(|f| f.name == name) else {
            found.retain(|f| f.volume.as_str() == volume);
            return Err(unknown(name, &found.iter().map(|f| f.name.as_str()).collect::<Vec<_>>()));
        };
        let found = found.swap_remove(i);
        let mut export = Export::new(found.disk);
        export.read_only = found.kind == ExportKind::Secondary;
        export.description = describe(found.kind).to_owned();
        export.revoked = local.exports.switch(name);
        Ok(export)
    }
}

fn unknown(name: &str, others: &[&str]) -> Refusal {
    let name: String = name.escape_debug().take(300).collect();
    let others = if others.is_empty() {
        "nothing of that volume is served here now".to_owned()
    } else {
        format!("served of that volume are now: {}", others.join(", "))
    };
    Refusal::unknown(format!("there is no export '{name}': {others}"))
}

fn describe(kind: ExportKind) -> &'static str {
    match kind {
        ExportKind::Primary => "the volume",
        ExportKind::View => "the last checkpoint, with a consumer's own writes over it",
        ExportKind::Secondary => "the secondary disk as it is, for diagnosis",
        ExportKind::Inbound => "where a QEMU primary replicates into",
    }
}

/// What another thread needs to know of an export, to negotiate it.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Offer {
    name: String,
    kind: ExportKind,
    len: u64,
    alignment: u64,
}

/// The exports of this shard, for other threads.
pub(in crate::engine) fn offers() -> Vec<Offer> {
    let offer = |f: Found| {
        let (len, alignment) = (f.disk.len(), f.disk.alignment());
        Offer { name: f.name, kind: f.kind, len, alignment }
    };
    all().into_iter().flat_map(|(_, l)| l.found()).map(offer).collect()
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
        let info =
            |o: &Offer| ExportInfo { name: o.name.clone(), description: describe(o.kind).to_owned() };
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
        export.description = describe(offer.kind).to_owned();
        Ok(export)
    }
}

/// A disk that is on another shard: the connection moves there before its first request.
impl Disk for Offer {
    fn len(&self) -> u64 {
        self.len
    }

    fn alignment(&self) -> u64 {
        self.alignment
    }

    fn read(&self, _: ByteOffset, buf: Buf) -> impl Future<Output = (Buf, disk::Result<()>)> + 'static {
        std::future::ready((buf, self.elsewhere()))
    }

    fn write(&self, _: ByteOffset, _: Data) -> impl Future<Output = disk::Result<()>> + 'static {
        std::future::ready(self.elsewhere())
    }

    fn writev(&self, _: ByteOffset, _: Vec<Data>) -> impl Future<Output = disk::Result<()>> + 'static {
        std::future::ready(self.elsewhere())
    }

    fn write_zeroes(&self, _: ByteRange, _: bool) -> impl Future<Output = disk::Result<()>> + 'static {
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
