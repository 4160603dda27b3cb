//! A directory: files by name. What changes it is durable when it returns, and done or not done,
//! nobody knows which, when its node dies in the middle.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::rc::Rc;

use futures::channel::oneshot;

use super::disk::{SimDisk, answer};
use super::events::Fate;
use super::faults::Operation;
use super::file::{File, Keep};
use super::host::SimHost;
use super::random::Random;
use crate::disk::{Dir, Error, ErrorKind, Result, Space};

/// The files of a directory. Outlives the lives of its node.
#[derive(Default)]
pub(super) struct Directory {
    path: String,
    names: RefCell<BTreeMap<String, Rc<File>>>,
}

impl Directory {
    pub(super) fn new(path: &str) -> Self {
        Self { path: path.to_owned(), names: RefCell::default() }
    }

    pub(super) fn file(&self, name: &str) -> Option<Rc<File>> {
        self.names.borrow().get(name).cloned()
    }

    pub(super) fn power_cut(&self, random: &Random, keep: Keep) {
        for file in self.names.borrow().values() {
            file.power_cut(random, keep);
        }
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }

    fn missing(&self, what: &str, name: &str) -> Error {
        Error::system(format!("{what} {}", self.path(name)), io::ErrorKind::NotFound.into())
    }

    fn create(&self, name: &str, len: u64, space: Space) -> Result<Rc<File>> {
        let mut names = self.names.borrow_mut();
        if names.contains_key(name) {
            let what = format!("create {}", self.path(name));
            return Err(Error::system(what, io::ErrorKind::AlreadyExists.into()));
        }
        let file = File::new(&self.path(name), len, space);
        names.insert(name.to_owned(), file.clone());
        Ok(file)
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        let mut names = self.names.borrow_mut();
        let file = names.remove(from).ok_or_else(|| self.missing("rename", from))?;
        *file.path.borrow_mut() = self.path(to).into();
        names.insert(to.to_owned(), file);
        Ok(())
    }

    fn grow(&self, name: &str, len: u64) -> Result<()> {
        let file = self.file(name).ok_or_else(|| self.missing("grow", name))?;
        if len < file.len.get() {
            let text =
                format!("grow {} to {len}: it has {} bytes", self.path(name), file.len.get());
            return Err(Error::own(ErrorKind::Invalid, text));
        }
        file.len.set(len);
        Ok(())
    }
}

/// A simulated directory. Clones are the same directory.
#[derive(Clone)]
pub struct SimDir {
    host: SimHost,
    directory: Rc<Directory>,
}

impl std::fmt::Debug for SimDir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimDir({}/{})", self.host.name(), self.directory.path)
    }
}

impl SimDir {
    pub(super) fn new(host: &SimHost, directory: Rc<Directory>) -> Self {
        Self { host: host.clone(), directory }
    }

    /// Carries out a change after a delay; at a crash before that, by seed, or not.
    fn change<T: 'static>(
        &self,
        what: &'static str,
        path: String,
        change: impl FnOnce(&SimDir) -> Result<T> + 'static,
    ) -> impl Future<Output = Result<T>> + 'static {
        let (reply, receiver) = oneshot::channel();
        if !self.host.is_dead()
            && let Some(point) = self.host.sync_begins(what, path)
        {
            let this = self.clone();
            let action = move |fate: Fate| {
                let random = &this.host.world().disks;
                if fate == Fate::Happens {
                    let result = change(&this);
                    if !this.host.sync_ended(point) {
                        let _ = reply.send(result);
                    }
                } else if random.one_in(2) {
                    // Nobody is there to hear of an error.
                    let _ = change(&this);
                }
            };
            let world = self.host.world();
            world.act_after(self.host.disk_delay() * 2, self.host.tag(), Box::new(action));
        }
        answer(receiver)
    }
}

impl Dir for SimDir {
    type Disk = SimDisk;

    fn create(
        &self,
        name: &str,
        len: u64,
        space: Space,
    ) -> impl Future<Output = Result<SimDisk>> + 'static {
        let owned = name.to_owned();
        let path = self.directory.path(name);
        self.change("create", path, move |dir| {
            let path = dir.directory.path(&owned);
            let node = dir.host.node();
            if let Some(kind) =
                node.injected.next(&path, Operation::Create, &dir.host.world().disks)
            {
                return Err(Error::own(kind, format!("create {path}: fault injected")));
            }
            let file = dir.directory.create(&owned, len, space)?;
            Ok(SimDisk::new(&dir.host, file))
        })
    }

    fn open(&self, name: &str) -> impl Future<Output = Result<Option<SimDisk>>> + 'static {
        let (this, name) = (self.clone(), name.to_owned());
        async move {
            this.host.pause(this.host.disk_delay()).await;
            loop {
                let Some(file) = this.directory.file(&name) else { return Ok(None) };
                let open = file.open.borrow().upgrade();
                if open.is_some_and(|open| !open.is_dead()) {
                    let text = format!("{} is open already", this.directory.path(&name));
                    return Err(Error::own(ErrorKind::Locked, text));
                }
                if file.in_flight.get() == 0 {
                    return Ok(Some(SimDisk::new(&this.host, file)));
                }
                file.settled.wait().await;
            }
        }
    }

    fn grow(&self, name: &str, len: u64) -> impl Future<Output = Result<()>> + 'static {
        let owned = name.to_owned();
        self.change("grow", self.directory.path(name), move |dir| dir.directory.grow(&owned, len))
    }

    fn remove(&self, name: &str) -> impl Future<Output = Result<()>> + 'static {
        let owned = name.to_owned();
        self.change("remove", self.directory.path(name), move |dir| {
            let removed = dir.directory.names.borrow_mut().remove(&owned);
            drop(removed);
            Ok(())
        })
    }

    fn rename(&self, from: &str, to: &str) -> impl Future<Output = Result<()>> + 'static {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.change("rename", self.directory.path(&from), move |dir| {
            dir.directory.rename(&from, &to)
        })
    }

    fn list(&self) -> impl Future<Output = Result<Vec<String>>> + 'static {
        let this = self.clone();
        async move {
            this.host.pause(this.host.disk_delay()).await;
            Ok(this.directory.names.borrow().keys().cloned().collect())
        }
    }
}
