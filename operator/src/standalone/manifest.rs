//! The documents of a directory as the objects they are.
//!
//! Our own kinds are read strictly: what is unknown or mistyped is refused by name. Kubernetes'
//! and KubeVirt's kinds are read for what we need of them and are otherwise theirs.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use understudy_core::engine::api::Address;
use understudy_crds::conditions::accepted;
use understudy_crds::{
    API_VERSION, BlockReplication, ReplicatedVolume, ReplicatedVolumeSpec, strict,
};

use super::files::{Document, Problem};
use crate::desired::{ObjectName, Refusal};
use crate::source::{Claim, Inventory, disks_of};
use crate::wanted::Objects;

/// The file that lists nodes; any other YAML file holds manifests.
pub const NODES_FILE: &str = "nodes.yaml";

/// A node and where it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAddress {
    /// The engine API.
    pub engine: Address,
    /// Where the engine takes links; without one the node holds no copies.
    pub link: Option<Address>,
}

/// Everything a directory asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Manifests {
    /// What is to be replicated; a refusal where the manifest is wrong.
    pub replications: BTreeMap<ObjectName, Result<BlockReplication, Refusal>>,
    /// PersistentVolumeClaims.
    pub claims: BTreeMap<ObjectName, Claim>,
    /// ReplicatedVolumes by handle.
    pub volumes: BTreeMap<String, ReplicatedVolumeSpec>,
    /// The claims that each VirtualMachine's disks are.
    pub machines: BTreeMap<ObjectName, Vec<String>>,
    /// The nodes that the directory lists.
    pub nodes: BTreeMap<String, NodeAddress>,
    /// What could not be used and belongs to no BlockReplication.
    pub problems: Vec<Problem>,
}

impl Inventory for Manifests {
    fn claim(&self, name: &ObjectName) -> Result<Claim, Refusal> {
        self.claims.get(name).cloned().ok_or_else(|| absent("PersistentVolumeClaim", name))
    }

    fn disks(&self, machine: &ObjectName) -> Result<Vec<String>, Refusal> {
        self.machines.get(machine).cloned().ok_or_else(|| absent("VirtualMachine", machine))
    }

    fn volume(&self, handle: &str) -> Option<ReplicatedVolumeSpec> {
        self.volumes.get(handle).cloned()
    }
}

fn absent(kind: &str, name: &ObjectName) -> Refusal {
    let words = format!("there is no {kind} {name}: put its manifest into the directory");
    Refusal::new(accepted::SOURCE_NOT_FOUND, words)
}

impl Manifests {
    /// The BlockReplications, each with the generation that its spec has here.
    pub fn objects(&self, generations: &BTreeMap<ObjectName, i64>) -> Objects {
        let with_metadata = |(name, object): (&ObjectName, &Result<BlockReplication, Refusal>)| {
            let object = object.clone().map(|mut object| {
                object.metadata.namespace = Some(name.namespace.clone());
                object.metadata.generation = generations.get(name).copied();
                object
            });
            (name.clone(), object)
        };
        self.replications.iter().map(with_metadata).collect()
    }

    /// Sorts documents by what they are.
    pub fn read(documents: &[Document]) -> Self {
        let mut all = Self::default();
        for document in documents {
            if let Err(message) = all.add(document) {
                all.problems.push(Problem { file: document.file.clone(), message });
            }
        }
        all
    }

    fn add(&mut self, document: &Document) -> Result<(), String> {
        let value = &document.value;
        if document.file == NODES_FILE {
            return self.add_nodes(value);
        }
        let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
        match (text("apiVersion"), text("kind")) {
            (API_VERSION, "BlockReplication") => {
                let name = name_of(value)?;
                let object = strict::read::<BlockReplication>(value).map_err(|problems| {
                    Refusal::new(accepted::INVALID_MANIFEST, problems.join("; "))
                });
                insert(&mut self.replications, "BlockReplication", name, object)
            }
            (API_VERSION, "ReplicatedVolume") => {
                let object = strict::read::<ReplicatedVolume>(value)
                    .map_err(|problems| format!("ReplicatedVolume: {}", problems.join("; ")))?;
                let name = object.metadata.name.unwrap_or_default();
                insert(&mut self.volumes, "ReplicatedVolume", name, object.spec)
            }
            (API_VERSION, "ReplicationGroup") => Err(
                "a ReplicationGroup is the operator's own object, kept in status/: remove it here"
                    .to_owned(),
            ),
            (version, kind) if version.starts_with("understudy.dev/") => Err(format!(
                "no kind {kind} in {version}: there are BlockReplication and ReplicatedVolume in {API_VERSION}"
            )),
            ("v1", "PersistentVolumeClaim") => {
                insert(&mut self.claims, "PersistentVolumeClaim", name_of(value)?, claim(value)?)
            }
            (version, "VirtualMachine") if version.starts_with("kubevirt.io/") => {
                insert(&mut self.machines, "VirtualMachine", name_of(value)?, disks_of(value))
            }
            ("", _) | (_, "") => {
                Err("a document without apiVersion or kind: no manifest".to_owned())
            }
            // A directory may hold a whole application; what is not for us is left alone.
            _ => Ok(()),
        }
    }

    fn add_nodes(&mut self, value: &Value) -> Result<(), String> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct List {
            nodes: Vec<Item>,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Item {
            name: String,
            engine: String,
            link: Option<String>,
        }
        let list = List::deserialize(value).map_err(|e| {
            format!("{e}: write nodes: [{{name: NAME, engine: ADDRESS, link: ADDRESS}}]")
        })?;
        for item in list.nodes {
            let node = NodeAddress {
                engine: item.engine.parse().map_err(|e| format!("node {}: {e}", item.name))?,
                link: item
                    .link
                    .map(|l| l.parse())
                    .transpose()
                    .map_err(|e| format!("node {}: {e}", item.name))?,
            };
            insert(&mut self.nodes, "node", item.name, node)?;
        }
        Ok(())
    }
}

fn insert<K: Ord + ToString, V>(
    map: &mut BTreeMap<K, V>,
    kind: &str,
    key: K,
    value: V,
) -> Result<(), String> {
    if map.contains_key(&key) {
        return Err(format!("{kind} {} is there twice; the first one counts", key.to_string()));
    }
    map.insert(key, value);
    Ok(())
}

fn name_of(value: &Value) -> Result<ObjectName, String> {
    let text = |name: &str| value.pointer(&format!("/metadata/{name}")).and_then(Value::as_str);
    let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default();
    let name = text("name").ok_or_else(|| format!("{kind}: metadata.name is missing"))?;
    let namespace = text("namespace").unwrap_or("default");
    // A name becomes part of a file's name.
    if !strict::is_dns_name(name) || !strict::is_dns_name(namespace) || namespace.contains('.') {
        return Err(format!(
            "{kind}: '{}' in namespace '{}' is no name: use a-z 0-9 - .",
            name.escape_debug(),
            namespace.escape_debug()
        ));
    }
    Ok(ObjectName { namespace: namespace.to_owned(), name: name.to_owned() })
}

fn claim(value: &Value) -> Result<Claim, String> {
    let name = name_of(value)?;
    let volume = match value.pointer("/spec/volumeName") {
        None | Some(Value::Null) => name.name.clone(),
        Some(Value::String(handle)) => handle.clone(),
        Some(_) => return Err(format!("PersistentVolumeClaim {name}: spec.volumeName is no text")),
    };
    let size = match value.pointer("/spec/resources/requests/storage") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(quantity(text)),
        Some(number) => Some(quantity(&number.to_string())),
    };
    Ok(Claim { volume, size })
}

/// A Kubernetes quantity of bytes: digits, then a binary or decimal unit.
fn quantity(text: &str) -> Result<u64, String> {
    let bad = || {
        format!(
            "'{}' is no size: write it as in 10Gi",
            text.escape_debug().take(80).collect::<String>()
        )
    };
    let (number, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
    let factor: u64 = match unit {
        "" => 1,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        _ => return Err(bad()),
    };
    number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).ok_or_else(bad)
}
