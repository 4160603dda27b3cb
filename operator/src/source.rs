//! From a source to volumes: claims and virtual machines are resolved to volume handles, and a
//! volume that two ask for goes to neither unless one has it already.

use std::collections::BTreeMap;

use serde_json::Value;
use understudy_core::engine::api::{Member, VolumeId};
use understudy_core::units::{ByteLen, GROUP_VOLUMES_MAX, SECTOR, VOLUME_MAX};
use understudy_crds::conditions::accepted;
use understudy_crds::{BlockReplication, ReplicatedVolumeSpec};

use crate::desired::{ObjectName, Refusal, SourceVolume, unsigned};
use crate::store::Group;

/// A claim, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The volume handle.
    pub volume: String,
    /// What it requests, in bytes, or what is wrong with that. `None`: the volume's size counts.
    pub size: Option<Result<u64, String>>,
}

/// What there is to be replicated.
pub trait Inventory {
    /// The claim of this name, or why it can't be used.
    fn claim(&self, name: &ObjectName) -> Result<Claim, Refusal>;

    /// The claims that the disks of this virtual machine are, or why they can't be told.
    fn disks(&self, machine: &ObjectName) -> Result<Vec<String>, Refusal>;

    /// The volume of this handle.
    fn volume(&self, handle: &str) -> Option<ReplicatedVolumeSpec>;
}

/// The volumes of a source, in its order.
pub fn resolve(
    name: &ObjectName,
    object: &BlockReplication,
    inventory: &impl Inventory,
) -> Result<Vec<SourceVolume>, Refusal> {
    let mut volumes: Vec<SourceVolume> = Vec::new();
    for claim in claims(name, object, inventory)? {
        let volume = volume(name, &claim, inventory)?;
        if let Some(twin) = volumes.iter().find(|v| v.member.volume == volume.member.volume) {
            return Err(Refusal::new(
                accepted::SOURCE_UNUSABLE,
                format!(
                    "claim {claim} has the same volume {} as another one of the source",
                    twin.member.volume
                ),
            ));
        }
        volumes.push(volume);
    }
    Ok(volumes)
}

fn claims(
    name: &ObjectName,
    object: &BlockReplication,
    inventory: &impl Inventory,
) -> Result<Vec<String>, Refusal> {
    let source = &object.spec.source;
    if let Some(claims) = &source.persistent_volume_claims {
        return Ok(claims.iter().map(|c| c.name.clone()).collect());
    }
    let machine = source.virtual_machine.as_ref().map(|m| m.name.clone()).unwrap_or_default();
    let key = ObjectName { namespace: name.namespace.clone(), name: machine };
    let disks = inventory.disks(&key)?;
    let unusable = |words: String| Err(Refusal::new(accepted::SOURCE_UNUSABLE, words));
    if disks.is_empty() {
        return unusable(format!(
            "VirtualMachine {key} has no disk that is a persistentVolumeClaim or a dataVolume"
        ));
    }
    if disks.len() > GROUP_VOLUMES_MAX {
        return unusable(format!(
            "VirtualMachine {key} has {} disks; a group holds at most {GROUP_VOLUMES_MAX}",
            disks.len()
        ));
    }
    Ok(disks)
}

/// The claims behind a `VirtualMachine`'s disks. A data volume's claim has the data volume's name.
pub fn disks_of(machine: &Value) -> Vec<String> {
    let volumes = machine.pointer("/spec/template/spec/volumes").and_then(Value::as_array);
    let name = |volume: &Value| {
        let claim = volume.pointer("/persistentVolumeClaim/claimName");
        claim
            .or_else(|| volume.pointer("/dataVolume/name"))
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    volumes.into_iter().flatten().filter_map(name).collect()
}

fn volume(
    name: &ObjectName,
    claim: &str,
    inventory: &impl Inventory,
) -> Result<SourceVolume, Refusal> {
    let key = ObjectName { namespace: name.namespace.clone(), name: claim.to_owned() };
    let found = inventory.claim(&key)?;
    let unusable =
        |words: String| Refusal::new(accepted::SOURCE_UNUSABLE, format!("claim {key}: {words}"));
    let handle: VolumeId = found.volume.parse().map_err(|e| unusable(format!("{e}")))?;
    let known = inventory.volume(handle.as_str());
    let requested = found.size.transpose().map_err(&unusable)?;
    let size = match (known.as_ref().map(|v| unsigned(v.size_bytes)), requested) {
        (Some(size), Some(requested)) if requested > size => {
            return Err(Refusal::new(
                accepted::SIZE_MISMATCH,
                format!("claim {key} requests {requested} bytes, its volume {handle} has {size}"),
            ));
        }
        (Some(size), _) | (None, Some(size)) => size,
        (None, None) => {
            return Err(unusable(
                "its size is not known: write spec.resources.requests.storage".to_owned(),
            ));
        }
    };
    if size == 0 || size % SECTOR != 0 || size > VOLUME_MAX {
        return Err(unusable(format!(
            "{size} bytes: a volume is a multiple of {SECTOR} bytes, at least one and at most 64Ti"
        )));
    }
    Ok(SourceVolume {
        member: Member { volume: handle, size: ByteLen(size) },
        node: known.and_then(|v| v.node),
    })
}

/// Sources by who asks for them.
pub type Sources = BTreeMap<ObjectName, Result<Vec<SourceVolume>, Refusal>>;

/// Refuses every source that names a volume which another one has, or asks for too.
pub fn refuse_conflicts(sources: &mut Sources, groups: &[Group]) {
    let mut askers: BTreeMap<VolumeId, Vec<ObjectName>> = BTreeMap::new();
    for (name, volumes) in sources.iter() {
        for volume in volumes.iter().flatten() {
            askers.entry(volume.member.volume.clone()).or_default().push(name.clone());
        }
    }
    for (volume, askers) in askers {
        // Whoever replicates it already keeps it; a group that nobody asks for holds it too.
        let holder = groups
            .iter()
            .find(|g| g.members.iter().any(|m| m.volume == volume))
            .map(|g| ObjectName::from(&g.spec.owner));
        for asker in &askers {
            let other = match &holder {
                Some(holder) if holder == asker => None,
                Some(holder) => Some(holder),
                None => askers.iter().find(|a| *a != asker),
            };
            if let Some(other) = other {
                sources.insert(
                    asker.clone(),
                    Err(Refusal::new(
                        accepted::SOURCE_CONFLICT,
                        format!(
                            "volume {volume} is also replicated by {other}: a volume is in one group; \
                             take it out of one of the two"
                        ),
                    )),
                );
            }
        }
    }
}
