//! The files that undo logs are kept in: made once, written with zeroes once, then reused.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::disk::{Dir, Disk, Error, ErrorKind, Host, Result, Space};
use crate::overlay::UndoLog;
use crate::units::{CLUSTER, Epoch, Uuid};

/// The most log files of a group: two in steady state, one more for each restart or lost session
/// since the last record.
const FILES_MAX: u32 = 64;

/// The log files of one group.
pub(crate) struct LogFiles<H: Host> {
    host: H,
    dir: H::Dir,
    free: RefCell<Vec<H::Disk>>,
    made: Cell<u32>,
    opened: Cell<bool>,
    /// The length of a new file, in bytes.
    len: Cell<u64>,
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
            made: Cell::new(0),
            opened: Cell::new(false),
            len: Cell::new(Self::len_for(limit)),
        })
    }

    /// Opens every log file; returns the logs for which `wanted` says so, oldest first, and keeps
    /// the other files for reuse. Damage in an unwanted log does not matter.
    /// `record`: logs of epochs up to it are nobody's.
    pub(crate) async fn recover(
        &self,
        record: Epoch,
        wanted: impl Fn(&UndoLog<H::Disk>) -> bool,
    ) -> Result<Vec<UndoLog<H::Disk>>> {
        let mut found = Vec::new();
        if self.opened.replace(true) {
            // Open since the first call: in the free list, or held by a reader that gives it back.
            return Ok(found);
        }
        for name in self.dir.list().await? {
            let Some(number) = name.strip_prefix("undo-").and_then(|n| n.parse::<u32>().ok())
            else {
                continue;
            };
            self.made.set(self.made.get().max(number.saturating_add(1)));
            let Some(file) = self.dir.open(&name).await? else { continue };
            match UndoLog::recover(file.clone(), record).await.map_err(|e| e.context(&name))? {
                Some(log) if wanted(&log) => found.push(log),
                _ => self.free.borrow_mut().push(file),
            }
        }
        found.sort_by_key(UndoLog::epoch);
        Ok(found)
    }

    /// What a new file will be long enough for; smaller ones are not used again.
    pub(crate) fn set_limit(&self, limit: u64) {
        self.len.set(Self::len_for(limit));
    }

    /// The length of a new file.
    pub(crate) fn file_len(&self) -> u64 {
        self.len.get()
    }

    /// An empty log for `epoch`, in a reused file if there is one.
    pub(crate) async fn open_log(&self, epoch: Epoch) -> Result<UndoLog<H::Disk>> {
        let reused = {
            let mut free = self.free.borrow_mut();
            free.retain(|f| f.len() >= self.len.get());
            free.pop()
        };
        let file = match reused {
            Some(file) => file,
            None => self.make().await?,
        };
        let uuid = Uuid(u128::from(self.host.random()) << 64 | u128::from(self.host.random()));
        UndoLog::create(file, uuid, epoch).await
    }

    /// Makes sure that `count` files are there, so that the first save need not make one.
    pub(crate) async fn prepare(&self, count: usize) -> Result<()> {
        while self.free.borrow().len() < count {
            let file = self.make().await?;
            self.free.borrow_mut().push(file);
        }
        Ok(())
    }

    async fn make(&self) -> Result<H::Disk> {
        let number = self.made.get();
        if number >= FILES_MAX {
            return Err(Error::own(
                ErrorKind::NoSpace,
                format!(
                    "{FILES_MAX} undo logs are open without a checkpoint in between: let one complete, or start anew"
                ),
            ));
        }
        let file =
            self.dir.create(&format!("undo-{number}"), self.len.get(), Space::Written).await?;
        self.made.set(number + 1);
        Ok(file)
    }

    /// Takes back the file of a log that nobody reads any more.
    pub(crate) fn give_back(&self, log: &UndoLog<H::Disk>) {
        if log.is_broken() {
            // Its disk may be poisoned: the file is good again when it is opened anew.
            return;
        }
        self.free.borrow_mut().push(log.disk());
    }
}
