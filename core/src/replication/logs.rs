//! The files that undo logs are kept in: made once, written with zeroes once, then reused.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::disk::{Dir, Disk, Error, ErrorKind, Host, Result, Space, settle};
use crate::overlay::UndoLog;
use crate::units::{CLUSTER, Epoch, Uuid};

/// The most log files of a group: two in steady state, one more for each restart or lost session
/// since the last record.
const FILES_MAX: u32 = 64;

/// So many that no log uses are kept: two in steady state, and two for a session that was lost.
const FREE_MAX: usize = 4;

/// The log files of one group.
pub(crate) struct LogFiles<H: Host> {
    host: H,
    dir: H::Dir,
    /// Those that no log uses, with their numbers.
    free: RefCell<Vec<(u32, H::Disk)>>,
    /// Those of the logs in use, by the log's uuid.
    used: RefCell<BTreeMap<Uuid, u32>>,
    /// The numbers of all that are in the directory.
    there: RefCell<BTreeSet<u32>>,
    opened: Cell<bool>,
    /// The length of a new file, in bytes.
    len: Cell<u64>,
}

fn name_of(number: u32) -> String {
    format!("undo-{number}")
}

impl<H: Host> LogFiles<H> {
    /// How long a log file must be for `limit` bytes of saved clusters: a batch may hold a single
    /// cluster and still has a header of its own.
    fn len_for(limit: u64) -> u64 {
        limit.saturating_mul(2).saturating_add(16 * CLUSTER).next_multiple_of(CLUSTER)
    }

    pub(crate) fn new(host: &H, dir: H::Dir, limit: u64) -> Rc<Self> {
        Rc::new(Self {
            host: host.clone(),
            dir,
            free: RefCell::default(),
            used: RefCell::default(),
            there: RefCell::default(),
            opened: Cell::new(false),
            len: Cell::new(Self::len_for(limit)),
        })
    }

    /// Opens every log file; returns the logs for which `wanted` says so, oldest first, and keeps
    /// the other files for reuse. Damage in an unwanted log does not matter.
    /// `record`: logs of epochs up to it are nobody's.
    ///
    /// An error: nothing is kept, and the next call begins anew.
    pub(crate) async fn recover(
        &self,
        record: Epoch,
        wanted: impl Fn(&UndoLog<H::Disk>) -> bool,
    ) -> Result<Vec<UndoLog<H::Disk>>> {
        let mut found = Vec::new();
        if self.opened.get() {
            // Open since the first call: in the free list, or held by a reader that gives it back.
            return Ok(found);
        }
        let (mut free, mut used, mut there) = (Vec::new(), BTreeMap::new(), BTreeSet::new());
        for name in self.dir.list().await? {
            let Some(number) = name.strip_prefix("undo-").and_then(|n| n.parse::<u32>().ok())
            else {
                continue;
            };
            there.insert(number);
            let Some(file) = self.dir.open(&name).await? else { continue };
            if record == Epoch(u64::MAX) {
                // No log counts, so none is read. What a killed process has in flight must not land in
                // a later log; where that can't be known, the file is left alone.
                if settle(&file).await.is_ok() {
                    free.push((number, file));
                }
                continue;
            }
            match UndoLog::recover(file.clone(), record).await.map_err(|e| e.context(&name))? {
                Some(log) if wanted(&log) => {
                    used.insert(log.uuid(), number);
                    found.push(log);
                }
                _ => free.push((number, file)),
            }
        }
        self.opened.set(true);
        *self.free.borrow_mut() = free;
        *self.used.borrow_mut() = used;
        *self.there.borrow_mut() = there;
        found.sort_by_key(UndoLog::epoch);
        Ok(found)
    }

    /// What a new file will be long enough for; smaller ones are made anew when they are needed.
    pub(crate) fn set_limit(&self, limit: u64) {
        self.len.set(Self::len_for(limit));
    }

    /// The length of a new file.
    pub(crate) fn file_len(&self) -> u64 {
        self.len.get()
    }

    /// An empty log for `epoch`, in a reused file if there is one.
    pub(crate) async fn open_log(&self, epoch: Epoch) -> Result<UndoLog<H::Disk>> {
        let fits = |(_, file): &(u32, H::Disk)| file.len() >= self.len.get();
        let reused = {
            let mut free = self.free.borrow_mut();
            free.iter().rposition(fits).map(|at| free.remove(at))
        };
        let (number, file) = match reused {
            Some(both) => both,
            None => self.make().await?,
        };
        let uuid = Uuid(u128::from(self.host.random()) << 64 | u128::from(self.host.random()));
        let log = UndoLog::create(file, uuid, epoch).await?;
        self.used.borrow_mut().insert(uuid, number);
        Ok(log)
    }

    /// Makes sure that `count` files are there, so that the first save need not make one.
    pub(crate) async fn prepare(&self, count: usize) -> Result<()> {
        let fits = |(_, file): &&(u32, H::Disk)| file.len() >= self.len.get();
        while self.free.borrow().iter().filter(fits).count() < count {
            let made = self.make().await?;
            self.free.borrow_mut().push(made);
        }
        Ok(())
    }

    /// A new file; one that was made for a smaller limit gives its place to it.
    async fn make(&self) -> Result<(u32, H::Disk)> {
        let small = {
            let mut free = self.free.borrow_mut();
            let at = free.iter().position(|(_, file)| file.len() < self.len.get());
            at.map(|at| free.remove(at))
        };
        if let Some((number, file)) = small {
            drop(file);
            self.remove(number).await?;
        }
        let number = (0..FILES_MAX).find(|n| !self.there.borrow().contains(n)).ok_or_else(|| {
            Error::own(
                ErrorKind::NoSpace,
                format!(
                    "{FILES_MAX} undo logs are open without a checkpoint in between: let one complete, or start anew"
                ),
            )
        })?;
        let file = self.dir.create(&name_of(number), self.len.get(), Space::Written).await?;
        self.there.borrow_mut().insert(number);
        Ok((number, file))
    }

    async fn remove(&self, number: u32) -> Result<()> {
        self.dir.remove(&name_of(number)).await?;
        self.there.borrow_mut().remove(&number);
        Ok(())
    }

    /// Removes files beyond those that are worth keeping; what can't be removed stays for another time.
    pub(crate) async fn trim(&self) {
        while self.free.borrow().len() > FREE_MAX {
            let (number, file) = self.free.borrow_mut().remove(0);
            drop(file);
            if self.remove(number).await.is_err() {
                return;
            }
        }
    }

    /// Takes back the file of a log that nobody reads any more.
    pub(crate) fn give_back(&self, log: &UndoLog<H::Disk>) {
        let number = self.used.borrow_mut().remove(&log.uuid());
        // The disk of a broken one may be poisoned: the file is good again when it is opened anew.
        if let Some(number) = number.filter(|_| !log.is_broken()) {
            self.free.borrow_mut().push((number, log.disk()));
        }
    }
}
