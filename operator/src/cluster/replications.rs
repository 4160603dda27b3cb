//! BlockReplications on the API server: kept by a finalizer while their replication lives, and told how
//! it goes.
//!
//! ```text
//!   status     server-side apply by one field manager, when it is due
//!   events     what is new in a status
//!   finalizer  a merge that names the version which was looked at
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use tokio::time::Instant;
use tracing::{debug, warn};
use understudy_crds::names::{FIELD_MANAGER, FINALIZER};
use understudy_crds::{API_VERSION, BlockReplication, BlockReplicationStatus};

use super::api::{ApiError, is_absent};
use super::caches::Caches;
use super::events::news;
use super::store::refused;
use super::throttle::is_due;
use crate::desired::ObjectName;
use crate::store::StoreError;

/// Longest note of an event that the API takes, less some for what is cut.
const NOTE_MAX: usize = 1000;

/// The objects, and what was decided of them but is not written yet.
pub struct Replications {
    client: Client,
    caches: Arc<Caches>,
    decided: Mutex<BTreeMap<ObjectName, Decided>>,
    recorder: Recorder,
    status_interval: Duration,
}

/// A status as it was decided last, and as it was written last.
struct Decided {
    uid: Option<String>,
    status: BlockReplicationStatus,
    written: Option<(BlockReplicationStatus, Instant)>,
}

impl Replications {
    /// Those of this server.
    pub fn new(
        client: &Client,
        caches: &Arc<Caches>,
        identity: &str,
        status_interval: Duration,
    ) -> Self {
        let reporter =
            Reporter { controller: FIELD_MANAGER.to_owned(), instance: Some(identity.to_owned()) };
        Self {
            client: client.clone(),
            caches: caches.clone(),
            decided: Mutex::default(),
            recorder: Recorder::new(client.clone(), reporter),
            status_interval,
        }
    }

    /// The object of this name, as it was last heard of.
    pub fn get(&self, name: &ObjectName) -> Option<Arc<BlockReplication>> {
        self.caches.replications.get(&ObjectRef::new(&name.name).within(&name.namespace))
    }

    /// Keeps the object until its replication has ended. Before anything is done for it.
    pub async fn keep(&self, object: &BlockReplication) -> Result<(), StoreError> {
        if object.finalizers().iter().any(|f| f == FINALIZER) {
            return Ok(());
        }
        let mut all = object.finalizers().to_vec();
        all.push(FINALIZER.to_owned());
        self.put_finalizers(object, &all).await
    }

    async fn put_finalizers(
        &self,
        object: &BlockReplication,
        finalizers: &[String],
    ) -> Result<(), StoreError> {
        let name = object.name_any();
        let api: Api<BlockReplication> =
            Api::namespaced(self.client.clone(), &object.namespace().unwrap_or_default());
        let version = object.resource_version();
        let patch = json!({ "metadata": { "resourceVersion": version, "finalizers": finalizers } });
        let params =
            PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..<_>::default() };
        match api.patch_metadata(&name, &params, &Patch::Merge(&patch)).await {
            Ok(_) => Ok(()),
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(refused("changing the finalizers of", &name, &error)),
        }
    }

    /// The status as it was decided last; `None`: nothing is to be remembered of it any more.
    pub fn status(&self, name: &ObjectName) -> Option<BlockReplicationStatus> {
        let object = self.get(name)?;
        let ended = object.metadata.deletion_timestamp.is_some();
        if ended && !object.finalizers().iter().any(|f| f == FINALIZER) {
            return None;
        }
        let decided = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
        let known = decided.get(name).filter(|d| d.uid == object.uid());
        Some(match known {
            Some(known) => known.status.clone(),
            None => object.status.clone().unwrap_or_default(),
        })
    }

    /// Writes a status when it is due, and tells what is new in it.
    pub async fn put_status(&self, name: &ObjectName, status: &BlockReplicationStatus) {
        let Some(object) = self.get(name) else { return };
        let uid = object.uid();
        let (before, due) = {
            let mut decided = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
            let old = decided.remove(name).filter(|d| d.uid == uid);
            let (before, written) = match old {
                Some(old) => (old.status, old.written),
                None => (object.status.clone().unwrap_or_default(), None),
            };
            let due = match &written {
                Some((written, at)) => is_due(written, status, at.elapsed(), self.status_interval),
                None => before != *status,
            };
            let new = Decided { uid: uid.clone(), status: status.clone(), written };
            decided.insert(name.clone(), new);
            (before, due)
        };
        self.tell(&object, &before, status);
        if !due {
            return;
        }
        match self.apply_status(&object, status).await {
            Ok(()) => {
                let mut decided = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(entry) = decided.get_mut(name).filter(|d| d.uid == uid) {
                    entry.written = Some((status.clone(), Instant::now()));
                }
            }
            // A status that can't be written keeps nobody from acting: a failover least of all.
            Err(error) if is_absent(&error) => {}
            Err(error) => {
                let error = ApiError::new("writing the status of", name.to_string(), &error);
                warn!("{error}");
            }
        }
    }

    /// Lets the object go.
    pub async fn release(&self, name: &ObjectName) -> Result<(), StoreError> {
        if let Some(object) = self.get(name) {
            let others: Vec<_> =
                object.finalizers().iter().filter(|f| *f != FINALIZER).cloned().collect();
            self.put_finalizers(&object, &others).await?;
        }
        self.decided.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        Ok(())
    }

    async fn apply_status(
        &self,
        object: &BlockReplication,
        status: &BlockReplicationStatus,
    ) -> kube::Result<()> {
        let (name, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
        let api: Api<BlockReplication> = Api::namespaced(self.client.clone(), &namespace);
        let patch = json!({
            "apiVersion": API_VERSION,
            "kind": "BlockReplication",
            // The uid: never onto a later object of the same name.
            "metadata": { "name": name, "namespace": namespace, "uid": object.uid() },
            "status": status,
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        api.patch_status(&name, &params, &Patch::Apply(&patch)).await.map(drop)
    }

    fn tell(
        &self,
        object: &BlockReplication,
        before: &BlockReplicationStatus,
        after: &BlockReplicationStatus,
    ) {
        let reference = object.object_ref(&());
        for item in news(before, after) {
            let mut note = item.note;
            if note.len() > NOTE_MAX {
                let end = (0..=NOTE_MAX).rev().find(|i| note.is_char_boundary(*i)).unwrap_or(0);
                note.truncate(end);
            }
            let type_ = if item.warning { EventType::Warning } else { EventType::Normal };
            let event = Event {
                type_,
                reason: item.reason,
                note: Some(note),
                action: item.action.to_owned(),
                secondary: None,
            };
            let (recorder, reference) = (self.recorder.clone(), reference.clone());
            // Nothing waits for an event.
            tokio::spawn(async move {
                if let Err(error) = recorder.publish(&event, &reference).await {
                    debug!("the event {} was not taken: {error}", event.reason);
                }
            });
        }
    }
}
