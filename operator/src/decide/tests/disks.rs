//! Disks that a person adds to a VM, and where they are then.

use understudy_core::engine::api::{Generation, Member, Policy, Role, Stage, VolumeId};
use understudy_core::units::ByteLen;
use understudy_crds::ReplicatedVolumeSpec;

use super::Bench;
use crate::decide::leftovers::leftovers;
use crate::desired::SourceVolume;
use crate::engines::Engines;
use crate::fake::Held;
use crate::store::{Store, Volume};

/// Half of a volume that joins is not sent.
pub(super) const HALF: u64 = 1 << 19;

impl Bench {
    pub(super) fn unsent(&self, bytes: u64) {
        *self.world.unsent.lock().unwrap() = bytes;
    }

    pub(super) fn up(&self, node: &str, up: bool) {
        self.world.machines().get_mut(node).unwrap().up = up;
    }

    /// The group's members as the group object has them; `+` joins.
    pub(super) fn members(&self) -> Vec<String> {
        let mark = |joins: bool| if joins { "+" } else { "" };
        let all = self.group().members;
        all.iter().map(|m| format!("{}{}", mark(m.joining.is_some()), m.volume)).collect()
    }

    /// In which of the engine's groups a volume is, and at which number.
    pub(super) fn at(&self, node: &str, volume: &str) -> Option<(String, u64)> {
        let volume: VolumeId = volume.parse().unwrap();
        let machine = self.world.machines()[node].clone();
        let (name, held) =
            machine.groups.iter().find(|(_, h)| h.members.iter().any(|m| m.volume == volume))?;
        Some((name.to_string(), held.generation.number))
    }

    pub(super) fn volume(&self, name: &str) -> String {
        self.volumes().into_iter().find(|v| v.starts_with(name)).unwrap()
    }

    pub(super) async fn left_over(&self) -> Vec<String> {
        let mut engines = std::collections::BTreeMap::new();
        for node in ["a", "b", "c"] {
            if let Ok(status) = Engines::status(&self.world, node).await {
                engines.insert(node.to_owned(), status);
            }
        }
        let volumes = self.world.volumes.lock().unwrap().clone().unwrap();
        let found = leftovers(&volumes, &self.world.groups().await.unwrap(), &engines);
        found.iter().map(|l| format!("{} on {}", l.volume, l.node)).collect()
    }

    /// As the CSI driver makes a volume, which serves alone then.
    pub(super) fn make_volume(&self, name: &str, node: &str, number: u64) {
        let handle: VolumeId = name.parse().unwrap();
        let generation = Generation { number, id: 9 };
        let mut machines = self.world.machines();
        let machine = machines.get_mut(node).unwrap();
        let member = Member { volume: handle.clone(), size: ByteLen(1 << 20) };
        machine.replicas.insert(handle.clone(), member.size);
        let held = Held {
            generation,
            role: Role::Primary,
            stage: Stage::Running,
            peer: None,
            members: vec![member],
            policy: Policy::default(),
            record: 0,
            joining: Vec::new(),
        };
        machine.groups.insert(handle.clone(), held);
        let spec = ReplicatedVolumeSpec {
            size_bytes: 1 << 20,
            node: Some(node.to_owned()),
            pool: Some(machine.pool.to_string()),
            generation: Some(generation.to_string()),
            group: None,
        };
        let volume = Volume::parse(&handle, "1".into(), spec).unwrap();
        self.world.volumes.lock().unwrap().as_mut().unwrap().insert(handle, volume);
    }

    /// A person adds a disk: where volumes are kept, one that the CSI driver has made.
    pub(super) fn add_disk(&mut self, name: &str, node: &str, number: u64) {
        let kept = self.world.volumes.lock().unwrap().is_some();
        if kept {
            self.make_volume(name, node, number);
        }
        self.desired.volumes.as_mut().unwrap().push(SourceVolume {
            member: Member { volume: name.parse().unwrap(), size: ByteLen(1 << 20) },
            node: kept.then(|| node.to_owned()),
        });
    }
}
