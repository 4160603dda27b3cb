//! What the API server holds, as it was last heard: one watch a kind.
//!
//! A cache may lag. That costs a conflict at most: whatever is changed names the version that it was
//! looked at in, and the engines refuse what is stale.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::reflector::{self, Lookup, Store};
use kube::runtime::utils::Backoff;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, OnceCell};
use tokio::task::JoinSet;
use tracing::{debug, warn};
use understudy_crds::{BlockReplication, ReplicatedVolume, ReplicationGroup};

/// How often a kind that the API server does not know is asked for again.
const KIND_RETRY: Duration = Duration::from_secs(30);

/// Every kind that decisions rest on.
#[derive(Debug)]
pub struct Caches {
    /// What is asked for.
    pub replications: Store<BlockReplication>,
    /// Who is who.
    pub groups: Store<ReplicationGroup>,
    /// Disks.
    pub volumes: Store<ReplicatedVolume>,
    /// Claims.
    pub claims: Store<PersistentVolumeClaim>,
    /// What the claims are bound to.
    pub persistent_volumes: Store<PersistentVolume>,
    /// Nodes.
    pub nodes: Store<Node>,
    /// Virtual machines; absent where KubeVirt is not installed.
    pub machines: Arc<OnceCell<Store<DynamicObject>>>,
    /// Something has changed.
    pub changed: Arc<Notify>,
    /// The watches end with the caches.
    _watches: std::sync::Mutex<JoinSet<()>>,
}

impl Caches {
    /// Begins to watch and waits until each kind was listed once.
    pub async fn start(client: &Client) -> Self {
        let changed = Arc::new(Notify::new());
        let mut watches = JoinSet::new();
        let mut watch = Watches { client, changed: &changed, tasks: &mut watches };
        let caches = Self {
            replications: watch.kind(),
            groups: watch.kind(),
            volumes: watch.kind(),
            claims: watch.kind(),
            persistent_volumes: watch.kind(),
            nodes: watch.kind(),
            machines: Arc::default(),
            changed: changed.clone(),
            _watches: std::sync::Mutex::default(),
        };
        watches.spawn(follow_machines(client.clone(), caches.machines.clone(), changed));
        let caches = Self { _watches: std::sync::Mutex::new(watches), ..caches };
        // A writer lives as long as its task does.
        let ready = async {
            let _ = caches.replications.wait_until_ready().await;
            let _ = caches.groups.wait_until_ready().await;
            let _ = caches.volumes.wait_until_ready().await;
            let _ = caches.claims.wait_until_ready().await;
            let _ = caches.persistent_volumes.wait_until_ready().await;
            let _ = caches.nodes.wait_until_ready().await;
        };
        ready.await;
        caches
    }
}

/// Watches virtual machines from when their kind is there. Runs for ever.
async fn follow_machines(
    client: Client,
    machines: Arc<OnceCell<Store<DynamicObject>>>,
    changed: Arc<Notify>,
) {
    let kind = GroupVersionKind::gvk("kubevirt.io", "v1", "VirtualMachine");
    let resource = ApiResource::from_gvk(&kind);
    let api: Api<DynamicObject> = Api::all_with(client, &resource);
    while let Err(error) = api.list(&kube::api::ListParams::default().limit(1)).await {
        debug!("no virtual machines: {error}");
        tokio::time::sleep(KIND_RETRY).await;
    }
    let writer = reflector::store::Writer::new(resource);
    // Only this task sets it.
    let _set = machines.set(writer.as_reader());
    follow(api, writer, changed).await;
}

struct Watches<'a> {
    client: &'a Client,
    changed: &'a Arc<Notify>,
    tasks: &'a mut JoinSet<()>,
}

impl Watches<'_> {
    fn kind<K>(&mut self) -> Store<K>
    where
        K: Resource<DynamicType = ()> + Lookup<DynamicType = ()>,
        K: Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let api: Api<K> = Api::all(self.client.clone());
        let writer = reflector::store::Writer::<K>::new(());
        let store = writer.as_reader();
        self.tasks.spawn(follow(api, writer, self.changed.clone()));
        store
    }
}

/// How long a watch that broke waits before the next try: 200 ms, doubled up to 5 s. An order to fail
/// over that comes with the API server's return must not wait longer than that.
#[derive(Default)]
struct Again(u32);

impl Iterator for Again {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let wait = Duration::from_millis(200).saturating_mul(1 << self.0.min(5));
        self.0 += 1;
        Some(wait.min(Duration::from_secs(5)))
    }
}

impl Backoff for Again {
    fn reset(&mut self) {
        self.0 = 0;
    }
}

/// Fills a cache for ever.
async fn follow<K, D>(api: Api<K>, writer: reflector::store::Writer<K>, changed: Arc<Notify>)
where
    K: Resource<DynamicType = D> + Lookup<DynamicType = D>,
    K: Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    D: Clone + Debug + Eq + Hash + Send + Sync + 'static,
{
    let events = watcher(api, watcher::Config::default()).backoff(Again::default());
    let mut events = std::pin::pin!(reflector::reflector(writer, events));
    let mut told = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => {}
            Ok(_) => {
                told = false;
                changed.notify_one();
            }
            Err(error) if told => debug!("watching: {error}"),
            Err(error) => {
                warn!("the watch of {} broke, trying again: {error}", std::any::type_name::<K>());
                told = true;
            }
        }
    }
}
