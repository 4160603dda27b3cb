//! What the operator asks of engines, and the way to them.

use std::collections::BTreeMap;
use std::time::Duration;

use understudy_core::engine::api::{
    Address, ByteLen, EngineStatus, Epoch, Failover, Generation, GroupId, Member, Policy, Start,
    VolumeId,
};
use understudy_core::engine::client::{ClientError, EngineClient};

/// How long an engine may take to say how it is. It answers from memory; one that takes longer is
/// treated as gone for this pass, so that it does not hold up the others.
pub const STATUS_DEADLINE: Duration = Duration::from_secs(2);

/// How long an action may take. A checkpoint waits for the peer; it is asked for again as long as it
/// is wanted.
pub const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// How long a stop may take: an engine gives a last checkpoint 30 s, and the secondary 10 s to say that it
/// has stopped too. Only then is it known why there is none.
pub const STOP_DEADLINE: Duration = Duration::from_secs(45);

/// One call of the engine API. Every one may be repeated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Call {
    /// Makes a replica of zeroes.
    CreateReplica(Member),
    /// Deletes a replica.
    DeleteReplica(VolumeId),
    /// Grows a replica to this size.
    ExpandReplica(Member),
    /// Begins or resumes a role.
    Start(Start),
    /// Changes the policy.
    SetPolicy {
        /// Of this group.
        group: GroupId,
        /// Under this generation.
        generation: Generation,
        /// To this.
        policy: Policy,
    },
    /// Makes a checkpoint.
    Checkpoint {
        /// Of this group.
        group: GroupId,
        /// Under this generation.
        generation: Generation,
        /// The text that asked for it; the status repeats it.
        token: String,
    },
    /// Ends replication.
    Stop {
        /// Of this group.
        group: GroupId,
        /// Under this generation.
        generation: Generation,
        /// At once, without a last checkpoint.
        abandon_peer: bool,
    },
    /// Promotes the secondary.
    Failover(Failover),
}

/// Engines by the name of their node.
pub trait Engines: Send + Sync {
    /// How the node's engine is.
    fn status(&self, node: &str) -> impl Future<Output = Result<EngineStatus, ClientError>> + Send;

    /// What a new replica could take at the node, where that is known.
    fn available(&self, node: &str) -> Option<ByteLen>;

    /// Carries out a call; the checkpoint that it led to, if it did.
    fn run(
        &self,
        node: &str,
        call: &Call,
    ) -> impl Future<Output = Result<Option<Epoch>, ClientError>> + Send;
}

/// Engines over the network.
#[derive(Clone, Debug, Default)]
pub struct RemoteEngines {
    clients: BTreeMap<String, EngineClient>,
}

impl RemoteEngines {
    /// Knows where each node's engine is; connects when first asked. Needs a tokio runtime.
    pub fn new<'a>(
        nodes: impl IntoIterator<Item = (&'a String, &'a Address)>,
    ) -> Result<Self, ClientError> {
        let clients = nodes
            .into_iter()
            .map(|(node, address)| Ok((node.clone(), EngineClient::lazy(address)?)))
            .collect::<Result<_, ClientError>>()?;
        Ok(Self { clients })
    }

    fn client(&self, node: &str, deadline: Duration) -> Result<EngineClient, ClientError> {
        match self.clients.get(node) {
            Some(client) => Ok(client.with_deadline(deadline)),
            None => Err(ClientError::Unreachable {
                address: Address::Tcp(format!("{node}:0")),
                reason: format!("no address is known for node {node}"),
            }),
        }
    }
}

impl Engines for RemoteEngines {
    async fn status(&self, node: &str) -> Result<EngineStatus, ClientError> {
        let client = self.client(node, STATUS_DEADLINE)?;
        // The deadline of a call does not bound the wait for a connection.
        match tokio::time::timeout(STATUS_DEADLINE, client.status()).await {
            Ok(answer) => answer,
            Err(_) => Err(ClientError::Deadline {
                address: client.address().clone(),
                after: STATUS_DEADLINE,
            }),
        }
    }

    fn available(&self, _: &str) -> Option<ByteLen> {
        None
    }

    async fn run(&self, node: &str, call: &Call) -> Result<Option<Epoch>, ClientError> {
        call.make(&self.client(node, call.deadline())?).await
    }
}

impl Call {
    /// How long it may take.
    pub fn deadline(&self) -> Duration {
        match self {
            Call::Stop { .. } => STOP_DEADLINE,
            _ => CALL_DEADLINE,
        }
    }

    /// Makes the call; the checkpoint that it led to, if it did.
    pub async fn make(&self, client: &EngineClient) -> Result<Option<Epoch>, ClientError> {
        match self {
            Call::CreateReplica(member) => client.create_replica(member).await.map(|_| None),
            Call::DeleteReplica(volume) => client.delete_replica(volume).await.map(|()| None),
            Call::ExpandReplica(member) => {
                client.expand_replica(&member.volume, member.size).await.map(|_| None)
            }
            Call::Start(start) => client.start(start).await.map(|()| None),
            Call::SetPolicy { group, generation, policy } => {
                client.set_policy(group, *generation, policy).await.map(|()| None)
            }
            Call::Checkpoint { group, generation, .. } => {
                client.checkpoint(group, *generation).await.map(Some)
            }
            Call::Stop { group, generation, abandon_peer } => {
                client.stop(group, *generation, *abandon_peer).await.map(|()| None)
            }
            Call::Failover(failover) => client.failover(failover).await.map(Some),
        }
    }
}
