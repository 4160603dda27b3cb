//! The leader's work: one task for each BlockReplication, as long as what is wanted of it is the same.
//!
//! A task is stopped and started anew when what is wanted has changed, also in the middle of a call
//! that waits: a failover must not queue behind a checkpoint that hangs. That is safe because a pass
//! may end anywhere.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kube::{Client, ResourceExt};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};
use understudy_core::engine::client::EngineClient;
use understudy_crds::names::{ABANDON, FINALIZER};
use understudy_crds::{BlockReplication, conditions::accepted};

use super::caches::Caches;
use super::engines::{ClusterEngines, Connect};
use super::store::ApiStore;
use super::{ClusterError, Options, nodes, sweep};
use crate::decide::conditions;
use crate::desired::{Desired, ObjectName, Refusal, Wish};
use crate::observe::{Nodes, now};
use crate::reconcile::pass;
use crate::store::{Store, StoreError};
use crate::wanted::{Objects, Wanted, wanted};

/// Changes that come together are taken up together.
const SETTLE: Duration = Duration::from_millis(100);
/// How often everything is looked at although nothing was heard.
const RELOAD: Duration = Duration::from_secs(10);
/// How soon a group is looked at again.
const REQUEUE: Duration = Duration::from_secs(1);
/// And when the API server did not do its part.
const STORE_RETRY: Duration = Duration::from_secs(2);

/// Works until it fails for good.
pub async fn work(
    client: &Client,
    options: &Options,
    caches: &Arc<Caches>,
) -> Result<(), ClusterError> {
    let certificates = crate::certificates::serve(client, options).await?;
    let connect: Connect = certificates.connect(options.insecure_plaintext);
    let engines = Arc::new(ClusterEngines::new(connect));
    let store = Arc::new(ApiStore::new(client, caches, &options.identity, options.status_interval));
    let (places, _) = watch::channel(Nodes::new());
    let mut controller = Controller {
        options,
        caches: caches.clone(),
        store: store.clone(),
        engines: engines.clone(),
        places,
        tasks: BTreeMap::new(),
    };
    let sweeping = sweep::run(client, options, &store, &engines, controller.places.subscribe());
    let watching = async {
        loop {
            controller.reload().await;
            tokio::select! {
                () = caches.changed.notified() => tokio::time::sleep(SETTLE).await,
                () = tokio::time::sleep(RELOAD) => {}
            }
        }
    };
    tokio::select! {
        () = watching => Ok(()),
        () = sweeping => Ok(()),
        error = certificates.run(options) => Err(error),
    }
}

struct Controller<'a> {
    options: &'a Options,
    caches: Arc<Caches>,
    store: Arc<ApiStore>,
    engines: Arc<ClusterEngines>,
    places: watch::Sender<Nodes>,
    tasks: BTreeMap<ObjectName, Task>,
}

struct Task {
    desired: Desired,
    handle: JoinHandle<()>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

impl Controller<'_> {
    /// Takes up what has changed.
    async fn reload(&mut self) {
        let all = self.caches.nodes.state();
        let plaintext = self.options.insecure_plaintext;
        let (places, engines) =
            nodes::of(all.iter().map(AsRef::as_ref), self.options.ports, plaintext);
        self.engines.renew(&engines);
        self.places.send_if_modified(|known| {
            let differs = *known != places;
            *known = places;
            differs
        });
        let objects: Vec<_> = self.caches.replications.state();
        let groups = match self.store.groups().await {
            Ok(groups) => groups,
            Err(error) => return error!("{error}"),
        };
        let by_name: Objects = objects.iter().map(|o| (name_of(o), Ok((**o).clone()))).collect();
        let Wanted { groups: all, refused } = wanted(&by_name, self.caches.as_ref(), &groups);
        let mut wishes: BTreeMap<_, _> =
            all.into_values().map(|desired| (desired.name.clone(), desired)).collect();
        for object in &objects {
            let name = name_of(object);
            if object.metadata.deletion_timestamp.is_some() {
                match ending(object, wishes.remove(&name)) {
                    Some(desired) => self.ensure(desired),
                    None => drop(self.tasks.remove(&name)),
                }
            } else if let Some(desired) = wishes.remove(&name) {
                self.ensure(desired);
            } else if let Some(refusal) = refused.get(&name) {
                self.refuse(object, &name, refusal).await;
            }
        }
        let names: Vec<_> = objects.iter().map(|o| name_of(o)).collect();
        self.tasks.retain(|name, _| names.contains(name));
    }

    async fn refuse(&mut self, object: &BlockReplication, name: &ObjectName, refusal: &Refusal) {
        if let Some(task) = self.tasks.get(name) {
            // What runs goes on as it was last asked for, and says that it does.
            let refused = Some(refusal.clone());
            let desired = Desired { refused, ..task.desired.clone() };
            return self.ensure(desired);
        }
        warn!(object = %name, reason = refusal.reason, "{}", refusal.message);
        let before = object.status.clone().unwrap_or_default();
        let status = conditions::refused(&before, object.metadata.generation, refusal, now());
        self.store.replications().put_status(name, &status).await;
    }

    /// A task that works for this wish, the running one if it does.
    fn ensure(&mut self, desired: Desired) {
        if self.tasks.get(&desired.name).is_some_and(|t| t.desired == desired) {
            return;
        }
        let (store, engines) = (self.store.clone(), self.engines.clone());
        let (wish, places) = (desired.clone(), self.places.subscribe());
        // The old task ends before the new one begins: two would work on one group.
        let old = self.tasks.remove(&desired.name);
        let handle = tokio::spawn(async move {
            if let Some(mut old) = old {
                old.handle.abort();
                let _ended = (&mut old.handle).await;
            }
            work_on(&wish, &places, &engines, &store).await;
        });
        self.tasks.insert(desired.name.clone(), Task { desired, handle });
    }
}

fn name_of(object: &BlockReplication) -> ObjectName {
    ObjectName { namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
}

/// What is to become of an object that is being deleted; `None`: it is not ours to keep any more.
fn ending(object: &BlockReplication, parsed: Option<Desired>) -> Option<Desired> {
    if !object.finalizers().iter().any(|f| f == FINALIZER) {
        return None;
    }
    let name = name_of(object);
    let abandoned = object.annotations().get(ABANDON).is_some_and(|v| v == "true");
    let parsed = parsed.or_else(|| {
        // The end needs nothing of what can't be read.
        let refusal = Refusal::new(accepted::SOURCE_NOT_FOUND, "it is being deleted");
        let mut blank = object.clone();
        blank.spec.failover.trigger = None;
        Desired::parse(&blank, Err(refusal)).ok()
    });
    let parsed = parsed.or_else(|| {
        warn!(object = %name, "its group has no name: it never began");
        None
    })?;
    Some(Desired { wish: Wish::Delete, abandoned, refused: None, ..parsed })
}

/// Passes over one group for ever.
async fn work_on(
    desired: &Desired,
    places: &watch::Receiver<Nodes>,
    engines: &ClusterEngines,
    store: &ApiStore,
) {
    let mut failure = None;
    let mut told = String::new();
    loop {
        let nodes = places.borrow().clone();
        let kept = match store.replications().get(&desired.name) {
            Some(object) if desired.wish != Wish::Delete => {
                store.replications().keep(&object).await
            }
            _ => Ok(()),
        };
        let result = match kept {
            Ok(()) => pass(desired, &nodes, engines, store, failure.take()).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(outcome) => {
                failure = outcome.failure;
                if !told.is_empty() {
                    info!(group = %desired.group, "goes on");
                }
                told.clear();
                tokio::time::sleep(REQUEUE).await;
            }
            // Looked at before the watch had caught up.
            Err(StoreError::Conflict { .. }) => tokio::time::sleep(REQUEUE).await,
            Err(error) => {
                let words = error.to_string();
                if words != told {
                    error!(group = %desired.group, "{words}");
                    told = words;
                }
                tokio::time::sleep(STORE_RETRY).await;
            }
        }
    }
}

/// The way to engines without TLS.
pub fn plaintext() -> Connect {
    Arc::new(EngineClient::lazy)
}
