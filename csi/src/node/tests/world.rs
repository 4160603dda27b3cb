//! A node with an attach daemon in memory; volumes are served by it or by another node.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use understudy_core::engine::api::{Address, ByteLen, Generation, Refusal, Uuid, VolumeId};
use understudy_core::engine::attach::api::{
    Attach as Wanted, Device, DeviceState, EngineAddresses, IoCounters,
};
use understudy_core::engine::attach::client::AttachError;

use super::handle;
use crate::attach::Attach;
use crate::mount::fake::Fake as FakeMounts;
use crate::node::{Here, Node};
use crate::volume::{Alone, Volume};
use crate::volumes::memory::MemoryVolumes;
use crate::volumes::{self, Volumes};

/// The size of vol-a.
pub(super) const SIZE: u64 = 8 << 20;

pub(super) struct World {
    pub(super) volumes: Arc<MemoryVolumes>,
    pub(super) mounts: Arc<FakeMounts>,
    pub(super) daemon: Arc<FakeDaemon>,
}

/// The attach daemon, and what it would hear from engines.
#[derive(Debug, Default)]
pub(super) struct FakeDaemon {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    devices: BTreeMap<VolumeId, Device>,
    made: u32,
    size_at_engine: u64,
    refusal: Option<Refusal>,
    calls: Vec<String>,
}

pub(super) fn engine(node: &str) -> EngineAddresses {
    let address = |what: &str| Address::Unix(format!("/{node}/{what}").into());
    EngineAddresses { api: address("api"), nbd: address("nbd") }
}

pub(super) fn generation(number: u64) -> Generation {
    Generation { number, id: 0xaa }
}

impl World {
    /// This is node-a; vol-a is served by `node` in generation 1.
    pub(super) async fn served_by(node: &str) -> Self {
        let nodes = ["node-a", "node-b", "node-c"].map(|name| volumes::Node {
            name: name.to_owned(),
            installation: "prod".to_owned(),
            engine: Some(engine(name)),
        });
        let volumes = Arc::new(MemoryVolumes::new(nodes));
        let alone = Alone { node: node.to_owned(), pool: Uuid(1), generation: generation(1) };
        let volume = Volume::new(handle("vol-a"), "vol-a".to_owned(), ByteLen(SIZE), alone);
        volumes.create(&volume).await.unwrap();
        let daemon = FakeDaemon::default();
        daemon.lock().size_at_engine = SIZE;
        Self { volumes, mounts: Arc::default(), daemon: Arc::new(daemon) }
    }

    /// A node plugin that has just started.
    pub(super) fn node(&self) -> Node<MemoryVolumes, FakeDaemon, FakeMounts> {
        let here = Here {
            node: "node-a".to_owned(),
            installation: "prod".to_owned(),
            max_volumes: 7,
            engine: engine("node-a"),
        };
        Node::new(here, self.volumes.clone(), self.daemon.clone(), self.mounts.clone())
    }

    /// The objects say that another node serves vol-a.
    pub(super) fn move_to(&self, node: &str, number: u64) {
        self.volumes.edit(&handle("vol-a"), |object| {
            object.spec.node = Some(node.to_owned());
            object.spec.generation = Some(generation(number).to_string());
        });
    }

    pub(super) fn grow(&self, size: u64) {
        self.daemon.lock().size_at_engine = size;
        self.volumes.edit(&handle("vol-a"), |object| {
            object.spec.size_bytes = i64::try_from(size).unwrap();
        });
    }
}

impl FakeDaemon {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn device(&self) -> Option<Device> {
        self.lock().devices.get(&handle("vol-a")).cloned()
    }

    pub(super) fn set_state(&self, state: DeviceState) {
        self.lock().devices.get_mut(&handle("vol-a")).unwrap().state = state;
    }

    pub(super) fn forget(&self) {
        self.lock().devices.clear();
    }

    pub(super) fn set_refusal(&self, refusal: Option<Refusal>) {
        self.lock().refusal = refusal;
    }

    pub(super) fn calls(&self) -> Vec<String> {
        self.lock().calls.clone()
    }
}

impl State {
    fn call(&mut self, call: &str) -> Result<(), AttachError> {
        self.calls.push(call.to_owned());
        match self.refusal {
            Some(refusal) => {
                Err(AttachError::Refused { refusal, message: "as the test wants".to_owned() })
            }
            None => Ok(()),
        }
    }

    fn of(&mut self, volume: &VolumeId) -> Result<&mut Device, AttachError> {
        self.devices.get_mut(volume).ok_or_else(|| AttachError::Refused {
            refusal: Refusal::NotFound,
            message: "no such device".to_owned(),
        })
    }
}

impl Attach for FakeDaemon {
    async fn attach(&self, wanted: &Wanted) -> Result<Device, AttachError> {
        let mut state = self.lock();
        state.call("attach")?;
        assert!(!state.devices.contains_key(&wanted.volume), "the old device was not taken away");
        state.made += 1;
        let device = Device {
            volume: wanted.volume.clone(),
            generation: wanted.generation,
            path: format!("/dev/loop{}", state.made).into(),
            size: ByteLen(state.size_at_engine),
            read_only: wanted.read_only,
            state: DeviceState::Serving,
            error: None,
            session: Some(1),
            reconnects: 0,
            longest_stall: Duration::ZERO,
            io: IoCounters::default(),
            engine: wanted.engine.clone(),
        };
        state.devices.insert(wanted.volume.clone(), device.clone());
        Ok(device)
    }

    async fn detach(&self, volume: &VolumeId) -> Result<(), AttachError> {
        let mut state = self.lock();
        state.call("detach")?;
        state.devices.remove(volume);
        Ok(())
    }

    async fn resize(&self, volume: &VolumeId) -> Result<Device, AttachError> {
        let mut state = self.lock();
        state.call("resize")?;
        let size = ByteLen(state.size_at_engine);
        let device = state.of(volume)?;
        device.size = size;
        Ok(device.clone())
    }

    async fn fail(
        &self,
        volume: &VolumeId,
        generation: Generation,
        reason: &str,
    ) -> Result<Device, AttachError> {
        let mut state = self.lock();
        state.call("fail")?;
        let device = state.of(volume)?;
        assert_eq!(device.generation, generation);
        device.state = DeviceState::Gone;
        device.error = Some(reason.to_owned());
        Ok(device.clone())
    }

    async fn list(&self) -> Result<Vec<Device>, AttachError> {
        Ok(self.lock().devices.values().cloned().collect())
    }
}
