//! What is there: the group object, the engines, the last status. The only place of a pass that
//! reads clock and randomness.

use std::collections::BTreeMap;
use std::io::Read;

use futures::future::join_all;
use k8s_openapi::jiff::Timestamp;
use understudy_core::engine::api::{Address, EngineStatus, GroupStatus};
use understudy_crds::BlockReplicationStatus;

use crate::desired::Desired;
use crate::engines::Engines;
use crate::store::{Group, Store, StoreError};

/// The nodes that the operator was told of, with the address where each takes links, if it does.
pub type Nodes = BTreeMap<String, Option<Address>>;

/// One node as it was found.
#[derive(Clone, PartialEq, Debug)]
pub struct Node {
    /// Where its engine takes links.
    pub link: Option<Address>,
    /// How its engine is, or why it did not say.
    pub engine: Result<EngineStatus, String>,
}

/// An action that failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// What was tried and what came of it.
    pub message: String,
}

/// Everything a decision rests on.
#[derive(Clone, PartialEq, Debug)]
pub struct Observed {
    /// The group object.
    pub group: Option<Group>,
    /// Every node.
    pub nodes: BTreeMap<String, Node>,
    /// The status as it was last written.
    pub status: BlockReplicationStatus,
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
    let answers = join_all(nodes.iter().map(|(name, link)| async move {
        let engine = engines.status(name).await.map_err(|e| e.to_string());
        (name.clone(), Node { link: link.clone(), engine })
    }))
    .await;
    Ok(Observed {
        group,
        nodes: answers.into_iter().collect(),
        status,
        failure: None,
        fresh_id: random().map_err(|source| StoreError::Failed {
            action: "reading",
            path: "/dev/urandom".to_owned(),
            source,
        })?,
    })
}

/// The time for conditions and their like.
#[allow(clippy::disallowed_methods, reason = "the edge where time comes in")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

fn random() -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}
