//! Objects as people, the CSI driver and the scheduler make them; and what their conditions say.

use serde_json::{Value, json};
use understudy_core::engine::api::{ByteLen, Generation, Member, Policy, Role, Start};
use understudy_crds::BlockReplication;

use super::stage::Stage;

impl Stage {
    /// A claim of this name in `shop`, bound to a live volume on a node, as the CSI driver makes it.
    pub async fn claim(&self, claim: &str, node: &str, size: u64) {
        let handle = format!("pvc-{claim}");
        let client = self.engine_client(node).await.unwrap();
        let pool = client.status().await.unwrap().pool;
        let generation = Generation { number: 1, id: 77 };
        self.apply(&json!({
            "apiVersion": "understudy.dev/v1alpha1", "kind": "ReplicatedVolume",
            "metadata": { "name": handle },
            "spec": {
                "sizeBytes": size, "node": node, "pool": pool.to_string(),
                "generation": generation.to_string(),
            },
        }));
        let member = Member { volume: handle.parse().unwrap(), size: ByteLen(size) };
        client.create_replica(&member).await.unwrap();
        let start = Start {
            group: handle.parse().unwrap(),
            generation,
            role: Role::Primary,
            members: vec![member],
            peer: None,
            policy: Policy::default(),
            inbound: false,
            adopt: false,
        };
        client.start(&start).await.unwrap();
        self.bind(claim, "csi.understudy.dev", &handle, size);
    }

    /// A claim that is bound to a volume of this driver.
    pub fn bind(&self, claim: &str, driver: &str, handle: &str, size: u64) {
        let common = json!({
            "accessModes": ["ReadWriteOnce"],
            "volumeMode": "Block",
            "storageClassName": "understudy",
        });
        let with = |more: Value| {
            let mut spec = common.clone();
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            spec
        };
        self.apply(&json!({
            "apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": { "name": format!("pv-{claim}") },
            "spec": with(json!({
                "capacity": { "storage": size.to_string() },
                "csi": { "driver": driver, "volumeHandle": handle },
                "claimRef": { "namespace": "shop", "name": claim },
            })),
        }));
        self.apply(&json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": { "name": claim, "namespace": "shop" },
            "spec": with(json!({
                "volumeName": format!("pv-{claim}"),
                "resources": { "requests": { "storage": size.to_string() } },
            })),
        }));
    }

    /// A pod in `shop` on a node, with this claim.
    pub fn pod(&self, name: &str, node: &str, claim: &str) {
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "namespace": "shop" },
            "spec": {
                "nodeName": node,
                "containers": [{ "name": "db", "image": "none" }],
                "volumes": [{ "name": "disk", "persistentVolumeClaim": { "claimName": claim } }],
            },
        }));
    }

    pub fn replicate(&self, name: &str, claims: &[&str], more: &Value) {
        let claims: Vec<_> = claims.iter().map(|c| json!({ "name": c })).collect();
        let mut spec = json!({ "source": { "persistentVolumeClaims": claims } });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.apply(&json!({
            "apiVersion": "understudy.dev/v1alpha1", "kind": "BlockReplication",
            "metadata": { "name": name, "namespace": "shop" }, "spec": spec,
        }));
    }
}

/// The reason of a condition.
pub fn reason(object: &BlockReplication, type_: &str) -> String {
    let status = object.status.clone().unwrap_or_default();
    let found = status.conditions.into_iter().find(|c| c.type_ == type_);
    found.map(|c| c.reason).unwrap_or_default()
}

/// The words of a condition.
pub fn message(object: &BlockReplication, type_: &str) -> String {
    let status = object.status.clone().unwrap_or_default();
    let found = status.conditions.into_iter().find(|c| c.type_ == type_);
    found.map(|c| c.message).unwrap_or_default()
}
