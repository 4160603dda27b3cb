//! What is asked for, group by group.

use std::collections::BTreeMap;

use understudy_core::engine::api::GroupId;
use understudy_crds::BlockReplication;
use understudy_crds::conditions::accepted;

use crate::desired::{Desired, ObjectName, Refusal, Wish};
use crate::source::{Inventory, Sources, refuse_conflicts, resolve};
use crate::store::Group;

/// Objects by name; a refusal where one can't be read.
pub type Objects = BTreeMap<ObjectName, Result<BlockReplication, Refusal>>;

/// What is to be done, and what is refused before anything can be decided.
#[derive(Debug, Default, PartialEq)]
pub struct Wanted {
    /// By group.
    pub groups: BTreeMap<GroupId, Desired>,
    /// Objects that can't be read as what they say they are. What runs goes on.
    pub refused: BTreeMap<ObjectName, Refusal>,
}

/// Turns objects into wishes.
pub fn wanted(objects: &Objects, inventory: &impl Inventory, groups: &[Group]) -> Wanted {
    let mut wanted = Wanted::default();
    let mut readable = BTreeMap::new();
    let mut sources = Sources::new();
    for (name, object) in objects {
        match object {
            Err(refusal) => {
                wanted.refused.insert(name.clone(), refusal.clone());
            }
            Ok(object) => {
                sources.insert(name.clone(), resolve(name, object, inventory));
                readable.insert(name, object);
            }
        }
    }
    refuse_conflicts(&mut sources, groups);
    for (name, object) in readable {
        let volumes = sources.remove(name).unwrap_or_else(|| {
            Err(Refusal::new(accepted::SOURCE_NOT_FOUND, "its source was not resolved"))
        });
        match Desired::parse(object, volumes) {
            Ok(desired) => {
                wanted.groups.insert(desired.group.clone(), desired);
            }
            Err(refusal) => {
                wanted.refused.insert(name.clone(), refusal);
            }
        }
    }
    wanted
}

/// The wish to end a group whose `BlockReplication` is gone.
pub fn ending(group: &Group) -> Desired {
    let policy = group.spec.primary.policy.clone().unwrap_or_default();
    Desired {
        name: ObjectName::from(&group.spec.owner),
        group: group.name.clone(),
        observed_generation: None,
        wish: Wish::Delete,
        volumes: Err(Refusal::new(accepted::SOURCE_NOT_FOUND, "its BlockReplication is gone")),
        policy,
        checkpoint_trigger: None,
        primary: None,
        secondary: None,
        failover: None,
        abandoned: false,
        refused: None,
    }
}
