//! The API server as the operator's store.
//!
//! ```text
//!   ReplicationGroup, ReplicatedVolume   replace, delete: each names the version it was looked at in
//!   BlockReplication                     see replications.rs
//!   Pod                                  delete, this very one
//! ```

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod as KubePod;
use kube::api::{DeleteParams, DynamicObject, ListParams, PostParams, Preconditions};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, ResourceExt};
use understudy_core::engine::api::{GroupId, VolumeId};
use understudy_crds::names::FIELD_MANAGER;
use understudy_crds::{
    BlockReplicationStatus, ReplicatedVolume, ReplicatedVolumeSpec, ReplicationGroup,
    ReplicationGroupSpec,
};

use super::api::{ApiError, is_absent, is_conflict};
use super::caches::Caches;
use super::inventory::{claim_of, uses};
use super::replications::Replications;
use super::written::Written;
use crate::desired::ObjectName;
use crate::store::{Group, Pod, Store, StoreError, Volume, Volumes};

/// The API server, and what was decided but is not there yet.
pub struct ApiStore {
    client: Client,
    caches: Arc<Caches>,
    groups: Written<ReplicationGroup>,
    volumes: Written<ReplicatedVolume>,
    replications: Replications,
}

impl std::fmt::Debug for ApiStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiStore").finish_non_exhaustive()
    }
}

impl ApiStore {
    /// A store over this server.
    pub fn new(
        client: &Client,
        caches: &Arc<Caches>,
        identity: &str,
        status_interval: Duration,
    ) -> Self {
        Self {
            client: client.clone(),
            caches: caches.clone(),
            groups: Written::default(),
            volumes: Written::default(),
            replications: Replications::new(client, caches, identity, status_interval),
        }
    }

    /// BlockReplications.
    pub fn replications(&self) -> &Replications {
        &self.replications
    }

    fn group_object(&self, name: &str) -> Option<Arc<ReplicationGroup>> {
        self.groups.newest(name, self.caches.groups.get(&ObjectRef::new(name)))
    }

    fn volume_object(&self, name: &str) -> Option<Arc<ReplicatedVolume>> {
        self.volumes.newest(name, self.caches.volumes.get(&ObjectRef::new(name)))
    }

    /// Every volume.
    pub fn all_volumes(&self) -> Volumes {
        let objects = self.caches.volumes.state();
        let parse = |object: Arc<ReplicatedVolume>| {
            let name: VolumeId = object.name_any().parse().ok()?;
            let object = self.volume_object(name.as_str())?;
            Some((name.clone(), volume(&name, &object).ok()?))
        };
        objects.into_iter().filter_map(parse).collect()
    }
}

pub(super) fn refused(action: &'static str, object: &str, error: &kube::Error) -> StoreError {
    if is_conflict(error) {
        return StoreError::Conflict { object: object.to_owned() };
    }
    ApiError::new(action, object, error).into()
}

fn group(name: &GroupId, object: &ReplicationGroup) -> Result<Group, StoreError> {
    let version = object.resource_version().unwrap_or_default();
    Group::parse(name.clone(), version, object.spec.clone())
}

fn volume(name: &VolumeId, object: &ReplicatedVolume) -> Result<Volume, StoreError> {
    let version = object.resource_version().unwrap_or_default();
    Volume::parse(name, version, object.spec.clone())
}

impl Store for ApiStore {
    async fn group(&self, name: &GroupId) -> Result<Option<Group>, StoreError> {
        self.group_object(name.as_str()).map(|object| group(name, &object)).transpose()
    }

    async fn groups(&self) -> Result<Vec<Group>, StoreError> {
        let mut all = Vec::new();
        for object in self.caches.groups.state() {
            // One that can't be read is nobody's business but its owner's.
            if let Ok(name) = object.name_any().parse::<GroupId>()
                && let Some(object) = self.group_object(name.as_str())
                && let Ok(found) = group(&name, &object)
            {
                all.push(found);
            }
        }
        Ok(all)
    }

    async fn put_group(
        &self,
        name: &GroupId,
        expected: Option<&str>,
        spec: &ReplicationGroupSpec,
    ) -> Result<(), StoreError> {
        let api: Api<ReplicationGroup> = Api::all(self.client.clone());
        let text = name.as_str();
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..<_>::default() };
        let answer = match expected {
            None => api.create(&params, &ReplicationGroup::new(text, spec.clone())).await,
            Some(version) => {
                let mut object = match self.group_object(text) {
                    Some(known) => (*known).clone(),
                    None => ReplicationGroup::new(text, spec.clone()),
                };
                object.metadata.resource_version = Some(version.to_owned());
                object.metadata.managed_fields = None;
                object.spec = spec.clone();
                api.replace(text, &params, &object).await
            }
        };
        match answer {
            Ok(object) => {
                self.groups.note(object);
                Ok(())
            }
            Err(error) => {
                if is_conflict(&error) || is_absent(&error) {
                    match api.get_opt(text).await {
                        Ok(Some(object)) => self.groups.note(object),
                        Ok(None) => self.groups.forget(text),
                        Err(_) => {}
                    }
                    return Err(StoreError::Conflict {
                        object: format!("the group object {name}"),
                    });
                }
                Err(refused("writing", &format!("ReplicationGroup {name}"), &error))
            }
        }
    }

    async fn delete_group(&self, name: &GroupId, expected: &str) -> Result<(), StoreError> {
        let api: Api<ReplicationGroup> = Api::all(self.client.clone());
        let preconditions =
            Preconditions { resource_version: Some(expected.to_owned()), uid: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..<_>::default() };
        match api.delete(name.as_str(), &params).await {
            Err(error) if !is_absent(&error) => {
                Err(refused("deleting", &format!("ReplicationGroup {name}"), &error))
            }
            _ => {
                self.groups.note_deleted(name.as_str(), expected);
                Ok(())
            }
        }
    }

    async fn volumes(&self, names: &[VolumeId]) -> Result<Option<Volumes>, StoreError> {
        let found = names.iter().filter_map(|name| {
            let object = self.volume_object(name.as_str())?;
            Some(volume(name, &object).map(|parsed| (name.clone(), parsed)))
        });
        found.collect::<Result<_, _>>().map(Some)
    }

    async fn put_volume(
        &self,
        name: &VolumeId,
        expected: &str,
        spec: &ReplicatedVolumeSpec,
    ) -> Result<(), StoreError> {
        let api: Api<ReplicatedVolume> = Api::all(self.client.clone());
        let text = name.as_str();
        let conflict = || StoreError::Conflict { object: format!("ReplicatedVolume {name}") };
        let known = self.volume_object(text).ok_or_else(conflict)?;
        let mut object = (*known).clone();
        object.metadata.resource_version = Some(expected.to_owned());
        object.metadata.managed_fields = None;
        object.spec = spec.clone();
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..<_>::default() };
        match api.replace(text, &params, &object).await {
            Ok(object) => {
                self.volumes.note(object);
                Ok(())
            }
            Err(error) if is_conflict(&error) || is_absent(&error) => {
                match api.get_opt(text).await {
                    Ok(Some(object)) => self.volumes.note(object),
                    Ok(None) => self.volumes.forget(text),
                    Err(_) => {}
                }
                Err(conflict())
            }
            Err(error) => Err(refused("writing", &format!("ReplicatedVolume {name}"), &error)),
        }
    }

    async fn status(
        &self,
        name: &ObjectName,
    ) -> Result<Option<BlockReplicationStatus>, StoreError> {
        Ok(self.replications.status(name))
    }

    async fn put_status(
        &self,
        name: &ObjectName,
        status: &BlockReplicationStatus,
    ) -> Result<(), StoreError> {
        self.replications.put_status(name, status).await;
        Ok(())
    }

    async fn forget_status(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.replications.release(name).await
    }

    async fn pods(&self, volumes: &[VolumeId]) -> Result<Vec<Pod>, StoreError> {
        let handles: Vec<_> = volumes.iter().map(VolumeId::as_str).collect();
        let bound = self.caches.persistent_volumes.state();
        let claims: Vec<_> = bound.iter().filter_map(|pv| claim_of(pv, &handles)).collect();
        let mut namespaces: Vec<_> = claims.iter().map(|c| c.namespace.as_str()).collect();
        namespaces.sort_unstable();
        namespaces.dedup();
        let resource = kube::api::ApiResource::erase::<KubePod>(&());
        let mut found = Vec::new();
        for namespace in namespaces {
            let api: Api<DynamicObject> =
                Api::namespaced_with(self.client.clone(), namespace, &resource);
            // Straight from the store, not from a cache: a pod that was just made must not be missed.
            let list = api.list(&ListParams::default()).await;
            let list = list.map_err(|e| refused("listing the pods of", namespace, &e))?;
            for object in list {
                let value = serde_json::to_value(&object).unwrap_or_default();
                if !uses(&value, &claims) {
                    continue;
                }
                let text = |path: &str| value.pointer(path).and_then(|v| v.as_str());
                let metadata = &object.metadata;
                let deleting = metadata
                    .deletion_timestamp
                    .as_ref()
                    .map(|_| metadata.deletion_grace_period_seconds.unwrap_or(0));
                found.push(Pod {
                    namespace: namespace.to_owned(),
                    name: object.name_any(),
                    uid: object.uid().unwrap_or_default(),
                    node: text("/spec/nodeName").map(str::to_owned),
                    deleting,
                });
            }
        }
        Ok(found)
    }

    async fn delete_pod(&self, pod: &Pod, force: bool) -> Result<(), StoreError> {
        let api: Api<KubePod> = Api::namespaced(self.client.clone(), &pod.namespace);
        let params = DeleteParams {
            grace_period_seconds: force.then_some(0),
            preconditions: Some(Preconditions {
                resource_version: None,
                uid: Some(pod.uid.clone()),
            }),
            ..DeleteParams::default()
        };
        match api.delete(&pod.name, &params).await {
            Ok(_) => Ok(()),
            // Gone, or another one of its name.
            Err(error) if is_absent(&error) || is_conflict(&error) => Ok(()),
            Err(error) => {
                Err(refused("deleting", &format!("Pod {}/{}", pod.namespace, pod.name), &error))
            }
        }
    }
}
