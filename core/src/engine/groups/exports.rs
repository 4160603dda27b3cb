//! What NBD clients may open: names `VOLUME/KIND@GENERATION`.
//!
//! ```text
//!   LIST ─► offers of all groups        OPEN name ─┬─ names what is offered now ─► the volume
//!                                                  └─ anything else ─► refused, saying what there is
//!   role, stage or generation changes ─► connections to what is no longer offered are cut
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::served::Served;
use super::status::kind_of;
use super::{Local, all};
use crate::engine::api::{ByteLen, ExportKind, VolumeId};
use crate::nbd::{Catalog, Export, ExportInfo, Refusal, Revocation};
use crate::units::VolumeIndex;

const KINDS: [ExportKind; 4] =
    [ExportKind::Primary, ExportKind::View, ExportKind::Secondary, ExportKind::Inbound];

/// The switches of a group's exports that somebody has open.
#[derive(Default)]
pub(super) struct Exports(RefCell<BTreeMap<String, Revocation>>);

/// An export that can be opened now.
pub(super) struct Offered {
    pub(super) name: String,
    pub(super) volume: VolumeId,
    pub(super) kind: ExportKind,
    pub(super) size: ByteLen,
    index: VolumeIndex,
}

impl Local {
    /// All that can be opened now. Opens none: closing an inbound export means something.
    pub(super) fn offered(&self) -> Vec<Offered> {
        let generation = self.group.status().generation;
        let kinds: Vec<_> = KINDS.into_iter().filter(|k| self.group.offers(kind_of(*k))).collect();
        let mut offered = Vec::with_capacity(kinds.len() * self.members.len());
        for (index, (volume, size)) in (0..).map(VolumeIndex).zip(&self.members) {
            for kind in kinds.iter().copied() {
                let name = format!("{volume}/{kind}@{generation}");
                offered.push(Offered { name, volume: volume.clone(), kind, index, size: *size });
            }
        }
        offered
    }
}

impl Exports {
    /// Cuts the connections to what is no longer offered.
    pub(super) fn cut_stale(&self, local: &Local) {
        if self.0.borrow().is_empty() {
            return;
        }
        let names: Vec<_> = local.offered().into_iter().map(|f| f.name).collect();
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
    type Disk = Served;

    fn list(&self) -> Vec<ExportInfo> {
        let offered = all().into_iter().flat_map(|(_, l)| l.offered());
        let info =
            |o: Offered| ExportInfo { name: o.name, description: describe(o.kind).to_owned() };
        offered.map(info).collect()
    }

    fn open(&self, name: &str) -> Result<Export<Served>, Refusal> {
        let volume = name.split('/').next().unwrap_or_default();
        let local = all()
            .into_iter()
            .map(|(_, l)| l)
            .find(|l| l.members.iter().any(|(m, _)| m.as_str() == volume))
            .ok_or_else(|| unknown(name, &[]))?;
        let mut offered = local.offered();
        let Some(i) = offered.iter().position(|o| o.name == name) else {
            offered.retain(|o| o.volume.as_str() == volume);
            return Err(unknown(
                name,
                &offered.iter().map(|o| o.name.as_str()).collect::<Vec<_>>(),
            ));
        };
        let o = offered.swap_remove(i);
        let mut export =
            Export::new(Served::new(local.group.clone(), o.index, o.kind, o.name, o.size));
        export.read_only = o.kind == ExportKind::Secondary;
        describe(o.kind).clone_into(&mut export.description);
        export.revoked = local.exports.switch(name);
        Ok(export)
    }
}

pub(super) fn unknown(name: &str, others: &[&str]) -> Refusal {
    let name: String = name.escape_debug().take(300).collect();
    let others = if others.is_empty() {
        "nothing of that volume is served here now".to_owned()
    } else {
        format!("served of that volume are now: {}", others.join(", "))
    };
    Refusal::unknown(format!("there is no export '{name}': {others}"))
}

pub(super) fn describe(kind: ExportKind) -> &'static str {
    match kind {
        ExportKind::Primary => "the volume",
        ExportKind::View => "the last checkpoint, with a consumer's own writes over it",
        ExportKind::Secondary => "the secondary disk as it is, for diagnosis",
        ExportKind::Inbound => "where a QEMU primary replicates into",
    }
}
