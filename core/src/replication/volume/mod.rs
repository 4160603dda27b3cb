//! A volume as consumers see it: a disk that is bound to one generation and one kind of access.
//!
//! ```text
//!   primary    reads and writes of the VM          the primary, in its generation
//!   view       the last checkpoint + own writes    the secondary, once it has a checkpoint
//!   secondary  what the secondary disk holds now   read-only, for diagnosis
//!   inbound    a foreign primary's writes          a secondary that was started for that
//! ```
//! After a change of generation or role every request fails for good (invariant 7): only a fresh
//! attach sees the promoted disk.

mod disk;

use std::rc::Rc;

use super::group::Group;
use super::primary::Payload;
use super::secondary::Secondary;
use super::sessions::is_primary_of;
use super::view::JOINING;
use crate::disk::{Error, ErrorKind, Host, Result};
use crate::overlay::Stage;
use crate::units::{ByteOffset, ByteRange, Generation, VolumeIndex};

/// What kind of access a volume gives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ExportKind {
    /// The VM's disk.
    Primary,
    /// The last checkpoint, overlaid by a consumer's own writes.
    View,
    /// The secondary disk as it is, read-only.
    Secondary,
    /// Takes a foreign primary's writes.
    Inbound,
}

impl ExportKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Primary, Self::View, Self::Secondary, Self::Inbound];

    /// Its name in an export name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::View => "view",
            Self::Secondary => "secondary",
            Self::Inbound => "inbound",
        }
    }
}

/// An open volume. Clones are the same opening.
pub struct Volume<H: Host>(Rc<Opening<H>>);

impl<H: Host> Clone for Volume<H> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<H: Host> std::fmt::Debug for Volume<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Volume({})", self.export_name())
    }
}

struct Opening<H: Host> {
    group: Group<H>,
    index: VolumeIndex,
    kind: ExportKind,
    generation: Generation,
    size: u64,
    name: String,
}

impl<H: Host> Drop for Opening<H> {
    fn drop(&mut self) {
        if self.kind == ExportKind::Inbound {
            self.group.inbound_gone();
        }
    }
}

impl<H: Host> Group<H> {
    /// Opens a volume for one kind of access, in the current generation.
    pub fn volume(&self, index: VolumeIndex, kind: ExportKind) -> Result<Volume<H>> {
        let generation = self.state().generation;
        self.volume_of(index, kind, generation)
    }

    /// Opens a volume for a device that is bound to `generation`: the current one, or one that is
    /// carried over.
    pub fn volume_of(
        &self,
        index: VolumeIndex,
        kind: ExportKind,
        generation: Generation,
    ) -> Result<Volume<H>> {
        let (size, name) = {
            let s = self.state();
            let m = s.members.get(index.get()).ok_or_else(|| {
                Error::own(
                    ErrorKind::Invalid,
                    format!("group {} has no volume number {}", s.group, index.0),
                )
            })?;
            let name = format!("{}/{}@{generation}", m.volume, kind.name());
            (m.size, name)
        };
        if !self.serves(index, kind, generation) {
            return Err(Error::own(
                ErrorKind::Stale,
                format!("{name}: the group is of generation {} now", self.state().generation),
            ));
        }
        if !self.offers(kind) {
            return Err(Error::own(
                ErrorKind::NotPermitted,
                format!("{name}: not in this role and stage"),
            ));
        }
        if !self.offers_of(index, kind) {
            return Err(Error::own(ErrorKind::NotPermitted, format!("{name}: {JOINING}")));
        }
        Ok(Volume(Rc::new(Opening { group: self.clone(), index, kind, generation, size, name })))
    }

    /// Whether a device bound to `generation` goes on.
    fn serves(&self, index: VolumeIndex, kind: ExportKind, generation: Generation) -> bool {
        let s = self.state();
        s.generation == generation
            || kind == ExportKind::Primary
                && s.members.get(index.get()).is_some_and(|m| is_primary_of(&s, m, generation))
    }

    /// Whether a volume of this kind can be opened now.
    pub fn offers(&self, kind: ExportKind) -> bool {
        let s = self.state();
        let runs = s.stage == Stage::Running;
        match kind {
            ExportKind::Primary => self.primary().is_some(),
            ExportKind::Inbound => s.inbound && runs && self.running_secondary().is_some(),
            ExportKind::Secondary => runs && self.running_secondary().is_some(),
            ExportKind::View => {
                runs && s.record != crate::units::Epoch::NONE && self.running_secondary().is_some()
            }
        }
    }

    /// Whether this volume of that kind can be opened now: there is no view of one that is joining.
    pub fn offers_of(&self, index: VolumeIndex, kind: ExportKind) -> bool {
        self.offers(kind) && (kind != ExportKind::View || self.state().joined.covers(index))
    }

    fn inbound_gone(&self) {
        let s = self.state();
        if s.inbound && s.stage == Stage::Running {
            self.0
                .inbound_error
                .borrow_mut()
                .get_or_insert_with(|| "the inbound writer's connection ended".into());
            drop(s);
            self.0.changed.notify();
        }
    }
}

impl<H: Host> Opening<H> {
    fn check(&self) -> Result<()> {
        if !self.group.serves(self.index, self.kind, self.generation) {
            let current = self.group.state().generation;
            return Err(Error::own(
                ErrorKind::Stale,
                format!(
                    "{}: the group is of generation {current} now: attach the volume anew",
                    self.name
                ),
            ));
        }
        if !self.group.offers(self.kind) {
            return Err(Error::own(
                ErrorKind::NotPermitted,
                format!("{}: not in this role and stage", self.name),
            ));
        }
        Ok(())
    }

    fn check_range(&self, what: &str, at: ByteOffset, len: u64) -> Result<ByteRange> {
        self.check()?;
        ByteRange::at(at, len).filter(|r| r.end <= self.size).ok_or_else(|| {
            Error::beyond_end(what, ByteRange::new(at.0, at.0.saturating_add(len)), self.size)
        })
    }

    fn secondary(&self) -> Result<Rc<Secondary<H>>> {
        self.group.running_secondary().ok_or_else(|| {
            Error::own(ErrorKind::Stale, format!("{}: no longer a secondary", self.name))
        })
    }

    fn read_only(&self) -> Error {
        Error::own(ErrorKind::NotPermitted, format!("{} is read-only", self.name))
    }

    async fn write(&self, at: ByteOffset, payload: Payload, len: u64) -> Result<()> {
        let range = self.check_range("write", at, len)?;
        match self.kind {
            ExportKind::Primary => {
                let (p, _) = self
                    .group
                    .primary()
                    .ok_or_else(|| Error::own(ErrorKind::Stale, "no longer the primary"))?;
                p.write(self.index, at, payload).await
            }
            ExportKind::View => match payload {
                Payload::Data(d) => self.secondary()?.view_write(self.index, at, d).await,
                Payload::Zero { .. } => self.secondary()?.view_zero(self.index, range).await,
            },
            ExportKind::Secondary => Err(self.read_only()),
            ExportKind::Inbound => {
                self.secondary()?.inbound_write(self.index, range, payload).await
            }
        }
    }
}

impl<H: Host> Volume<H> {
    /// `VOLUME/KIND@GENERATION`: others are refused at connect.
    pub fn export_name(&self) -> &str {
        &self.0.name
    }

    /// Whether it may still be used; once an error, always one.
    pub fn check(&self) -> Result<()> {
        self.0.check()
    }

    /// Whether writes are refused.
    pub fn is_read_only(&self) -> bool {
        self.0.kind == ExportKind::Secondary
    }

    /// Notified when [`check`](Self::check) may have changed.
    pub fn changed(&self) -> crate::runtime::Signal {
        self.0.group.changed()
    }
}
