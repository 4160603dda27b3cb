//! The groups of one shard, and all that the engine knows of replication.
//!
//! ```text
//!   registry ── run(shard, ..) ──► GROUPS of that thread: name → Local { group, exports, watcher }
//!                                    ask      start, checkpoint, failover, sessions, ...
//!                                    status   what a group says of itself, in the API's words
//!                                    exports  what NBD clients may open; stale ones are cut (admission,
//!                                             seats, offers, served)
//!                                    files    labels and superblocks, before there is a group
//! ```
//!
//! A shard is one thread, so what belongs to a shard belongs to its thread: `GROUPS` is that.
//! No borrow of it is held across an await.

mod admission;
mod ask;
mod exports;
mod files;
mod offers;
mod seats;
mod served;
mod status;

pub(super) use admission::Offer;
pub(super) use ask::{
    checkpoint, close_session, failover, get_error, open_session, policy_of, set_policy, start,
    state, stop,
};
pub(super) use exports::LocalCatalog;
pub(super) use files::{
    create_over, expand_replica, join_group, leave_group, let_go, make_replica, read_group,
    read_replica, rewrite_over,
};
pub(super) use offers::{OfferCatalog, offers};
pub(super) use status::{samples, status};

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;

use super::api::{ByteLen, GroupId, Refusal, Uuid, VolumeId};
use super::error::EngineError;
use crate::disk::{Caching, Folder};
use crate::replication::{self, Group, Replica};
use crate::runtime::{Env, Parcel, ShardEnv, Task};
use crate::tls::Identity;
use crate::units::VolumeIndex;

/// How long requests in flight may take to end when their connection is cut.
const LEAVE: Duration = Duration::from_secs(5);

/// How often, at most, a changing group wakes those who watch it.
const NOTICE: Duration = Duration::from_millis(10);

thread_local! {
    static GROUPS: RefCell<BTreeMap<GroupId, Rc<Local>>> = const { RefCell::new(BTreeMap::new()) };
}

/// A group on this shard.
struct Local {
    group: Group<ShardEnv>,
    /// In group order; a failover leaves those at the end behind that were joining.
    opened: Vec<(VolumeId, ByteLen)>,
    hall: seats::Hall,
    /// Cuts stale exports and wakes those who watch the engine.
    watcher: RefCell<Option<Task>>,
}

/// Where a group's files are.
#[derive(Debug)]
pub(super) struct Paths {
    pub(super) group: PathBuf,
    /// In group order.
    pub(super) replicas: Vec<PathBuf>,
}

impl Paths {
    async fn open(&self, env: &ShardEnv) -> Result<(Folder, Vec<Replica<ShardEnv>>), EngineError> {
        let mut replicas = Vec::with_capacity(self.replicas.len());
        for path in &self.replicas {
            replicas.push(Replica::open(folder(env, path).await?).await?);
        }
        Ok((folder(env, &self.group).await?, replicas))
    }
}

async fn folder(env: &ShardEnv, path: &std::path::Path) -> Result<Folder, EngineError> {
    Ok(Folder::open(env, path, false, Caching::default()).await?)
}

/// Makes the files of a group that nobody knows yet.
pub(super) async fn make(
    env: ShardEnv,
    paths: Paths,
    pool: Uuid,
    group: GroupId,
) -> Result<(), EngineError> {
    let (dir, replicas) = paths.open(&env).await?;
    let made = Group::create(&env, dir, replicas, pool, group).await?;
    // Its files get their place first, and are opened there.
    made.shutdown().await;
    Ok(())
}

/// Opens a group, which goes on where it was.
pub(super) async fn open(
    env: ShardEnv,
    paths: Paths,
    name: GroupId,
    changes: watch::Sender<u64>,
) -> Result<(), EngineError> {
    let (dir, replicas) = paths.open(&env).await?;
    let members =
        replicas.iter().map(|r| (r.label.volume.clone(), ByteLen(r.label.size))).collect();
    let group = Group::open(&env, dir, replicas).await?;
    let local = Rc::new(Local {
        group,
        opened: members,
        hall: seats::Hall::new(&env),
        watcher: RefCell::default(),
    });
    let task = env.spawn("watch group", watch(env.clone(), Rc::downgrade(&local), changes));
    *local.watcher.borrow_mut() = Some(task);
    GROUPS.with(|g| g.borrow_mut().insert(name, local));
    Ok(())
}

async fn watch(env: ShardEnv, local: std::rc::Weak<Local>, changes: watch::Sender<u64>) {
    loop {
        let Some(this) = local.upgrade() else { return };
        let changed = this.group.changed().wait();
        this.cut_stale();
        changes.send_modify(|n| *n += 1);
        drop(this);
        changed.await;
        // Many small changes are one piece of news; but a stale export is cut at once.
        if let Some(this) = local.upgrade() {
            this.cut_stale();
        }
        env.sleep(NOTICE).await;
    }
}

/// Ends a group for good; its files stay, and nobody has them open any more.
pub(super) async fn close(name: GroupId) -> Result<(), EngineError> {
    let local = GROUPS.with(|g| g.borrow_mut().remove(&name));
    if let Some(local) = local {
        local.end().await;
    }
    Ok(())
}

/// Ends a group that is to be opened again. Its connections are cut, and whoever has one connects
/// again. With `unused`: only if nobody has that volume open. On an error the group goes on.
pub(super) async fn pause(name: GroupId, unused: Option<VolumeId>) -> Result<(), EngineError> {
    let local = find(&name)?;
    local.hall.shut(true);
    if let Err(e) = local.leave_all(unused).await {
        local.hall.shut(false);
        return Err(e);
    }
    drop(local);
    close(name).await
}

/// Ends all groups of this shard.
pub(super) async fn shutdown() -> Result<(), EngineError> {
    let all = GROUPS.with(|g| std::mem::take(&mut *g.borrow_mut()));
    futures::future::join_all(all.values().map(|local| local.end())).await;
    Ok(())
}

impl Local {
    /// Its volumes.
    fn members(&self) -> &[(VolumeId, ByteLen)] {
        let count = self.group.volumes().min(self.opened.len());
        self.opened.get(..count).unwrap_or_default()
    }

    /// The number of a volume in the group.
    fn index_of(&self, volume: &VolumeId) -> Result<VolumeIndex, EngineError> {
        let at = self.members().iter().position(|(m, _)| m == volume);
        at.and_then(|i| u16::try_from(i).ok()).map(VolumeIndex).ok_or_else(|| {
            let text = format!("volume {volume} left its group meanwhile: try again");
            EngineError::new(Refusal::Unavailable, text)
        })
    }

    async fn end(&self) {
        // The connections first: a request that a closing group fails is no answer for a device.
        self.hall.shut(true);
        self.hall.cut_all();
        self.hall.empty(LEAVE, |_| true).await;
        if let Some(task) = self.watcher.take() {
            task.cancel();
        }
        self.group.shutdown().await;
    }

    async fn leave_all(&self, unused: Option<VolumeId>) -> Result<(), EngineError> {
        if let Some(volume) = unused {
            let clients = self.hall.clients(self.index_of(&volume)?);
            if clients > 0 {
                let text = format!(
                    "volume {volume} is in use: {clients} NBD connections have it open; detach it first"
                );
                return Err(EngineError::new(Refusal::WrongState, text));
            }
        }
        self.hall.cut_all();
        if self.hall.empty(LEAVE, |_| true).await {
            return Ok(());
        }
        let text = format!("requests of NBD clients did not end within {LEAVE:?}: try again");
        Err(EngineError::new(Refusal::Unavailable, text))
    }
}

/// The group of this name on this shard.
fn find(name: &GroupId) -> Result<Rc<Local>, EngineError> {
    GROUPS.with(|g| g.borrow().get(name).cloned()).ok_or_else(|| {
        let text =
            format!("group {name} is being changed or the engine is about to stop: try again");
        EngineError::new(Refusal::Unavailable, text)
    })
}

/// All groups of this shard, by name.
fn all() -> Vec<(GroupId, Rc<Local>)> {
    GROUPS.with(|g| g.borrow().iter().map(|(n, l)| (n.clone(), l.clone())).collect())
}

/// Serves a link that a primary opened, to its end; says why it ended.
pub(super) async fn serve_link(env: ShardEnv, parcel: Parcel) -> Result<String, EngineError> {
    let stream = env.arrive(parcel).map_err(|e| EngineError::system("can't serve a link", e))?;
    let from = stream.identity();
    let find = |name: &GroupId| {
        let local = find(name)
            .map_err(|_| format!("this engine has no group {name}: start the secondary first"))?;
        let expected = local.group.peer_node();
        check_link(name, expected.as_deref(), from.as_ref())?;
        Ok(local.group.clone())
    };
    Ok(replication::serve_link(&env, stream, find).await.to_string())
}

/// Whether a link may be of a group whose primary is on the node `expected`, if one is named.
fn check_link(
    group: &GroupId,
    expected: Option<&str>,
    from: Option<&Identity>,
) -> Result<(), String> {
    let Some(expected) = expected else { return Ok(()) };
    match from {
        Some(Identity::Engine(node)) if node == expected => Ok(()),
        Some(other) => Err(format!(
            "this link is of {other}, the primary of group {group} is engine/{expected}: start the \
             secondary with the address of its primary"
        )),
        None => Err(format!(
            "this link proves nothing, the primary of group {group} is engine/{expected}: let it \
             come over TLS"
        )),
    }
}
