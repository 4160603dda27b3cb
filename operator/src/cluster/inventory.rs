//! Claims, volumes and virtual machines of the cluster as things to be replicated.
//!
//! ```text
//!   PersistentVolumeClaim ─ spec.volumeName ─► PersistentVolume ─ spec.csi.volumeHandle ─► ReplicatedVolume
//! ```
//!
//! The way leads through the PersistentVolume because claims are bound to others' volumes: CDI binds
//! the one that it filled to the claim that was asked for.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::runtime::reflector::ObjectRef;
use serde_json::Value;
use understudy_crds::ReplicatedVolumeSpec;
use understudy_crds::conditions::accepted;
use understudy_crds::names::DRIVER;

use super::caches::Caches;
use crate::desired::{ObjectName, Refusal};
use crate::source::{Claim, Inventory, disks_of};

impl Inventory for Caches {
    fn claim(&self, name: &ObjectName) -> Result<Claim, Refusal> {
        let key = ObjectRef::new(&name.name).within(&name.namespace);
        let claim = self.claims.get(&key);
        let bound = claim.as_ref().and_then(|c| c.spec.as_ref()?.volume_name.clone());
        let volume = bound.and_then(|v| self.persistent_volumes.get(&ObjectRef::new(&v)));
        let handle = handle_of(name, claim.as_deref(), volume.as_deref())?;
        if self.volumes.get(&ObjectRef::new(&handle)).is_none() {
            return Err(Refusal::new(
                accepted::SOURCE_NOT_FOUND,
                format!(
                    "claim {name}: there is no ReplicatedVolume {handle}: put it back; the CSI driver \
                     made it together with the volume"
                ),
            ));
        }
        // What the claim requests may be on its way; the volume says how large it is.
        Ok(Claim { volume: handle, size: None })
    }

    fn disks(&self, machine: &ObjectName) -> Result<Vec<String>, Refusal> {
        let absent = |words| Err(Refusal::new(accepted::SOURCE_NOT_FOUND, words));
        let Some(machines) = self.machines.get() else {
            return absent(format!(
                "VirtualMachine {machine} can't be looked at: the cluster has no KubeVirt; name the \
                 claims in spec.source.persistentVolumeClaims"
            ));
        };
        let named = |m: &kube::api::DynamicObject| {
            m.metadata.name.as_deref() == Some(machine.name.as_str())
                && m.metadata.namespace.as_deref() == Some(machine.namespace.as_str())
        };
        match machines.find(named) {
            Some(found) => Ok(disks_of(&found.data)),
            None => absent(format!("there is no VirtualMachine {machine}: create it")),
        }
    }

    fn volume(&self, handle: &str) -> Option<ReplicatedVolumeSpec> {
        self.volumes.get(&ObjectRef::new(handle)).map(|v| v.spec.clone())
    }
}

/// The handle of the volume that a claim is bound to, if it is one of ours.
fn handle_of(
    name: &ObjectName,
    claim: Option<&PersistentVolumeClaim>,
    volume: Option<&PersistentVolume>,
) -> Result<String, Refusal> {
    let Some(claim) = claim else {
        return Err(Refusal::new(
            accepted::SOURCE_NOT_FOUND,
            format!("there is no PersistentVolumeClaim {name}: create it, or correct the name"),
        ));
    };
    let bound = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref());
    let Some(volume) = volume.filter(|v| v.metadata.name.as_deref() == bound) else {
        return Err(Refusal::new(
            accepted::CLAIM_NOT_BOUND,
            match bound {
                None | Some("") => format!(
                    "claim {name} has no volume yet: it gets one when the first pod that uses it is \
                     scheduled"
                ),
                Some(volume) => format!("claim {name} is bound to {volume}, which is gone"),
            },
        ));
    };
    let csi = volume.spec.as_ref().and_then(|s| s.csi.as_ref());
    match csi {
        Some(csi) if csi.driver == DRIVER => Ok(csi.volume_handle.clone()),
        other => {
            let driver = other.map_or("no CSI driver", |csi| csi.driver.as_str());
            let class = claim.spec.as_ref().and_then(|s| s.storage_class_name.as_deref());
            Err(Refusal::new(
                accepted::NOT_OURS,
                format!(
                    "claim {name} has a volume of {driver} (StorageClass {}): only volumes of {DRIVER} \
                     can be replicated; copy it into a claim of a StorageClass with that provisioner",
                    class.unwrap_or("none")
                ),
            ))
        }
    }
}

/// The claim that a volume is bound to, if it is one of these handles.
pub fn claim_of(volume: &PersistentVolume, handles: &[&str]) -> Option<ObjectName> {
    let spec = volume.spec.as_ref()?;
    let csi = spec.csi.as_ref()?;
    if csi.driver != DRIVER || !handles.contains(&csi.volume_handle.as_str()) {
        return None;
    }
    let claim = spec.claim_ref.as_ref()?;
    Some(ObjectName { namespace: claim.namespace.clone()?, name: claim.name.clone()? })
}

/// Whether a pod uses one of these claims and may still do so.
pub fn uses(pod: &Value, claims: &[ObjectName]) -> bool {
    let text = |path: &str| pod.pointer(path).and_then(Value::as_str);
    if matches!(text("/status/phase"), Some("Succeeded" | "Failed")) {
        return false;
    }
    let namespace = text("/metadata/namespace").unwrap_or_default();
    let name = text("/metadata/name").unwrap_or_default();
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array);
    let claim = |volume: &Value| {
        let named = volume.pointer("/persistentVolumeClaim/claimName").and_then(Value::as_str);
        if let Some(claim) = named {
            return Some(claim.to_owned());
        }
        volume.get("ephemeral")?;
        Some(format!("{name}-{}", volume.get("name")?.as_str()?))
    };
    volumes
        .into_iter()
        .flatten()
        .filter_map(claim)
        .any(|c| claims.iter().any(|own| own.namespace == namespace && own.name == c))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn name() -> ObjectName {
        ObjectName { namespace: "shop".to_owned(), name: "root".to_owned() }
    }

    #[test]
    fn a_claim_leads_to_its_volume_or_says_why_not() {
        let claim = |volume: Option<&str>| -> PersistentVolumeClaim {
            let spec = json!({ "volumeName": volume, "storageClassName": "fast" });
            serde_json::from_value(json!({ "metadata": { "name": "root" }, "spec": spec })).unwrap()
        };
        let volume = |driver: &str| -> PersistentVolume {
            let csi = json!({ "driver": driver, "volumeHandle": "pvc-1" });
            serde_json::from_value(json!({ "metadata": { "name": "pv" }, "spec": { "csi": csi } }))
                .unwrap()
        };
        let ours = volume(DRIVER);
        assert_eq!(handle_of(&name(), Some(&claim(Some("pv"))), Some(&ours)).unwrap(), "pvc-1");
        let refused = |claim: Option<&PersistentVolumeClaim>, volume: Option<&PersistentVolume>| {
            let refusal = handle_of(&name(), claim, volume).unwrap_err();
            (refusal.reason, refusal.message)
        };
        assert_eq!(refused(None, None).0, accepted::SOURCE_NOT_FOUND);
        let (reason, words) = refused(Some(&claim(None)), None);
        assert_eq!(reason, accepted::CLAIM_NOT_BOUND);
        assert!(words.contains("first pod"), "{words}");
        assert!(refused(Some(&claim(Some("pv"))), None).1.contains("is gone"));
        let (reason, words) = refused(Some(&claim(Some("pv"))), Some(&volume("other.csi")));
        assert_eq!(reason, accepted::NOT_OURS);
        assert!(words.contains("other.csi") && words.contains("StorageClass fast"), "{words}");
    }

    #[test]
    fn pods_use_claims_by_name_or_as_their_own_until_they_have_finished() {
        let pod = |phase: &str, volume: Value| {
            json!({
                "metadata": { "namespace": "shop", "name": "db-0" },
                "spec": { "volumes": [volume] },
                "status": { "phase": phase },
            })
        };
        let named = json!({ "name": "x", "persistentVolumeClaim": { "claimName": "root" } });
        assert!(uses(&pod("Running", named.clone()), &[name()]));
        assert!(uses(&pod("Pending", named.clone()), &[name()]));
        assert!(!uses(&pod("Succeeded", named.clone()), &[name()]));
        assert!(!uses(&pod("Running", json!({ "name": "x", "emptyDir": {} })), &[name()]));
        let own = ObjectName { namespace: "shop".to_owned(), name: "db-0-x".to_owned() };
        assert!(uses(&pod("Running", json!({ "name": "x", "ephemeral": {} })), &[own]));
        let elsewhere = ObjectName { namespace: "other".to_owned(), ..name() };
        assert!(!uses(&pod("Running", named), &[elsewhere]));
    }
}
