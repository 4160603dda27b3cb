//! What is there: the group object, the engines, the last status. The only place of a pass that
//! reads clock and randomness.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use futures::future::join_all;
use k8s_openapi::jiff::Timestamp;
use understudy_core::engine::api::{Address, ByteLen, EngineStatus, GroupStatus, VolumeId};
use understudy_crds::BlockReplicationStatus;

use crate::desired::Desired;
use crate::engines::Engines;
use crate::store::{Group, Pod, Store, StoreError, Volumes};

/// The nodes that the operator knows of.
pub type Nodes = BTreeMap<String, Place>;

/// What is known of a node without asking its engine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// Where its engine takes links, if it does.
    pub link: Option<Address>,
    /// Kubernetes says that it is ready; true where nobody says so.
    pub ready: bool,
    /// What keeps new things off it, as "is cordoned": no copy comes there unless it is named.
    pub closed: Option<String>,
}

/// One node as it was found.
#[derive(Clone, PartialEq, Debug)]
pub struct Node {
    /// Where its engine takes links.
    pub link: Option<Address>,
    /// Kubernetes says that it is ready.
    pub ready: bool,
    /// What keeps new things off it.
    pub closed: Option<String>,
    /// How its engine is, or why it did not say.
    pub engine: Result<EngineStatus, String>,
    /// What a new replica could take there, where that is known.
    pub available: Option<ByteLen>,
}

/// An action that failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// What was tried and what came of it.
    pub message: String,
    /// It was a stop, and the peer gave no last checkpoint.
    pub no_last_checkpoint: bool,
}

/// Everything a decision rests on.
#[derive(Clone, PartialEq, Debug)]
pub struct Observed {
    /// The group object.
    pub group: Option<Group>,
    /// The volumes concerned, as far as they exist. `None`: volumes are kept nowhere.
    pub volumes: Option<Volumes>,
    /// The pods that use them; looked for only after a promotion.
    pub pods: Vec<Pod>,
    /// Every node.
    pub nodes: BTreeMap<String, Node>,
    /// The status as it was last written.
    pub status: BlockReplicationStatus,
    /// There is an object that wants to know how its replication goes, or that it has ended.
    pub remembered: bool,
    /// The action of the pass before that failed.
    pub failure: Option<Failure>,
    /// A random number, in case a new generation needs one.
    pub fresh_id: u64,
}

impl Observed {
    /// The engine of this node, if it answered.
    pub fn engine(&self, node: &str) -> Option<&EngineStatus> {
        self.nodes.get(node)?.engine.as_ref().ok()
    }

    /// What the engine of this node says of the group, if it is the engine that is meant.
    pub fn view(&self, group: &Group, node: &str, pool: &str) -> Option<&GroupStatus> {
        self.engine(node).filter(|e| e.pool.to_string() == pool)?.group(&group.name)
    }
}

/// Looks at everything that concerns one group.
pub async fn observe<E: Engines, S: Store>(
    desired: &Desired,
    nodes: &Nodes,
    engines: &E,
    store: &S,
) -> Result<Observed, StoreError> {
    let group = store.group(&desired.group).await?;
    let status = store.status(&desired.name).await?;
    let volumes = store.volumes(&volumes(desired, group.as_ref())).await?;
    let pods = match group.as_ref().and_then(|g| g.spec.promotion.as_ref()) {
        Some(last) if volumes.is_some() && last.pods.as_ref().is_none_or(|p| !p.is_empty()) => {
            // A device of any other volume is not of the generation that was replaced.
            let members = group.iter().flat_map(|g| &g.members).map(|m| m.volume.clone());
            store.pods(&members.collect::<Vec<_>>()).await?
        }
        _ => Vec::new(),
    };
    let answers = join_all(nodes.iter().map(|(name, place)| async move {
        let engine = engines.status(name).await.map_err(|e| e.to_string());
        let available = engines.available(name);
        let (link, ready, closed) = (place.link.clone(), place.ready, place.closed.clone());
        (name.clone(), Node { link, ready, closed, engine, available })
    }))
    .await;
    Ok(Observed {
        group,
        volumes,
        pods,
        nodes: answers.into_iter().collect(),
        remembered: status.is_some(),
        status: status.unwrap_or_default(),
        failure: None,
        fresh_id: random().map_err(|source| StoreError::Failed {
            action: "reading",
            path: "/dev/urandom".to_owned(),
            source: source.into(),
        })?,
    })
}

/// The group's volumes, those that it is to have, and those that it left behind.
fn volumes(desired: &Desired, group: Option<&Group>) -> Vec<VolumeId> {
    let members = group.into_iter().flat_map(|g| &g.members).map(|m| m.volume.clone());
    let wanted = desired.volumes.iter().flatten().map(|v| v.member.volume.clone());
    let left = group.into_iter().flat_map(|g| &g.spec.left_behind);
    let left = left.filter_map(|l| l.volume.parse().ok());
    members.chain(wanted).chain(left).collect::<BTreeSet<_>>().into_iter().collect()
}

/// The time for conditions and their like.
#[allow(clippy::disallowed_methods, reason = "the edge where time comes in")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// A random number.
pub(crate) fn random() -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}
