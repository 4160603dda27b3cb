//! Two engines in memory: replicas, groups, space; and a fuse that kills whoever calls them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use understudy_core::engine::api::{
    Address, ByteLen, Capacity, EngineStatus, Epoch, ExportKind, ExportStatus, Generation, GroupId,
    GroupStatus, LinkState, Member, Refusal, Replica, Role, Stage, Start, Uuid, VolumeId,
};
use understudy_core::engine::attach::api::EngineAddresses;
use understudy_core::engine::client::ClientError;

use crate::controller::Controller;
use crate::engines::Engines;
use crate::volumes::Node;
use crate::volumes::memory::MemoryVolumes;

#[derive(Debug)]
struct Engine {
    node: String,
    up: bool,
    pool: Uuid,
    free: u64,
    replicas: BTreeMap<VolumeId, ByteLen>,
    groups: BTreeMap<GroupId, (Generation, Vec<VolumeId>)>,
    clients: u32,
    refusals: BTreeMap<&'static str, Refusal>,
}

type Hook = Box<dyn Fn(&'static str, &MemoryVolumes) + Send + Sync>;

/// Everything outside the controller.
pub(super) struct World {
    pub(super) volumes: Arc<MemoryVolumes>,
    engines: Arc<Fake>,
}

pub(super) struct Fake {
    engines: Mutex<BTreeMap<String, Engine>>,
    calls: Mutex<Vec<String>>,
    fuse: Mutex<Option<usize>>,
    hook: Mutex<Option<Hook>>,
    volumes: Arc<MemoryVolumes>,
}

fn address(node: &str) -> Address {
    Address::Unix(format!("/{node}").into())
}

impl World {
    /// node-a and node-b of the installation prod, with 100 MiB each.
    pub(super) fn new() -> Self {
        let mut engines = BTreeMap::new();
        let mut nodes = Vec::new();
        for (number, name) in (1_u32..).zip(["node-a", "node-b"]) {
            let api = address(name);
            nodes.push(Node {
                name: name.to_owned(),
                installation: "prod".to_owned(),
                engine: Some(EngineAddresses { api: api.clone(), nbd: api.clone() }),
            });
            let engine = Engine {
                node: name.to_owned(),
                up: true,
                pool: Uuid(number.into()),
                free: 100 << 20,
                replicas: BTreeMap::new(),
                groups: BTreeMap::new(),
                clients: 0,
                refusals: BTreeMap::new(),
            };
            engines.insert(api.to_string(), engine);
        }
        let volumes = Arc::new(MemoryVolumes::new(nodes));
        let engines = Arc::new(Fake {
            engines: Mutex::new(engines),
            calls: Mutex::default(),
            fuse: Mutex::default(),
            hook: Mutex::default(),
            volumes: volumes.clone(),
        });
        Self { volumes, engines }
    }

    /// A controller that has just started.
    pub(super) fn controller(&self) -> Controller<MemoryVolumes, Fake> {
        Controller::new(self.volumes.clone(), self.engines.clone(), "prod")
    }

    fn at<T>(&self, node: &str, look: impl FnOnce(&mut Engine) -> T) -> T {
        look(self.engines.lock().get_mut(&address(node).to_string()).unwrap())
    }

    pub(super) fn pool(&self, node: &str) -> Uuid {
        self.at(node, |engine| engine.pool)
    }

    pub(super) fn set_pool(&self, node: &str, pool: u128) {
        self.at(node, |engine| engine.pool = Uuid(pool));
    }

    pub(super) fn set_up(&self, node: &str, up: bool) {
        self.at(node, |engine| engine.up = up);
    }

    pub(super) fn set_clients(&self, node: &str, clients: u32) {
        self.at(node, |engine| engine.clients = clients);
    }

    pub(super) fn refuse(&self, node: &str, call: &'static str, refusal: Refusal) {
        self.at(node, |engine| engine.refusals.insert(call, refusal));
    }

    pub(super) fn put_replica(&self, node: &str, volume: &str, size: ByteLen) {
        self.at(node, |engine| engine.replicas.insert(volume.parse().unwrap(), size));
    }

    /// The replicas of a node, with their sizes in MiB.
    pub(super) fn replicas(&self, node: &str) -> Vec<(String, u64)> {
        self.at(node, |engine| {
            engine.replicas.iter().map(|(v, size)| (v.to_string(), size.0 >> 20)).collect()
        })
    }

    /// The groups of a node, with their generations.
    pub(super) fn groups(&self, node: &str) -> Vec<(String, Generation)> {
        self.at(node, |engine| {
            engine.groups.iter().map(|(group, (g, _))| (group.to_string(), *g)).collect()
        })
    }

    /// Every call that changes something, as `node: call`.
    pub(super) fn calls(&self) -> Vec<String> {
        self.engines.calls.lock().unwrap().clone()
    }

    /// So many more calls of engines are heard, then none: whoever calls is dead.
    pub(super) fn light_fuse(&self, calls: Option<usize>) {
        *self.engines.fuse.lock().unwrap() = calls;
    }

    /// Does something whenever an engine is called.
    pub(super) fn on_call(
        &self,
        hook: impl Fn(&'static str, &MemoryVolumes) + Send + Sync + 'static,
    ) {
        *self.engines.hook.lock().unwrap() = Some(Box::new(hook));
    }
}

fn refused(refusal: Refusal, message: &str) -> ClientError {
    ClientError::Refused { refusal, message: message.to_owned() }
}

impl Fake {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Engine>> {
        self.engines.lock().unwrap()
    }

    fn call<T>(
        &self,
        at: &Address,
        call: &'static str,
        answer: impl FnOnce(&mut Engine) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let gone = || ClientError::Unreachable {
            address: at.clone(),
            reason: "connection refused".to_owned(),
        };
        match &mut *self.fuse.lock().unwrap() {
            Some(0) => return Err(gone()),
            Some(left) => *left -= 1,
            None => {}
        }
        if let Some(hook) = &*self.hook.lock().unwrap() {
            hook(call, &self.volumes);
        }
        let mut engines = self.lock();
        let engine = engines.get_mut(&at.to_string()).filter(|e| e.up).ok_or_else(gone)?;
        if !["capacity", "status"].contains(&call) {
            self.calls.lock().unwrap().push(format!("{}: {call}", engine.node));
        }
        if let Some(refusal) = engine.refusals.get(call) {
            return Err(refused(*refusal, "as the test wants"));
        }
        answer(engine)
    }
}

fn group_status(
    engine: &Engine,
    group: &GroupId,
    generation: Generation,
    volume: &VolumeId,
) -> GroupStatus {
    let zero = ByteLen(0);
    GroupStatus {
        group: group.clone(),
        generation,
        role: Some(Role::Primary),
        stage: Stage::Running,
        link: LinkState::Solo,
        epoch: Epoch(1),
        record: Epoch::NONE,
        checkpoint_cut: None,
        checkpoint_done: None,
        checkpoint_bytes: zero,
        bytes_at_risk: zero,
        missing: zero,
        resync_rate: zero,
        window: zero,
        undo: zero,
        active: zero,
        commit_done: zero,
        commit_total: zero,
        frames_sent: 0,
        frames_acknowledged: 0,
        frames_applied: 0,
        error: None,
        joining: Vec::new(),
        exports: vec![ExportStatus {
            name: format!("{volume}/primary@{generation}"),
            volume: volume.clone(),
            kind: ExportKind::Primary,
            uri: String::new(),
            clients: engine.clients,
        }],
    }
}

impl Engines for Fake {
    async fn capacity(&self, at: &Address) -> Result<Capacity, ClientError> {
        self.call(at, "capacity", |engine| {
            let taken: u64 = engine.replicas.values().map(|size| size.0).sum();
            Ok(Capacity {
                total: ByteLen(engine.free),
                available: ByteLen(engine.free.saturating_sub(taken)),
                pool: engine.pool,
            })
        })
    }

    async fn status(&self, at: &Address) -> Result<EngineStatus, ClientError> {
        self.call(at, "status", |engine| {
            let groups = engine.groups.iter().flat_map(|(group, (generation, members))| {
                let engine = &*engine;
                members.iter().map(move |m| group_status(engine, group, *generation, m))
            });
            Ok(EngineStatus {
                pool: engine.pool,
                version: "test".to_owned(),
                groups: groups.collect(),
                replicas: Vec::new(),
            })
        })
    }

    async fn create_replica(&self, at: &Address, member: &Member) -> Result<Replica, ClientError> {
        self.call(at, "create", |engine| {
            let size = *engine.replicas.entry(member.volume.clone()).or_insert(member.size);
            if size != member.size {
                return Err(refused(Refusal::Exists, "another size"));
            }
            Ok(Replica { uuid: Uuid(9), size })
        })
    }

    async fn delete_replica(&self, at: &Address, volume: &VolumeId) -> Result<(), ClientError> {
        self.call(at, "delete", |engine| {
            engine.replicas.remove(volume);
            engine.groups.retain(|_, (_, members)| !members.contains(volume));
            Ok(())
        })
    }

    async fn expand_replica(
        &self,
        at: &Address,
        volume: &VolumeId,
        size: ByteLen,
    ) -> Result<ByteLen, ClientError> {
        self.call(at, "expand", |engine| match engine.replicas.get_mut(volume) {
            Some(has) => {
                *has = size.max(*has);
                Ok(*has)
            }
            None => Err(refused(Refusal::NotFound, "no such volume")),
        })
    }

    async fn start(&self, at: &Address, start: &Start) -> Result<(), ClientError> {
        self.call(at, "start", |engine| {
            let members: Vec<_> = start.members.iter().map(|m| m.volume.clone()).collect();
            if !members.iter().all(|m| engine.replicas.contains_key(m)) {
                return Err(refused(Refusal::NotFound, "no such replica"));
            }
            let held = engine.groups.entry(start.group.clone());
            let (generation, _) = held.or_insert((start.generation, members));
            if *generation != start.generation {
                return Err(refused(Refusal::WrongState, "another generation"));
            }
            Ok(())
        })
    }
}
