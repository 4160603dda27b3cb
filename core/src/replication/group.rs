//! A group on one engine: its durable state, its replicas, and the role that it plays now.
//!
//! ```text
//!   Group ─┬─ Store          the superblock: every change of who and what is one write of it
//!          ├─ Replica ...    one per volume
//!          ├─ LogFiles       undo logs
//!          ├─ IntentLog      what the peer may lack
//!          └─ Part           Idle │ Primary (+ Promoted) │ Secondary
//! ```
//! Operations ([`super::operate`]) take turns; I/O does not wait for them.

use std::cell::{Cell, Ref, RefCell};
use std::rc::Rc;

use super::counters::Counters;
use super::logs::LogFiles;
use super::primary::Primary;
use super::promoted::Promoted;
use super::replica::Replica;
use super::reshape;
use super::secondary::Secondary;
use super::status::GroupNames;
use super::store::Store;
use crate::disk::{Dir, Disk as _, Error, ErrorKind, Host, Result, Space};
use crate::overlay::{
    CommitPosition, GroupState, IntentLog, Member, Policy, RangeLock, Role, SUPERBLOCK_LEN, Stage,
    Superblock,
};
use crate::runtime::{Signal, Wall};
use crate::units::{ByteRange, Epoch, GROUP_VOLUMES_MAX, Generation, GroupId, Uuid, VolumeCount};

/// The volumes that are replicated and checkpointed together, on one engine. Clones are the same.
pub struct Group<H: Host>(pub(crate) Rc<Inner<H>>);

impl<H: Host> Clone for Group<H> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<H: Host> std::fmt::Debug for Group<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let s = self.state();
        write!(f, "Group({}, {:?}, {:?}, {})", s.group, s.role, s.stage, s.generation)
    }
}

pub(crate) struct Inner<H: Host> {
    pub(crate) host: H,
    pub(crate) dir: H::Dir,
    pub(crate) store: Rc<Store<H>>,
    /// Those of the members; a failover drops the ones that were still joining.
    pub(crate) replicas: RefCell<Vec<Rc<Replica<H>>>>,
    pub(crate) logs: Rc<LogFiles<H>>,
    pub(crate) intent: RefCell<Option<Rc<IntentLog<H::Disk>>>>,
    /// The active files of each replica, once opened: a file is locked by whoever has it open.
    pub(crate) active_files: RefCell<Option<ActiveFiles<H>>>,
    pub(crate) part: RefCell<Part<H>>,
    /// Operations take turns.
    pub(crate) turn: RangeLock,
    /// No new link session: a promotion is under way.
    pub(crate) promoting: Cell<bool>,
    /// It was shut down: whoever opens its files next must find nobody at work.
    pub(crate) closed: Cell<bool>,
    /// An error that belongs to no session: an inbound writer that went away.
    pub(crate) inbound_error: RefCell<Option<String>>,
    pub(crate) counters: Rc<Counters>,
    pub(crate) changed: Signal,
}

/// The primary, and what it serves from after a failover.
pub(crate) type PrimaryPart<H> = (Rc<Primary<H>>, Option<Rc<Promoted<H>>>);

/// Per volume, both pairs of data and map.
pub(crate) type ActiveFiles<H> = Vec<[(<H as Host>::Disk, <H as Host>::Disk); 2]>;

/// What the group does here now.
pub(crate) enum Part<H: Host> {
    Idle,
    Primary(Rc<Primary<H>>, Option<Rc<Promoted<H>>>),
    Secondary(Rc<Secondary<H>>),
}

impl<H: Host> Group<H> {
    /// Makes a group of these replicas, in this order; it plays no role yet.
    pub async fn create(
        host: &H,
        dir: H::Dir,
        replicas: Vec<Replica<H>>,
        pool: Uuid,
        group: GroupId,
    ) -> Result<Self> {
        if replicas.is_empty() || replicas.len() > GROUP_VOLUMES_MAX {
            return Err(Error::own(
                ErrorKind::Invalid,
                format!(
                    "group {group} with {} volumes: it must have 1 to {GROUP_VOLUMES_MAX}",
                    replicas.len()
                ),
            ));
        }
        // A replica that was in another group before holds something.
        let mut blank = true;
        for r in &replicas {
            let parts = r.disk.allocation(ByteRange::new(0, r.disk.len())).await?;
            blank &= !parts.iter().any(|(_, allocated)| *allocated);
        }
        let members = replicas
            .iter()
            .map(|r| Member::new(r.label.volume.clone(), r.label.uuid, r.label.size))
            .collect();
        let state = GroupState {
            group,
            pool,
            role: Role::None,
            stage: Stage::None,
            generation: Generation::default(),
            history: Vec::new(),
            epoch: Epoch(1),
            record: Epoch::NONE,
            record_cut: Wall::default(),
            record_done: Wall::default(),
            record_bytes: 0,
            peer_address: None,
            policy: Policy::default(),
            inbound: false,
            error: false,
            blank,
            anew: false,
            joined: VolumeCount::of(replicas.len()),
            members,
            active: None,
            undo: Vec::new(),
            commit: CommitPosition::default(),
            intent: 0,
        };
        let file = dir.create("superblock", SUPERBLOCK_LEN, Space::Written).await?;
        let superblock = Superblock::create(file, &state).await?;
        Ok(Self::with(host, dir, replicas, superblock, state))
    }

    /// Finds a group again after a restart, with its role, and resumes it: the link, a commit. If
    /// its replicas were expanded meanwhile, it remembers so from now on.
    pub async fn open(host: &H, dir: H::Dir, replicas: Vec<Replica<H>>) -> Result<Self> {
        let file = dir
            .open("superblock")
            .await?
            .ok_or_else(|| Error::own(ErrorKind::Corrupt, "the group has no superblock file"))?;
        let (superblock, mut state) = Superblock::open(file).await?;
        reshape::grow(&dir, &superblock, &mut state, &replicas).await?;
        check_members(&state, &replicas)?;
        reshape::sweep_intents(&dir, state.intent).await?;
        let group = Self::with(host, dir, replicas, superblock, state);
        group.resume().await?;
        Ok(group)
    }

    /// The members that the superblock in `dir` names, without opening the group.
    pub async fn members(dir: &H::Dir) -> Result<Option<GroupNames>> {
        let Some(file) = dir.open("superblock").await? else { return Ok(None) };
        let (_, state) = Superblock::open(file).await?;
        Ok(Some(GroupNames {
            group: state.group,
            members: state.members.into_iter().map(|m| (m.volume, m.size)).collect(),
        }))
    }

    fn with(
        host: &H,
        dir: H::Dir,
        replicas: Vec<Replica<H>>,
        superblock: Superblock<H::Disk>,
        state: GroupState,
    ) -> Self {
        let logs = LogFiles::new(host, dir.clone(), state.policy.undo_limit);
        Self(Rc::new(Inner {
            host: host.clone(),
            dir,
            store: Rc::new(Store::new(superblock, state)),
            replicas: RefCell::new(replicas.into_iter().map(Rc::new).collect()),
            logs,
            intent: RefCell::default(),
            active_files: RefCell::default(),
            part: RefCell::new(Part::Idle),
            turn: RangeLock::default(),
            promoting: Cell::new(false),
            closed: Cell::new(false),
            inbound_error: RefCell::default(),
            counters: Rc::default(),
            changed: Signal::new(),
        }))
    }

    /// What is durable.
    pub(crate) fn state(&self) -> Ref<'_, GroupState> {
        self.0.store.state()
    }

    /// Notified when something that the status shows has changed.
    pub fn changed(&self) -> Signal {
        self.0.changed.clone()
    }

    /// What is durable, as it is now.
    pub fn durable(&self) -> GroupState {
        self.state().clone()
    }

    /// Its name and volumes.
    pub fn names(&self) -> GroupNames {
        let s = self.state();
        GroupNames {
            group: s.group.clone(),
            members: s.members.iter().map(|m| (m.volume.clone(), m.size)).collect(),
        }
    }

    /// How many volumes it has.
    pub fn volumes(&self) -> usize {
        self.state().members.len()
    }

    /// The uuid of each replica, in group order.
    pub fn replica_uuids(&self) -> Vec<Uuid> {
        self.state().members.iter().map(|m| m.uuid).collect()
    }

    pub(crate) fn running_secondary(&self) -> Option<Rc<Secondary<H>>> {
        match &*self.0.part.borrow() {
            Part::Secondary(s) if !self.0.promoting.get() => Some(s.clone()),
            Part::Secondary(_) | Part::Primary(..) | Part::Idle => None,
        }
    }

    pub(crate) fn primary(&self) -> Option<PrimaryPart<H>> {
        match &*self.0.part.borrow() {
            Part::Primary(p, q) => Some((p.clone(), q.clone())),
            Part::Secondary(_) | Part::Idle => None,
        }
    }

    pub(crate) fn disks(&self) -> Vec<H::Disk> {
        self.0.replicas.borrow().iter().map(|r| r.disk.clone()).collect()
    }

    /// The intent log, made if there is none.
    pub(crate) async fn intent(&self) -> Result<Rc<IntentLog<H::Disk>>> {
        if let Some(i) = &*self.0.intent.borrow() {
            return Ok(i.clone());
        }
        let lens: Vec<u64> = self.disks().iter().map(H::Disk::len).collect();
        let name = intent_name(self.state().intent);
        let log = if let Some(file) = self.0.dir.open(&name).await? {
            IntentLog::open(file, &lens).await?
        } else {
            let len = IntentLog::<H::Disk>::file_len(&lens);
            let file = self.0.dir.create(&name, len, Space::Written).await?;
            IntentLog::create(file, &lens).await?
        };
        log.limit_hot(self.0.host.intent_hot());
        let log = Rc::new(log);
        *self.0.intent.borrow_mut() = Some(log.clone());
        Ok(log)
    }

    /// Closes the files of all members behind the first so many: they are of no group any more.
    pub(crate) fn let_go(&self, members: usize) {
        self.0.replicas.borrow_mut().truncate(members);
        if let Some(files) = &mut *self.0.active_files.borrow_mut() {
            files.truncate(members);
        }
        // It has another shape.
        self.0.intent.take();
    }

    /// The active files, opened once.
    pub(crate) async fn active_files(&self) -> Result<ActiveFiles<H>> {
        if let Some(files) = &*self.0.active_files.borrow() {
            return Ok(files.clone());
        }
        let mut files = Vec::new();
        let replicas = self.0.replicas.borrow().clone();
        for r in &replicas {
            files.push(r.actives().await?);
        }
        *self.0.active_files.borrow_mut() = Some(files.clone());
        Ok(files)
    }

    /// Ends all tasks and sessions of the group in order; what is durable stays as it is.
    pub async fn shutdown(&self) {
        let _turn = self.0.turn.lock(ByteRange::new(0, 1)).await;
        self.0.closed.set(true);
        let part = std::mem::replace(&mut *self.0.part.borrow_mut(), Part::Idle);
        match part {
            Part::Idle => {}
            Part::Primary(p, _) => {
                // What the VM flushed is durable already; the rest is made so as far as it goes.
                let is_flushed = p.flush_all().await.is_ok();
                let peer = p.peer.borrow().clone();
                if let Some(peer) = peer.filter(|_| is_flushed) {
                    peer.close_intent(self.0.host.now()).await;
                }
                p.end();
            }
            Part::Secondary(s) => {
                s.cut();
                s.quiet().await;
                s.end();
                // Nor is anything lost of what a consumer wrote and did not flush.
                s.changed.wait_until(|| s.consumer_writes.get() == 0).await;
                let _ = s.flush_actives().await;
            }
        }
    }
}

/// The file of an intent log.
pub(super) fn intent_name(number: u32) -> String {
    if number == 0 { "intent".to_owned() } else { format!("intent-{number}") }
}

fn check_members<H: Host>(state: &GroupState, replicas: &[Replica<H>]) -> Result<()> {
    let fits = state.members.len() == replicas.len()
        && state.members.iter().zip(replicas).all(|(m, r)| {
            m.volume == r.label.volume && m.uuid == r.label.uuid && m.size == r.label.size
        });
    if fits {
        return Ok(());
    }
    let of = |i: &mut dyn Iterator<Item = String>| i.collect::<Vec<_>>().join(", ");
    Err(Error::own(
        ErrorKind::Corrupt,
        format!(
            "group {}: its superblock names the replicas {}, the pool has {}",
            state.group,
            of(&mut state.members.iter().map(|m| format!("{} ({})", m.volume, m.uuid))),
            of(&mut replicas.iter().map(|r| format!("{} ({})", r.label.volume, r.label.uuid))),
        ),
    ))
}
