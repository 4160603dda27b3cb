//! What NBD clients may open: names `VOLUME/KIND@GENERATION`, with `#SESSION` for a consumer.
//!
//! ```text
//!   LIST ─► offers of all groups        OPEN name ─┬─ may be opened now (admission) ─► a seat
//!                                                  └─ anything else ─► refused, saying why
//!   role, stage, generation or session changes ─► connections to what is no longer offered are cut
//! ```

use super::admission::{Offer, choose, nowhere};
use super::seats::{Hall, Place};
use super::served::Served;
use super::status::kind_of;
use super::{Local, all};
use crate::engine::api::ExportKind;
use crate::nbd::{Catalog, Export, ExportInfo, Refusal};
use crate::overlay::{GroupState, Role};
use crate::units::VolumeIndex;

pub(super) const KINDS: [ExportKind; 4] =
    [ExportKind::Primary, ExportKind::View, ExportKind::Secondary, ExportKind::Inbound];

impl Local {
    /// Each volume with all that can be opened of it now, in group order. Opens none: closing an
    /// inbound export means something.
    pub(super) fn offers(&self) -> Vec<Offer> {
        let state = self.group.durable();
        let shut = self.hall.is_shut();
        let kinds: Vec<_> =
            KINDS.into_iter().filter(|k| !shut && self.group.offers(kind_of(*k))).collect();
        let offer = |(index, (volume, size)): (VolumeIndex, &(_, _))| {
            self.offer(&state, index, volume, *size, &kinds)
        };
        (0..).map(VolumeIndex).zip(self.members()).map(offer).collect()
    }

    fn offer(
        &self,
        state: &GroupState,
        index: VolumeIndex,
        volume: &crate::engine::api::VolumeId,
        size: crate::engine::api::ByteLen,
        kinds: &[ExportKind],
    ) -> Offer {
        let member = state.members.get(index.get());
        let is_joining = !state.joined.covers(index);
        let has = kinds.iter().copied().filter(|k| self.group.offers_of(index, kind_of(*k)));
        Offer {
            volume: volume.clone(),
            size,
            generation: state.generation,
            carried: member.map(|m| m.carried.clone()).unwrap_or_default(),
            joining: is_joining && state.role == Role::Secondary,
            kinds: has.collect(),
            seats: self.hall.seats(index, member.map(|m| m.sessions).unwrap_or_default()),
        }
    }

    /// Cuts the connections to what is no longer offered.
    pub(super) fn cut_stale(&self) {
        let offers = self.offers();
        self.hall.cut(|place: &Place| {
            let Some(offer) = offers.get(place.index.get()) else { return true };
            let superseded = place.session.is_some_and(|n| n < offer.seats.let_in);
            let stale = superseded || !offer.serves(place.kind, place.generation);
            if stale && !place.switch.is_revoked() {
                let (volume, kind, generation) = (&offer.volume, place.kind, place.generation);
                tracing::info!(%volume, %kind, %generation, session = place.session,
                    "export went stale: its connection is cut");
            }
            stale
        });
    }
}

impl Hall {
    /// Cuts all connections.
    pub(super) fn cut_all(&self) {
        self.cut(|_| true);
    }
}

/// The exports of this shard.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::engine) struct LocalCatalog;

impl Catalog for LocalCatalog {
    type Disk = Served;

    fn list(&self) -> Vec<ExportInfo> {
        list(&all().into_iter().flat_map(|(_, l)| l.offers()).collect::<Vec<_>>())
    }

    fn open(&self, name: &str) -> Result<Export<Served>, Refusal> {
        let volume = name.split('/').next().unwrap_or_default();
        let here = all().into_iter().map(|(_, l)| l).find_map(|l| {
            let index = l.members().iter().position(|(m, _)| m.as_str() == volume)?;
            Some((l, index))
        });
        let Some((local, index)) = here else { return Err(nowhere(name)) };
        let offers = local.offers();
        let (offer, wanted) = choose(&offers, name)?;
        let index = VolumeIndex::of(index);
        let seat = local.hall.sit(index, wanted.kind, wanted.generation, wanted.session);
        let revoked = seat.place().switch.clone();
        let mut export = Export::new(Served::new(local.group.clone(), seat, name, offer.size));
        export.read_only = wanted.kind == ExportKind::Secondary;
        describe(wanted.kind).clone_into(&mut export.description);
        export.revoked = revoked;
        Ok(export)
    }
}

pub(super) fn list(offers: &[Offer]) -> Vec<ExportInfo> {
    let all = offers.iter().flat_map(|o| o.kinds.iter().map(move |k| (o, *k)));
    all.map(|(o, k)| ExportInfo { name: o.name(k), description: describe(k).to_owned() }).collect()
}

pub(super) fn describe(kind: ExportKind) -> &'static str {
    match kind {
        ExportKind::Primary => "the volume",
        ExportKind::View => "the last checkpoint, with a consumer's own writes over it",
        ExportKind::Secondary => "the secondary disk as it is, for diagnosis",
        ExportKind::Inbound => "where a QEMU primary replicates into",
    }
}
