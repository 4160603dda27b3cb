//! The operator without a cluster: manifests in a directory, status beside them.
//!
//! ```text
//!   DIR/*.yaml ─► Files ─► Manifests ─► Wanted ─┬─► one task a group: pass, wait, pass, ...
//!                                               └─► refusals, problems
//!   DIR/status/*.yaml ◄── Directory (store) ◄───────┘
//! ```
//!
//! A group's task is stopped and started anew when what is wanted of it has changed, also in the
//! middle of a call that waits: a failover must not queue behind a checkpoint that hangs. That is
//! safe because a pass may end anywhere.

pub mod directory;
pub mod files;
pub mod manifest;
pub mod yaml;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tracing::{error, info, warn};
use understudy_core::engine::api::GroupId;
use understudy_core::engine::client::ClientError;

use self::directory::Directory;
use self::files::Files;
use self::manifest::{Manifests, NodeAddress};
use crate::decide::conditions;
use crate::desired::{Desired, ObjectName, Wish};
use crate::engines::RemoteEngines;
use crate::observe::{Nodes, Place, now};
use crate::reconcile::pass;
use crate::store::{Group, Store, StoreError};
use crate::wanted::{Wanted, ending, wanted};

/// How often the directory is looked at: a change is noticed before its author looks up.
const POLL: Duration = Duration::from_millis(200);

/// How long a manifest must be gone before that counts as deletion: editors and tools replace
/// files by removing them first, and a deletion takes the copy away.
const ABSENT: Duration = Duration::from_secs(5);

/// How soon to try again when the store failed.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// Why the operator can't work.
#[derive(Debug, thiserror::Error)]
pub enum StandaloneError {
    /// The directory can't be read.
    #[error("the directory {dir} can't be read")]
    Directory {
        /// Which.
        dir: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The folder for status can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An address can't be used.
    #[error(transparent)]
    Address(#[from] ClientError),
}

/// Works on a directory until `shutdown` is done.
pub async fn run(
    dir: &Path,
    nodes: &BTreeMap<String, NodeAddress>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), StandaloneError> {
    let store = Arc::new(Directory::open(dir)?);
    let mut standalone = Standalone {
        files: Files::new(dir),
        given: nodes.clone(),
        store,
        engines: Arc::new(RemoteEngines::default()),
        nodes: None,
        tasks: BTreeMap::new(),
        absent: BTreeMap::new(),
        manifests: Manifests::default(),
    };
    info!(dir = %dir.display(), "reconciling");
    let mut shutdown = std::pin::pin!(shutdown);
    // The first look must succeed: a mistyped directory is a mistake to be told at once.
    standalone
        .files
        .poll()
        .map_err(|source| StandaloneError::Directory { dir: dir.to_owned(), source })?;
    standalone.reload().await?;
    loop {
        tokio::select! {
            () = &mut shutdown => return Ok(()),
            () = tokio::time::sleep(POLL) => {}
        }
        match standalone.files.poll() {
            Ok(true) => {
                if let Err(error) = standalone.reload().await {
                    error!("{error}");
                }
            }
            Ok(false) => {}
            // Nothing is concluded from a directory that can't be read: what runs goes on.
            Err(error) => {
                warn!("the directory {} can't be read: {error}", dir.display());
                continue;
            }
        }
        if let Err(error) = standalone.end_absent().await {
            error!("{error}");
        }
    }
}

struct Standalone {
    files: Files,
    /// The nodes of the command line.
    given: BTreeMap<String, NodeAddress>,
    store: Arc<Directory>,
    engines: Arc<RemoteEngines>,
    /// Every node there is; `None` before the first look.
    nodes: Option<BTreeMap<String, NodeAddress>>,
    tasks: BTreeMap<GroupId, Task>,
    /// How many looks ago each group's manifest was last there.
    absent: BTreeMap<GroupId, u32>,
    manifests: Manifests,
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

impl Standalone {
    /// Reads anew what is wanted and starts, restarts or leaves each group's task.
    async fn reload(&mut self) -> Result<(), StandaloneError> {
        self.manifests = Manifests::read(&self.files.documents());
        let mut problems = self.files.problems();
        problems.extend(self.manifests.problems.iter().cloned());
        for problem in &problems {
            warn!(file = problem.file, "{}", problem.message);
        }
        self.store.put_problems(&problems)?;
        self.renew_nodes()?;
        let Wanted { groups, refused } = self.wanted().await?;
        for (name, refusal) in &refused {
            warn!(object = %name, reason = refusal.reason, "{}", refusal.message);
            let task = self.tasks.values().find(|t| t.desired.name == *name);
            if let Some(task) = task {
                // What runs goes on as it was last asked for, and says that it does.
                let refused = Some(refusal.clone());
                self.ensure(Desired { refused, ..task.desired.clone() });
                continue;
            }
            let before = self.store.status(name).await?.unwrap_or_default();
            let status = conditions::refused(&before, before.observed_generation, refusal, now());
            self.store.put_status(name, &status).await?;
        }
        for (_, desired) in groups {
            self.absent.remove(&desired.group);
            self.ensure(desired);
        }
        Ok(())
    }

    async fn wanted(&self) -> Result<Wanted, StoreError> {
        let groups = self.store.groups().await?;
        let mut generations = BTreeMap::new();
        for (name, object) in &self.manifests.replications {
            if let Ok(object) = object {
                let spec = serde_json::to_value(&object.spec).unwrap_or_default();
                generations.insert(name.clone(), self.store.note_spec(name, spec)?);
            }
        }
        Ok(wanted(&self.manifests.objects(&generations), &self.manifests, &groups))
    }

    /// Takes up a changed list of nodes. All tasks start anew: each holds the old list.
    fn renew_nodes(&mut self) -> Result<(), ClientError> {
        let mut nodes = self.manifests.nodes.clone();
        // The command line is nearer to the person than the directory.
        nodes.extend(self.given.clone());
        if self.nodes.as_ref() == Some(&nodes) {
            return Ok(());
        }
        self.engines = Arc::new(RemoteEngines::new(nodes.iter().map(|(n, a)| (n, &a.engine)))?);
        if nodes.is_empty() {
            warn!("no nodes are known: name them with --node or in {}", manifest::NODES_FILE);
        }
        self.nodes = Some(nodes);
        self.tasks.clear();
        Ok(())
    }

    /// Ends the groups whose manifest has been gone for long enough.
    async fn end_absent(&mut self) -> Result<(), StoreError> {
        let here =
            |name: &ObjectName, manifests: &Manifests| manifests.replications.contains_key(name);
        // A file that can't be read may be the very one that asks for the group.
        if !self.files.problems().is_empty() {
            return Ok(());
        }
        let gone = |task: &Task| {
            task.desired.wish != Wish::Delete && !here(&task.desired.name, &self.manifests)
        };
        let stopped: Vec<_> =
            self.tasks.iter().filter(|(_, t)| gone(t)).map(|(g, _)| g.clone()).collect();
        let with_status = self.store.with_status()?;
        for group in self.store.groups().await? {
            let owner = ObjectName::from(&group.spec.owner);
            if here(&owner, &self.manifests) || self.ending(&group) {
                continue;
            }
            if group.spec.secondary.is_none() && !with_status.contains(&group.name) {
                continue;
            }
            let looks = self.absent.entry(group.name.clone()).or_default();
            *looks += 1;
            if POLL * *looks >= ABSENT {
                info!(group = %group.name, "its BlockReplication is gone: ending the replication");
                self.ensure(ending(&group));
            }
        }
        // One that never came to a group has nothing to end but its status.
        for group in stopped {
            if self.store.group(&group).await?.is_none()
                && let Some(task) = self.tasks.remove(&group)
            {
                self.store.forget_status(&task.desired.name).await?;
            }
        }
        Ok(())
    }

    fn ending(&self, group: &Group) -> bool {
        self.tasks.get(&group.name).is_some_and(|t| t.desired.wish == Wish::Delete)
    }

    /// A task that works for this wish, the running one if it does.
    fn ensure(&mut self, desired: Desired) {
        if self.tasks.get(&desired.group).is_some_and(|t| t.desired == desired) {
            return;
        }
        let list = self.nodes.iter().flatten();
        let place = |a: &NodeAddress| Place { link: a.link.clone(), ready: true, closed: None };
        let nodes: Nodes = list.map(|(name, a)| (name.clone(), place(a))).collect();
        let (store, engines) = (self.store.clone(), self.engines.clone());
        let wish = desired.clone();
        // The old task ends before the new one begins: two would work on one group.
        let old = self.tasks.remove(&desired.group);
        let handle = tokio::spawn(async move {
            if let Some(mut old) = old {
                old.handle.abort();
                let _ended = (&mut old.handle).await;
            }
            work(&wish, &nodes, &engines, &store).await;
        });
        self.tasks.insert(desired.group.clone(), Task { desired, handle });
    }
}

/// Passes over one group for ever.
async fn work(desired: &Desired, nodes: &Nodes, engines: &RemoteEngines, store: &Directory) {
    let mut failure = None;
    let mut told = String::new();
    loop {
        match pass(desired, nodes, engines, store, failure.take()).await {
            Ok(outcome) => {
                failure = outcome.failure;
                told.clear();
                tokio::time::sleep(outcome.requeue).await;
            }
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
