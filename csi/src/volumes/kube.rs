//! Volumes, groups and nodes in the Kubernetes API.
//!
//! ```text
//!   get, list, create, replace (resourceVersion), delete (resourceVersion)     ReplicatedVolume
//!   get, replace (resourceVersion)                                              ReplicationGroup
//!   get, list                                                                   Node
//! ```
//!
//! Nothing is cached: each call reads what is true now, and there are few.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::api::{Api, DeleteParams, ListParams, PostParams, Preconditions};
use kube::{Client, Config};
use understudy_core::engine::api::VolumeId;
use understudy_core::engine::attach::api::EngineAddresses;
use understudy_crds::{ReplicatedVolume, ReplicationGroup};

use super::{Node, StoreError, Volumes};
use crate::TOPOLOGY_INSTALLATION;
use crate::volume::{Group, Volume};

/// How long the API server may take. Calls come again.
const ANSWER: Duration = Duration::from_secs(10);

/// How engines are reached over the network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    /// The port of the engine API.
    pub api_port: u16,
    /// The port of NBD.
    pub nbd_port: u16,
    /// Without TLS: whoever is on the way reads and changes what passes.
    pub plaintext: bool,
}

impl Network {
    /// Where a node's engine is, if an address can be made of this.
    pub fn engine(&self, node: &str, ip: &str) -> Option<EngineAddresses> {
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        let address = |port: u16| {
            let text = if self.plaintext {
                format!("tcp:{host}:{port}")
            } else {
                format!("tls:{node}@{host}:{port}")
            };
            text.parse().ok()
        };
        Some(EngineAddresses { api: address(self.api_port)?, nbd: address(self.nbd_port)? })
    }
}

/// The Kubernetes API.
#[derive(Clone)]
pub struct KubeVolumes {
    volumes: Api<ReplicatedVolume>,
    groups: Api<ReplicationGroup>,
    nodes: Api<NodeObject>,
    network: Network,
}

impl std::fmt::Debug for KubeVolumes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubeVolumes").field("network", &self.network).finish_non_exhaustive()
    }
}

impl KubeVolumes {
    /// The cluster that this process runs in, or the one that `KUBECONFIG` names.
    pub async fn connect(network: Network) -> Result<Self, kube::Error> {
        let mut config = Config::infer().await.map_err(kube::Error::InferConfig)?;
        config.connect_timeout = Some(ANSWER);
        config.read_timeout = Some(ANSWER);
        Ok(Self::new(Client::try_from(config)?, network))
    }

    /// Over this client.
    pub fn new(client: Client, network: Network) -> Self {
        Self {
            volumes: Api::all(client.clone()),
            groups: Api::all(client.clone()),
            nodes: Api::all(client),
            network,
        }
    }
}

/// Waits for an answer, and says what it means.
async fn ask<T>(
    action: &'static str,
    object: &str,
    asking: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, StoreError> {
    let object = object.to_owned();
    match tokio::time::timeout(ANSWER, asking).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(explain(action, object, &error)),
        Err(_) => {
            let problem = format!("no answer within {ANSWER:?}");
            Err(StoreError::Unavailable { action, object, problem })
        }
    }
}

fn explain(action: &'static str, object: String, error: &kube::Error) -> StoreError {
    match error {
        kube::Error::Api(status) if status.code == 409 => StoreError::Conflict { object },
        // Too many requests, and the API server's own troubles.
        kube::Error::Api(status) if status.code == 429 || status.code >= 500 => {
            StoreError::Unavailable { action, object, problem: status.message.clone() }
        }
        kube::Error::Api(status) => {
            StoreError::Refused { action, object, problem: status.message.clone() }
        }
        other => {
            let mut problem = other.to_string();
            let mut cause = std::error::Error::source(other);
            while let Some(deeper) = cause {
                problem = format!("{problem}: {deeper}");
                cause = deeper.source();
            }
            StoreError::Unavailable { action, object, problem }
        }
    }
}

fn volume_name(volume: &Volume) -> String {
    format!("ReplicatedVolume {}", volume.handle)
}

/// A node object, if it runs the driver: the kubelet writes the topology of the plugin as labels.
fn node_of(network: Network, object: NodeObject) -> Option<Node> {
    let name = object.metadata.name?;
    let labels: BTreeMap<String, String> = object.metadata.labels.unwrap_or_default();
    let installation = labels.get(TOPOLOGY_INSTALLATION)?.clone();
    let addresses = object.status.and_then(|status| status.addresses).unwrap_or_default();
    let ip = addresses.into_iter().find(|a| a.type_ == "InternalIP").map(|a| a.address);
    let engine = ip.and_then(|ip| network.engine(&name, &ip));
    Some(Node { name, installation, engine })
}

impl Volumes for KubeVolumes {
    async fn get(&self, volume: &VolumeId) -> Result<Option<Volume>, StoreError> {
        let name = volume.to_string();
        let asking = self.volumes.get_opt(&name);
        let found = ask("get", &format!("ReplicatedVolume {name}"), asking).await?;
        Ok(found.map(Volume::parse).transpose()?)
    }

    async fn list(&self) -> Result<Vec<Volume>, StoreError> {
        let everything = ListParams::default();
        let list = ask("list", "ReplicatedVolumes", self.volumes.list(&everything)).await?;
        let mut volumes = Vec::with_capacity(list.items.len());
        for object in list.items {
            match Volume::parse(object) {
                Ok(volume) => volumes.push(volume),
                // One bad object must not hide all others.
                Err(error) => tracing::warn!("left out of the list: {error}"),
            }
        }
        volumes.sort_by(|a, b| a.handle.cmp(&b.handle));
        Ok(volumes)
    }

    async fn create(&self, volume: &Volume) -> Result<(), StoreError> {
        let params = PostParams::default();
        let asking = self.volumes.create(&params, volume.object());
        ask("create", &volume_name(volume), asking).await.map(drop)
    }

    async fn update(&self, volume: &Volume) -> Result<Volume, StoreError> {
        let (params, name) = (PostParams::default(), volume.handle.to_string());
        let asking = self.volumes.replace(&name, &params, volume.object());
        Ok(Volume::parse(ask("update", &volume_name(volume), asking).await?)?)
    }

    async fn delete(&self, volume: &Volume) -> Result<(), StoreError> {
        let metadata = &volume.object().metadata;
        let preconditions = Preconditions {
            resource_version: metadata.resource_version.clone(),
            uid: metadata.uid.clone(),
        };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let name = volume.handle.to_string();
        let asking = async {
            match self.volumes.delete(&name, &params).await {
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                other => other.map(drop),
            }
        };
        ask("delete", &volume_name(volume), asking).await
    }

    async fn group(&self, name: &str) -> Result<Option<Group>, StoreError> {
        let asking = self.groups.get_opt(name);
        let found = ask("get", &format!("ReplicationGroup {name}"), asking).await?;
        Ok(found.map(Group::parse).transpose()?)
    }

    async fn update_group(&self, group: &Group) -> Result<(), StoreError> {
        let params = PostParams::default();
        let asking = self.groups.replace(&group.name, &params, group.object());
        ask("update", &format!("ReplicationGroup {}", group.name), asking).await.map(drop)
    }

    async fn node(&self, name: &str) -> Result<Option<Node>, StoreError> {
        let found = ask("get", &format!("Node {name}"), self.nodes.get_opt(name)).await?;
        Ok(found.and_then(|object| node_of(self.network, object)))
    }

    async fn nodes(&self) -> Result<Vec<Node>, StoreError> {
        let ours = ListParams::default().labels(TOPOLOGY_INSTALLATION);
        let list = ask("list", "Nodes", self.nodes.list(&ours)).await?;
        let network = self.network;
        Ok(list.items.into_iter().filter_map(|object| node_of(network, object)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{NodeAddress, NodeStatus};
    use kube::core::Status;

    const NETWORK: Network = Network { api_port: 7460, nbd_port: 7461, plaintext: true };

    fn node(ip: &str) -> NodeObject {
        let label = (TOPOLOGY_INSTALLATION.to_owned(), "prod".to_owned());
        let mut object = NodeObject::default();
        object.metadata.name = Some("node-a".to_owned());
        object.metadata.labels = Some(BTreeMap::from([label]));
        let address = |type_: &str, address: &str| NodeAddress {
            type_: type_.to_owned(),
            address: address.to_owned(),
        };
        let addresses = vec![address("Hostname", "node-a"), address("InternalIP", ip)];
        object.status = Some(NodeStatus { addresses: Some(addresses), ..NodeStatus::default() });
        object
    }

    #[test]
    fn an_engine_is_at_the_internal_address_of_its_node() {
        for (ip, api) in [("10.0.0.7", "tcp:10.0.0.7:7460"), ("fd00::7", "tcp:[fd00::7]:7460")] {
            let found = node_of(NETWORK, node(ip)).unwrap();
            assert_eq!(found.engine.unwrap().api.to_string(), api);
        }
    }

    #[test]
    fn a_node_without_our_label_does_not_run_the_driver() {
        let mut foreign = node("10.0.0.7");
        foreign.metadata.labels = None;
        assert_eq!(node_of(NETWORK, foreign), None);
    }

    #[test]
    fn answers_of_the_api_server_mean_what_the_caller_can_do() {
        let answer = |code: u16| {
            let status = Status { code, message: "words".to_owned(), ..Status::default() };
            explain("update", "x".to_owned(), &kube::Error::Api(status.boxed()))
        };
        assert!(matches!(answer(409), StoreError::Conflict { .. }));
        for code in [429, 500, 503, 504] {
            assert!(matches!(answer(code), StoreError::Unavailable { .. }), "{code}");
        }
        for code in [403, 422] {
            assert!(matches!(answer(code), StoreError::Refused { .. }), "{code}");
        }
    }
}
