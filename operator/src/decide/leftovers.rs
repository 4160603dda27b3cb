//! Replicas that nobody names any more: what a node kept that was away when its copy was given up.
//!
//! One is deleted only on proof: its volume exists, names other nodes, and carries a generation with
//! a greater number than the replica's group. What can't be proven so is left for a person, and told.

use std::collections::{BTreeMap, BTreeSet};

use understudy_core::engine::api::{
    EngineStatus, GroupId, LinkState, ReplicaStatus, Role, Stage, VolumeId,
};

use crate::engines::Call;
use crate::store::{Group, Volume, Volumes};

/// A replica that nobody names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leftover {
    /// Where it is.
    pub node: String,
    /// Of which volume.
    pub volume: String,
    /// What removes it; empty: not proven, a person must decide.
    pub calls: Vec<Call>,
}

/// Every replica that no volume and no group object names.
pub fn leftovers(
    volumes: &Volumes,
    groups: &[Group],
    engines: &BTreeMap<String, EngineStatus>,
) -> Vec<Leftover> {
    let mut found = Vec::new();
    for (node, engine) in engines {
        let mut stopped = BTreeSet::new();
        for replica in &engine.replicas {
            let volume = volumes.get(&replica.volume);
            let named = volume.map(|v| whose(&replica.volume, v, groups));
            let calls = match named {
                Some(Named::Unknown) => continue,
                Some(Named::Nodes { nodes, .. }) if nodes.contains(&node.as_str()) => continue,
                // The copy that is to replace it has to be whole first.
                Some(Named::Nodes { group: Some(group), .. }) if !settled(group, engines) => {
                    continue;
                }
                Some(Named::Nodes { number, .. }) => removal(replica, engine, number, &mut stopped),
                None => Vec::new(),
            };
            let volume = replica.volume.to_string();
            found.push(Leftover { node: node.clone(), volume, calls });
        }
    }
    found
}

enum Named<'a> {
    /// It is in a group that has no group object, or not wholly in one: nothing can be said.
    Unknown,
    Nodes {
        nodes: Vec<&'a str>,
        number: u64,
        group: Option<&'a Group>,
    },
}

/// Where a volume's replicas are to be, and under which generation's number.
fn whose<'a>(name: &VolumeId, volume: &'a Volume, groups: &'a [Group]) -> Named<'a> {
    let Some(in_group) = &volume.spec.group else {
        let (Some(node), Some(generation)) = (&volume.spec.node, volume.generation) else {
            return Named::Unknown;
        };
        return Named::Nodes { nodes: vec![node], number: generation.number, group: None };
    };
    let Some(group) = groups.iter().find(|g| g.name.as_str() == in_group) else {
        return Named::Unknown;
    };
    // One that is about to be left behind, or whose copy is not whole: any replica may be the good one.
    if !group.has(name) || group.joins(name) {
        return Named::Unknown;
    }
    let sides = [Some(&group.spec.primary), group.spec.secondary.as_ref()];
    let nodes = sides.into_iter().flatten().map(|s| s.node.as_str()).collect();
    Named::Nodes { nodes, number: group.generation.number, group: Some(group) }
}

/// Whether the group is complete elsewhere: a copy has a checkpoint under this generation.
fn settled(group: &Group, engines: &BTreeMap<String, EngineStatus>) -> bool {
    let view = engines.get(&group.spec.primary.node).and_then(|e| e.group(&group.name));
    group.spec.secondary.is_some()
        && view.is_some_and(|v| {
            v.generation == group.generation && v.link == LinkState::Running && v.record.0 > 0
        })
}

/// What removes it, if it is older than what its volume says.
fn removal<'a>(
    replica: &'a ReplicaStatus,
    engine: &EngineStatus,
    number: u64,
    stopped: &mut BTreeSet<&'a GroupId>,
) -> Vec<Call> {
    let delete = Call::DeleteReplica(replica.volume.clone());
    // In no group: it was never started, or is being made by a call whose volume names this node
    // from before it began.
    let Some(name) = &replica.group else { return vec![delete] };
    let Some(view) = engine.group(name).filter(|v| v.generation.number < number) else {
        return Vec::new();
    };
    let linked = view.role == Some(Role::Secondary) || view.link != LinkState::Solo;
    let stop = Call::Stop { group: name.clone(), generation: view.generation, abandon_peer: true };
    let runs = view.stage == Stage::Running && linked;
    // Once for all volumes of the group.
    let stop = (runs && stopped.insert(name)).then_some(stop);
    stop.into_iter().chain([delete]).collect()
}
