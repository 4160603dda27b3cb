//! Engines and a store in memory, for tests: the engine API's rules, no data.

mod machine;
mod store;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use understudy_core::engine::api::{
    Address, EngineStatus, Epoch, Generation, GroupId, GroupStatus, LinkState, Member, Policy,
    Refusal, ReplicaStatus, Role, Stage, Uuid, VolumeId,
};
use understudy_core::engine::client::ClientError;
use understudy_core::units::ByteLen;
use understudy_crds::BlockReplicationStatus;

use crate::desired::ObjectName;
use crate::engines::{Call, Engines};
use crate::store::{Group, Pod, Volume};

/// A group as one engine keeps it.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) generation: Generation,
    pub(crate) role: Role,
    pub(crate) stage: Stage,
    pub(crate) peer: Option<Address>,
    pub(crate) members: Vec<Member>,
    pub(crate) policy: Policy,
    pub(crate) record: u64,
    /// Members that no checkpoint covers yet.
    pub(crate) joining: Vec<VolumeId>,
}

/// One engine.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) up: bool,
    pub(crate) pool: Uuid,
    pub(crate) link: Address,
    pub(crate) replicas: BTreeMap<VolumeId, ByteLen>,
    pub(crate) groups: BTreeMap<GroupId, Held>,
    /// How many checkpoints were asked for.
    pub(crate) checkpoints: u64,
    /// What a new replica could take.
    pub(crate) available: Option<ByteLen>,
    /// What keeps new things off its node.
    pub(crate) closed_node: Option<String>,
    /// Its groups are closed for a change: a look does not find them.
    pub(crate) closed: bool,
}

/// Everything outside the operator, which outlives it.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) machines: Mutex<BTreeMap<String, Machine>>,
    pub(crate) groups: Mutex<BTreeMap<GroupId, Group>>,
    pub(crate) statuses: Mutex<BTreeMap<ObjectName, BlockReplicationStatus>>,
    /// Where there is a cluster: what the CSI driver made.
    pub(crate) volumes: Mutex<Option<BTreeMap<VolumeId, Volume>>>,
    pub(crate) pods: Mutex<Vec<Pod>>,
    /// The volumes whose pods were last looked for.
    pub(crate) asked_pods_of: Mutex<String>,
    /// Pods that were deleted, as `NAME`, or `NAME!` by force.
    pub(crate) deleted: Mutex<Vec<String>>,
    /// Bytes of joining volumes that are not sent; with any, no checkpoint covers them.
    pub(crate) unsent: Mutex<u64>,
    /// The links are cut: peers lack writes, and no checkpoint completes.
    pub(crate) cut: Mutex<bool>,
    /// How many effects the operator may still have before it is killed; `None`: any number.
    pub(crate) fuse: Mutex<Option<usize>>,
}

impl World {
    pub(crate) fn new(nodes: &[&str]) -> Self {
        let world = Self::default();
        for (number, node) in (1_u16..).zip(nodes) {
            let machine = Machine {
                up: true,
                pool: Uuid(u128::from(number)),
                link: Address::Tcp(format!("127.0.0.1:{}", 7000 + number)),
                replicas: BTreeMap::new(),
                groups: BTreeMap::new(),
                checkpoints: 0,
                available: None,
                closed_node: None,
                closed: false,
            };
            world.machines().insert((*node).to_owned(), machine);
        }
        world
    }

    pub(crate) fn machines(&self) -> MutexGuard<'_, BTreeMap<String, Machine>> {
        self.machines.lock().unwrap()
    }

    /// What both replicas of a running pair come to with time: a complete checkpoint.
    pub(crate) fn settle(&self) {
        let mut machines = self.machines();
        let cut = *self.cut.lock().unwrap();
        let links: BTreeMap<_, _> =
            machines.iter().map(|(n, m)| (m.link.to_string(), n.clone())).collect();
        let mut pairs = Vec::new();
        for (name, machine) in machines.iter().filter(|(_, m)| m.up) {
            for (group, held) in machine.groups.iter().filter(|_| !cut) {
                if let Some(peer) = held.peer.as_ref().and_then(|p| links.get(&p.to_string())) {
                    pairs.push((name.clone(), peer.clone(), group.clone(), held.generation));
                }
            }
        }
        for (primary, secondary, group, generation) in pairs {
            let other = machines.get_mut(&secondary).filter(|m| m.up);
            let Some(other) = other.and_then(|m| m.groups.get_mut(&group)) else { continue };
            if other.role == Role::Secondary && other.generation == generation {
                other.record = other.record.max(1);
                let there = other.clone();
                let own = machines.get_mut(&primary).unwrap().groups.get_mut(&group).unwrap();
                own.record = there.record;
                // The secondary's word counts: what it has not, the primary may not have.
                assert!(there.members.starts_with(&own.members), "a session would be refused");
                if *self.unsent.lock().unwrap() == 0 {
                    let own_members = own.members.clone();
                    own.joining.clear();
                    let covered = |v: &VolumeId| own_members.iter().any(|m| m.volume == *v);
                    let other = machines.get_mut(&secondary).unwrap().groups.get_mut(&group);
                    other.unwrap().joining.retain(|v| !covered(v));
                }
            }
        }
        for machine in machines.values_mut() {
            for held in machine.groups.values_mut().filter(|h| h.stage == Stage::Failover) {
                held.stage = Stage::Done;
            }
        }
    }

    fn call(&self, node: &str, call: &Call) -> Result<Option<Epoch>, ClientError> {
        let mut machines = self.machines();
        let machine = machines.get_mut(node).filter(|m| m.up).ok_or_else(|| gone(node))?;
        if let Call::Stop { abandon_peer: false, .. } = call
            && *self.cut.lock().unwrap()
        {
            return Err(refused(Refusal::Unavailable, "no checkpoint completed within 30 s"));
        }
        let answer = machine.run(call);
        if let Call::Stop { group, generation, abandon_peer: false } = call {
            // The last frame reaches the secondary: it keeps the checkpoint and follows no more.
            let others = machines.values_mut().filter_map(|m| m.groups.get_mut(group));
            for held in others.filter(|h| h.generation == *generation && h.role == Role::Secondary)
            {
                held.stage = Stage::None;
            }
        }
        answer
    }

    /// Burns the fuse: `false` when the operator is dead.
    fn effect(&self) -> bool {
        match &mut *self.fuse.lock().unwrap() {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }

    pub(crate) fn dead(&self) -> bool {
        *self.fuse.lock().unwrap() == Some(0)
    }
}

fn refused(refusal: Refusal, message: &str) -> ClientError {
    ClientError::Refused { refusal, message: message.to_owned() }
}

fn gone(node: &str) -> ClientError {
    ClientError::Unreachable {
        address: Address::Tcp(format!("{node}:1")),
        reason: "connection refused".to_owned(),
    }
}

impl Engines for World {
    async fn status(&self, node: &str) -> Result<EngineStatus, ClientError> {
        let machines = self.machines();
        let machine = machines.get(node).filter(|m| m.up).ok_or_else(|| gone(node))?;
        let group = |(group, held): (&GroupId, &Held)| GroupStatus {
            group: group.clone(),
            generation: held.generation,
            role: Some(held.role),
            stage: held.stage,
            link: match (&held.peer, held.record) {
                (None, _) => LinkState::Solo,
                (Some(_), 0) => LinkState::Syncing,
                (Some(_), _) if *self.cut.lock().unwrap() => LinkState::Degraded,
                (Some(_), _) => LinkState::Running,
            },
            epoch: Epoch(held.record + 1),
            record: Epoch(held.record),
            checkpoint_cut: None,
            checkpoint_done: None,
            checkpoint_bytes: ByteLen(0),
            bytes_at_risk: ByteLen(0),
            missing: ByteLen(match held.joining.as_slice() {
                [] => 0,
                _ => *self.unsent.lock().unwrap(),
            }),
            resync_rate: ByteLen(0),
            window: ByteLen(0),
            undo: ByteLen(0),
            active: ByteLen(0),
            commit_done: ByteLen(0),
            commit_total: ByteLen(0),
            frames_sent: 0,
            frames_acknowledged: 0,
            frames_applied: 0,
            error: None,
            exports: Vec::new(),
            joining: held.joining.clone(),
        };
        let replica = |(volume, size): (&VolumeId, &ByteLen)| ReplicaStatus {
            volume: volume.clone(),
            uuid: Uuid(1),
            size: *size,
            group: machine.holder(volume),
        };
        Ok(EngineStatus {
            pool: machine.pool,
            version: "0".to_owned(),
            groups: machine.groups.iter().filter(|_| !machine.closed).map(group).collect(),
            replicas: machine.replicas.iter().map(replica).collect(),
        })
    }

    fn available(&self, node: &str) -> Option<ByteLen> {
        self.machines().get(node)?.available
    }

    async fn run(&self, node: &str, call: &Call) -> Result<Option<Epoch>, ClientError> {
        if !self.effect() {
            // The operator is dead: this call is never made and never returns.
            std::future::pending::<()>().await;
        }
        let answer = self.call(node, call);
        if self.dead() {
            // It was made, and the operator died before it heard the answer.
            std::future::pending::<()>().await;
        }
        answer
    }
}
