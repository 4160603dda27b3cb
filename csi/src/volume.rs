//! A volume and its group as their objects say, parsed once.
//!
//! ```text
//!   ReplicatedVolume ─► Volume { handle, size, place }
//!       place   Alone    { node, pool, generation }   served by the only replica there
//!               Grouped  { group }  ─► Group { generation, primary, secondary, members }
//!               Unserved { node, pool }               no generation: being deleted, or made by hand
//! ```
//!
//! The object itself goes along, so that a change writes back what it does not know.

use std::collections::BTreeMap;

use understudy_core::engine::api::{ByteLen, Generation, Uuid, VolumeId};
use understudy_crds::replication_group::{GroupMember, GroupSide};
use understudy_crds::{ReplicatedVolume, ReplicatedVolumeSpec, ReplicationGroup};

/// The name that CreateVolume was called with, where it is not the handle.
pub const ANNOTATION_NAME: &str = "understudy.dev/name";

/// "true": the replica of this volume may be left behind where it is, for its node does not come back.
pub const ANNOTATION_ABANDON: &str = "understudy.dev/abandon-replica";

/// An object that can't be read; it is not overwritten.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {name} can't be read: {field} {problem}")]
pub struct Unreadable {
    /// Its kind.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Which field.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

/// The only replica of a volume that is in no group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Alone {
    /// Its node.
    pub node: String,
    /// The pool it lies in.
    pub pool: Uuid,
    /// Who may write.
    pub generation: Generation,
}

/// Where a volume is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// On one node.
    Alone(Alone),
    /// Where its ReplicationGroup says.
    Grouped {
        /// The object's name.
        group: String,
    },
    /// Nobody may serve it.
    Unserved {
        /// Where a replica may still be.
        node: Option<String>,
        /// In which pool.
        pool: Option<Uuid>,
    },
}

/// A volume.
#[derive(Clone, PartialEq, Debug)]
pub struct Volume {
    /// Its handle.
    pub handle: VolumeId,
    /// The name it was made under.
    pub name: String,
    /// Its size.
    pub size: ByteLen,
    /// Where it is.
    pub place: Place,
    /// Its replica may be left behind.
    pub may_abandon: bool,
    object: ReplicatedVolume,
}

impl Volume {
    /// A volume that does not exist yet.
    pub fn new(handle: VolumeId, name: String, size: ByteLen, alone: Alone) -> Self {
        let text = handle.to_string();
        let mut object = ReplicatedVolume::new(&text, spec(size));
        if name != text {
            let annotation = (ANNOTATION_NAME.to_owned(), name.clone());
            object.metadata.annotations = Some(BTreeMap::from([annotation]));
        }
        let place = Place::Alone(alone);
        let mut new = Self { handle, name, size, place, may_abandon: false, object };
        new.write_place();
        new
    }

    /// Parses an object.
    pub fn parse(object: ReplicatedVolume) -> Result<Self, Unreadable> {
        let name = object.metadata.name.clone().unwrap_or_default();
        let unreadable = |field: &'static str, problem: String| Unreadable {
            kind: "ReplicatedVolume",
            name: name.clone(),
            field,
            problem,
        };
        let handle = name.parse().map_err(|e| unreadable("metadata.name", format!("{e}")))?;
        let spec = &object.spec;
        let size = ByteLen(
            u64::try_from(spec.size_bytes)
                .map_err(|_| unreadable("spec.sizeBytes", format!("is {}", spec.size_bytes)))?,
        );
        let pool: Option<Uuid> = (spec.pool.as_ref().map(|text| text.parse()).transpose())
            .map_err(|e| unreadable("spec.pool", format!("is none: {e}")))?;
        let generation: Option<Generation> =
            (spec.generation.as_ref().map(|text| text.parse()).transpose())
                .map_err(|e| unreadable("spec.generation", format!("is none: {e}")))?;
        let place = match (&spec.group, &spec.node, pool, generation) {
            (Some(group), ..) => Place::Grouped { group: group.clone() },
            (None, Some(node), Some(pool), Some(generation)) => {
                Place::Alone(Alone { node: node.clone(), pool, generation })
            }
            (None, node, pool, _) => Place::Unserved { node: node.clone(), pool },
        };
        let annotation = |key: &str| object.metadata.annotations.as_ref()?.get(key).cloned();
        let may_abandon = annotation(ANNOTATION_ABANDON).as_deref() == Some("true");
        let name = annotation(ANNOTATION_NAME).unwrap_or_else(|| name.clone());
        Ok(Self { handle, name, size, place, may_abandon, object })
    }

    /// The same volume with another size.
    #[must_use]
    pub fn with_size(&self, size: ByteLen) -> Self {
        let mut new = Self { size, ..self.clone() };
        new.object.spec.size_bytes = signed(size.0);
        new
    }

    /// The same volume at another place; not in a group, which is the operator's to write.
    #[must_use]
    pub fn with_place(&self, place: Place) -> Self {
        let mut new = Self { place, ..self.clone() };
        new.write_place();
        new
    }

    /// The object as it is to be written.
    pub fn object(&self) -> &ReplicatedVolume {
        &self.object
    }

    /// Where it was alone, before it joined the group that it is in; the object keeps that.
    pub fn before(&self) -> Option<Alone> {
        let spec = &self.object.spec;
        Some(Alone {
            node: spec.node.clone()?,
            pool: spec.pool.as_ref()?.parse().ok()?,
            generation: spec.generation.as_ref()?.parse().ok()?,
        })
    }

    fn write_place(&mut self) {
        let spec = &mut self.object.spec;
        match &self.place {
            Place::Alone(alone) => {
                spec.node = Some(alone.node.clone());
                spec.pool = Some(alone.pool.to_string());
                spec.generation = Some(alone.generation.to_string());
            }
            Place::Unserved { node, pool } => {
                spec.node.clone_from(node);
                spec.pool = pool.map(|pool| pool.to_string());
                spec.generation = None;
            }
            Place::Grouped { group } => spec.group = Some(group.clone()),
        }
    }
}

fn spec(size: ByteLen) -> ReplicatedVolumeSpec {
    ReplicatedVolumeSpec {
        size_bytes: signed(size.0),
        node: None,
        pool: None,
        generation: None,
        group: None,
    }
}

/// As the Kubernetes API and CSI write sizes; ours end far below.
pub fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// One replica of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Side {
    /// Its node.
    pub node: String,
    /// The pool it lies in.
    pub pool: Uuid,
}

/// How a group stands to a volume of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Its primary serves it, and a failover takes it along.
    Covered,
    /// It joins: where it was alone it is served on, also under the generation that it had there.
    Joining,
    /// There was a failover meanwhile, and nobody has looked yet whether it was left behind.
    Undecided,
}

/// Who is who in a group.
#[derive(Clone, PartialEq, Debug)]
pub struct Group {
    /// The object's name.
    pub name: String,
    /// Who may write.
    pub generation: Generation,
    /// Who serves.
    pub primary: Side,
    /// Who keeps the copy.
    pub secondary: Option<Side>,
    object: ReplicationGroup,
}

impl Group {
    /// Parses an object.
    pub fn parse(object: ReplicationGroup) -> Result<Self, Unreadable> {
        let name = object.metadata.name.clone().unwrap_or_default();
        let unreadable = |field: &'static str, problem: String| Unreadable {
            kind: "ReplicationGroup",
            name: name.clone(),
            field,
            problem,
        };
        let generation = object.spec.generation.parse();
        let generation = generation.map_err(|e| unreadable("spec.generation", format!("{e}")))?;
        let side = |side: &GroupSide, field| {
            let pool = side.pool.parse().map_err(|e| unreadable(field, format!("is none: {e}")))?;
            Ok(Side { node: side.node.clone(), pool })
        };
        let primary = side(&object.spec.primary, "spec.primary.pool")?;
        let secondary =
            object.spec.secondary.as_ref().map(|s| side(s, "spec.secondary.pool")).transpose()?;
        Ok(Self { name, generation, primary, secondary, object })
    }

    /// The size that the group has written for a member; `None`: the volume is no member.
    pub fn member_size(&self, volume: &VolumeId) -> Option<ByteLen> {
        let text = volume.to_string();
        let member = self.object.spec.members.iter().find(|member| member.volume == text)?;
        Some(ByteLen(u64::try_from(member.size_bytes).unwrap_or(0)))
    }

    /// How the group stands to a volume that says it is in it.
    pub fn standing(&self, volume: &VolumeId) -> Standing {
        let text = volume.to_string();
        match self.object.spec.members.iter().find(|member| member.volume == text) {
            Some(GroupMember { joining: None, .. }) => Standing::Covered,
            Some(GroupMember { joining: Some(generation), .. })
                if *generation == self.object.spec.generation =>
            {
                Standing::Joining
            }
            Some(_) | None => Standing::Undecided,
        }
    }

    /// The same group with another size of a member.
    #[must_use]
    pub fn with_member_size(&self, volume: &VolumeId, size: ByteLen) -> Self {
        let text = volume.to_string();
        let mut new = self.clone();
        for member in new.object.spec.members.iter_mut().filter(|m| m.volume == text) {
            member.size_bytes = signed(size.0);
        }
        new
    }

    /// The object as it is to be written.
    pub fn object(&self) -> &ReplicationGroup {
        &self.object
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alone() -> Alone {
        Alone {
            node: "node-a".to_owned(),
            pool: Uuid(7),
            generation: Generation { number: 1, id: 0x00c0_ffee },
        }
    }

    fn volume(name: &str) -> Volume {
        Volume::new("vol-a".parse().unwrap(), name.to_owned(), ByteLen(1 << 20), alone())
    }

    #[test]
    fn a_volume_reads_back_from_its_object() {
        for name in ["vol-a", "The Volume"] {
            let written = volume(name);
            assert_eq!(Volume::parse(written.object().clone()).unwrap(), written);
        }
        assert!(volume("vol-a").object().metadata.annotations.is_none());
    }

    #[test]
    fn without_a_generation_nobody_serves_it_and_a_group_has_the_last_word() {
        let place = Place::Unserved { node: Some("node-a".to_owned()), pool: Some(Uuid(7)) };
        let leaving = volume("vol-a").with_place(place.clone());
        let mut object = leaving.object().clone();
        assert_eq!(object.spec.generation, None);
        assert_eq!(Volume::parse(object.clone()).unwrap().place, place);
        object.spec.group = Some("shop.db".to_owned());
        let grouped = Place::Grouped { group: "shop.db".to_owned() };
        assert_eq!(Volume::parse(object).unwrap().place, grouped);
    }

    #[test]
    fn a_changed_size_leaves_the_rest_of_the_object_as_it_was() {
        let mut object = volume("vol-a").object().clone();
        object.spec.group = Some("shop.db".to_owned());
        object.metadata.labels = Some(BTreeMap::from([("a".to_owned(), "b".to_owned())]));
        object.metadata.resource_version = Some("17".to_owned());
        let grown = Volume::parse(object.clone()).unwrap().with_size(ByteLen(2 << 20));
        object.spec.size_bytes = 2 << 20;
        assert_eq!(grown.object(), &object);
    }

    #[test]
    fn an_object_that_can_not_be_read_is_named_with_its_field() {
        let mut object = volume("vol-a").object().clone();
        object.spec.generation = Some("one".to_owned());
        let text = Volume::parse(object).unwrap_err().to_string();
        assert!(
            text.contains("ReplicatedVolume vol-a") && text.contains("spec.generation"),
            "{text}"
        );
    }

    #[test]
    fn only_the_word_true_abandons_a_replica() {
        for (value, may) in [("true", true), ("false", false), ("", false), ("yes", false)] {
            let mut object = volume("vol-a").object().clone();
            let annotation = (ANNOTATION_ABANDON.to_owned(), value.to_owned());
            object.metadata.annotations = Some(BTreeMap::from([annotation]));
            assert_eq!(Volume::parse(object).unwrap().may_abandon, may, "{value}");
        }
    }
}
