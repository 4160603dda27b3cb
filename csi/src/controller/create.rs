//! CreateVolume.
//!
//! ```text
//!   parse ─► is there one? ─┬─ no:  choose a node ─► its pool ─► ReplicatedVolume {node, pool, generation}
//!                           ├─ of another name or size: ALREADY_EXISTS
//!                           └─ yes ──────────────────────┐          (intent first)
//!                                                        ▼
//!                      first generation? ─ yes ─► engine: CreateReplica, Start (both may be repeated)
//!                           └─ no: it was finished, and lives on
//! ```

use understudy_core::engine::api::{
    ByteLen, Capacity, Generation, Member, Policy, Role, Start, Uuid,
};
use understudy_core::engine::client::ClientError;

use super::Controller;
use crate::TOPOLOGY_INSTALLATION;
use crate::engines::Engines;
use crate::fault::{Asked, Fault, Problem};
use crate::placement;
use crate::proto::csi;
use crate::request::Create;
use crate::volume::{Alone, Place, Volume, signed};
use crate::volumes::{Node, Volumes};

/// The number of a volume's first generation: under it, and only then, it may be half made.
const FIRST: u64 = 1;

impl<V: Volumes, E: Engines> Controller<V, E> {
    pub(super) async fn create(
        &self,
        request: &csi::CreateVolumeRequest,
    ) -> Result<csi::CreateVolumeResponse, Fault> {
        let wanted = Create::parse(request)?;
        let _guard = self.guards.take(&wanted.handle)?;
        let (volume, is_new) = match self.volumes.get(&wanted.handle).await? {
            Some(found) => (same(found, &wanted)?, false),
            None => (self.write_intent(&wanted).await?, true),
        };
        match &volume.place {
            Place::Alone(alone) if alone.generation.number == FIRST => {
                if let Err((fault, made)) = self.make(&volume, alone).await {
                    // A replica that is older than this call may hold data.
                    if fault.problem == Problem::Exhausted && (is_new || made == Made::Nothing) {
                        self.take_back(&volume, alone, made).await;
                    }
                    return Err(fault);
                }
            }
            // It has lived on since: replicated, perhaps failed over.
            Place::Alone(_) | Place::Grouped { .. } => {}
            Place::Unserved { .. } => {
                let text = format!(
                    "volume {} is being deleted, or was made by hand without a generation: try again when it is gone",
                    volume.handle
                );
                return Err(Fault::new(Problem::Busy, text));
            }
        }
        Ok(csi::CreateVolumeResponse { volume: Some(self.described(&volume)) })
    }

    /// A volume as CSI describes it. Its topology is the installation and never a node: it stays true
    /// when the replica moves.
    pub(super) fn described(&self, volume: &Volume) -> csi::Volume {
        let segment = (TOPOLOGY_INSTALLATION.to_owned(), self.installation.to_string());
        csi::Volume {
            capacity_bytes: signed(volume.size.0),
            volume_id: volume.handle.to_string(),
            accessible_topology: vec![csi::Topology { segments: [segment].into() }],
            ..csi::Volume::default()
        }
    }

    /// Writes down what is about to be made, before any engine hears of it.
    async fn write_intent(&self, wanted: &Create) -> Result<Volume, Fault> {
        let size = wanted.sizes.choose()?;
        let (node, pool) = self.place(wanted, size).await?;
        let generation = Generation { number: FIRST, id: random()? };
        let alone = Alone { node, pool, generation };
        let volume = Volume::new(wanted.handle.clone(), wanted.name.clone(), size, alone);
        self.volumes.create(&volume).await?;
        // As it is there now, with its version.
        let written = self.volumes.get(&wanted.handle).await?;
        written.ok_or_else(|| {
            let text = format!("volume {} was deleted while it was made: try again", wanted.handle);
            Fault::new(Problem::Busy, text)
        })
    }

    /// The node and pool of a new volume.
    async fn place(&self, wanted: &Create, size: ByteLen) -> Result<(String, Uuid), Fault> {
        let nodes = self.volumes.nodes().await?;
        let candidates =
            placement::candidates(wanted.wishes.as_deref(), &nodes, &self.installation)?;
        let asking = candidates
            .iter()
            .map(|node| async { (*node, self.space_of(node, Asked::Create).await) });
        let answers = futures::future::join_all(asking).await;
        let mut best = None;
        let mut first_fault = None;
        for (node, answer) in answers {
            match answer {
                Ok(space) if best.as_ref().is_none_or(|(_, most)| space.available > *most) => {
                    best = Some(((node.name.clone(), space.pool), space.available));
                }
                Ok(_) => {}
                Err(fault) => first_fault = first_fault.or(Some(fault)),
            }
        }
        match (best, first_fault) {
            (Some((place, most)), _) if size <= most => Ok(place),
            (Some(((node, _), most)), _) => Err(Fault::new(
                Problem::Exhausted,
                format!(
                    "node {node} has {most} bytes free in its pool, of {size} that are needed: make room, or choose another node"
                ),
            )),
            (None, Some(fault)) => Err(fault),
            (None, None) => Err(Fault::internal("no node to choose from")),
        }
    }

    /// The space of a node's pool.
    pub(super) async fn space_of(&self, node: &Node, asked: Asked) -> Result<Capacity, Fault> {
        let Some(engine) = &node.engine else {
            let text =
                format!("node {} has no InternalIP, so its engine can't be reached", node.name);
            return Err(Fault::new(Problem::Unavailable, text));
        };
        let asking = self.engines.capacity(&engine.api);
        asking.await.map_err(|e| Fault::engine(asked, &node.name, &e))
    }

    /// Makes what the object says, or what is missing of it.
    async fn make(&self, volume: &Volume, alone: &Alone) -> Result<(), (Fault, Made)> {
        let reaching = self.engine_with_pool(Asked::Create, &alone.node, alone.pool);
        let at = reaching.await.map_err(|fault| (fault, Made::Replica))?;
        let failed = |e: ClientError| Fault::engine(Asked::Create, &alone.node, &e);
        let member = Member { volume: volume.handle.clone(), size: volume.size };
        let creating = self.engines.create_replica(&at, &member);
        creating.await.map_err(|e| (failed(e), Made::Nothing))?;
        let start = Start {
            group: volume.handle.clone(),
            generation: alone.generation,
            role: Role::Primary,
            members: vec![member],
            peer: None,
            policy: Policy::default(),
            inbound: false,
            adopt: false,
        };
        self.engines.start(&at, &start).await.map_err(|e| (failed(e), Made::Replica))
    }

    /// Forgets a volume for which there was no room, so that it can be made on another node. What
    /// fails here is found by the next call.
    async fn take_back(&self, volume: &Volume, alone: &Alone, made: Made) {
        let undo = async {
            if made == Made::Replica {
                let at = self.engine_of(&alone.node).await?;
                let deleting = self.engines.delete_replica(&at, &volume.handle);
                deleting.await.map_err(|e| Fault::engine(Asked::Delete, &alone.node, &e))?;
            }
            self.volumes.delete(volume).await.map_err(Fault::from)
        };
        if let Err(fault) = undo.await {
            tracing::info!(volume = %volume.handle, "not taken back: {fault}");
        }
    }
}

/// How far the making of a volume came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Made {
    /// There is no replica.
    Nothing,
    /// There is one, or may be.
    Replica,
}

/// The volume that is there, if it is the one that is asked for.
fn same(found: Volume, wanted: &Create) -> Result<Volume, Fault> {
    let exists = |text: String| Err(Fault::new(Problem::Exists, text));
    if found.name != wanted.name {
        return exists(format!(
            "the volume {} was made under another name: choose another",
            found.handle
        ));
    }
    if !wanted.sizes.allow(found.size) {
        return exists(format!(
            "volume {} is there with {} bytes, which is not what is asked for: choose another name, or expand it",
            found.handle, found.size
        ));
    }
    Ok(found)
}

/// The random half of a generation.
fn random() -> Result<u64, Fault> {
    let mut bytes = [0; 8];
    let got = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
    match got {
        Ok(8) => Ok(u64::from_le_bytes(bytes)),
        Ok(_) => Err(Fault::internal("the kernel gave too few random bytes")),
        Err(e) => Err(Fault::internal(format!("the kernel gives no random bytes: {e}"))),
    }
}
