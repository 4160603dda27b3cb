//! A directory of the local file system as a [`Dir`].
//!
//! ```text
//!   create "log-1":  .log-1.new ─ length, space, first zeroes ─ fsync ─► rename to log-1 ─ fsync directory
//!                    └─ left behind by a crash: hidden from list, replaced by the next create
//! ```

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FallocateFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::fill::FIRST;
use super::geometry::{self, Caching, Opened};
use super::{Dir, Error, ErrorKind, File, Host, Result, Space};
use crate::runtime::{Data, ShardEnv};
use crate::units::{ByteRange, usize_of};

impl Host for ShardEnv {
    type Disk = File;
    type Dir = Folder;

    fn intent_hot(&self) -> usize {
        self.0.intent_hot
    }
}

/// A directory. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Folder {
    env: ShardEnv,
    fd: Arc<OwnedFd>,
    path: PathBuf,
    caching: Caching,
}

/// Leaves room for the prefix and suffix of a file that is being made.
const NAME_MAX: usize = 240;

impl Folder {
    /// Opens a directory that is there, or makes it (durably) with `make`.
    pub async fn open(env: &ShardEnv, path: &Path, make: bool, caching: Caching) -> Result<Self> {
        let wanted = path.to_owned();
        let opened = env.blocking(move || open_folder(&wanted, make)).await.and_then(|r| r);
        let fd = opened.map_err(|e| Error::system(format!("open folder {}", path.display()), e))?;
        Ok(Self { env: env.clone(), fd: Arc::new(fd), path: path.to_owned(), caching })
    }

    /// The folder `name` inside it, made (durably) if it is not there.
    pub async fn folder(&self, name: &str) -> Result<Self> {
        check_name(name)?;
        Self::open(&self.env, &self.path.join(name), true, self.caching).await
    }

    /// The names of the folders inside it, sorted.
    pub async fn folders(&self) -> Result<Vec<String>> {
        self.names(FileType::Directory).await
    }

    /// Removes the folder `name` inside it with its files, durably; fine if there is none.
    pub async fn remove_folder(&self, name: &str) -> Result<()> {
        check_name(name)?;
        let path = self.path.join(name);
        self.call("remove folder", name.to_owned(), move |dir| {
            match std::fs::remove_dir_all(path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(e) => Err(e),
                Ok(()) => Ok(rustix::fs::fsync(dir)?),
            }
        })
        .await
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs a call that blocks, with an error that names what it was about.
    fn call<T: Send + 'static>(
        &self,
        what: &'static str,
        name: String,
        call: impl FnOnce(&OwnedFd) -> io::Result<T> + Send + 'static,
    ) -> impl Future<Output = Result<T>> + 'static {
        let dir = self.fd.clone();
        let done = self.env.blocking(move || call(&dir));
        let path = self.path.join(name);
        async move {
            done.await
                .and_then(|r| r)
                .map_err(|e| Error::system(format!("{what} {}", path.display()), e))
        }
    }

    async fn names(&self, kind: FileType) -> Result<Vec<String>> {
        self.call("list", String::new(), move |dir| {
            let mut names = Vec::new();
            for entry in rustix::fs::Dir::read_from(dir)? {
                let entry = entry?;
                let Ok(name) = entry.file_name().to_str() else { continue };
                if name.starts_with('.') {
                    continue;
                }
                let found = match entry.file_type() {
                    FileType::Unknown => {
                        let s = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
                        FileType::from_raw_mode(s.st_mode)
                    }
                    known => known,
                };
                if found == kind {
                    names.push(name.to_owned());
                }
            }
            names.sort();
            Ok(names)
        })
        .await
    }

    async fn make(self, name: String, len: u64, space: Space) -> Result<File> {
        check_name(&name)?;
        let (new, caching) = (format!(".{name}.new"), self.caching);
        let made = self.call("create", name.clone(), {
            let (name, new) = (name.clone(), new.clone());
            move |dir| {
                if rustix::fs::statat(dir, &*name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
                    return Err(Errno::EXIST.into());
                }
                make_file(dir, &new, len, space, caching)
            }
        });
        let file = File::new(&self.env, self.path.join(&name), made.await?);
        let mut filled = len;
        if space == Space::Written && !file.0.in_memory {
            filled = len.min(FIRST);
            let mut at = 0;
            while at < filled {
                let part = ByteRange::new(at, filled.min(at + (1 << 20)));
                file.write_now(part, vec![Data::zeroes(usize_of(part.len()))]).await?;
                at = part.end;
            }
        }
        let fd = file.0.fd.shared();
        let placed = self.call("create", name.clone(), move |dir| {
            rustix::fs::fsync(&fd)?;
            place(dir, &new, &name)?;
            Ok(rustix::fs::fsync(dir)?)
        });
        placed.await?;
        file.fill_behind(filled);
        Ok(file)
    }
}

impl Dir for Folder {
    type Disk = File;

    fn create(
        &self,
        name: &str,
        len: u64,
        space: Space,
    ) -> impl Future<Output = Result<File>> + 'static {
        self.clone().make(name.to_owned(), len, space)
    }

    fn open(&self, name: &str) -> impl Future<Output = Result<Option<File>>> + 'static {
        let (me, name) = (self.clone(), name.to_owned());
        async move {
            check_name(&name)?;
            let path = me.path.join(&name);
            let (dir, caching) = (me.fd.clone(), me.caching);
            let opened = super::file::retry_locked(&me.env, move || {
                geometry::open_at(&*dir, Path::new(&name), false, caching)
            });
            match opened.await {
                Ok(opened) => Ok(Some(File::new(&me.env, path, opened))),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(super::file::open_error(&path, e)),
            }
        }
    }

    fn grow(&self, name: &str, len: u64) -> impl Future<Output = Result<()>> + 'static {
        let (me, name) = (self.clone(), name.to_owned());
        async move {
            check_name(&name)?;
            let file = name.clone();
            let grown = me.call("grow", name, move |dir| {
                let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
                let fd = rustix::fs::openat(dir, &*file, flags, Mode::empty())?;
                let now = u64::try_from(rustix::fs::fstat(&fd)?.st_size).unwrap_or(0);
                if len < now {
                    let what = format!("it has {now} bytes and can't shrink to {len}");
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
                }
                rustix::fs::ftruncate(&fd, len)?;
                Ok(rustix::fs::fsync(&fd)?)
            });
            grown.await
        }
    }

    fn remove(&self, name: &str) -> impl Future<Output = Result<()>> + 'static {
        let (me, name) = (self.clone(), name.to_owned());
        async move {
            check_name(&name)?;
            let file = name.clone();
            let removed = me.call("remove", name, move |dir| {
                match rustix::fs::unlinkat(dir, &*file, AtFlags::empty()) {
                    // A removal that a crash cut short may not be durable yet: sync all the same.
                    Ok(()) | Err(Errno::NOENT) => Ok(rustix::fs::fsync(dir)?),
                    Err(e) => Err(e.into()),
                }
            });
            removed.await
        }
    }

    fn rename(&self, from: &str, to: &str) -> impl Future<Output = Result<()>> + 'static {
        let (me, from, to) = (self.clone(), from.to_owned(), to.to_owned());
        async move {
            check_name(&from)?;
            check_name(&to)?;
            let renamed = me.call("rename", from.clone(), move |dir| {
                rustix::fs::renameat(dir, &*from, dir, &*to)?;
                Ok(rustix::fs::fsync(dir)?)
            });
            renamed.await
        }
    }

    fn list(&self) -> impl Future<Output = Result<Vec<String>>> + 'static {
        let me = self.clone();
        async move { me.names(FileType::RegularFile).await }
    }
}

fn check_name(name: &str) -> Result<()> {
    let good = !name.is_empty()
        && name.len() <= NAME_MAX
        && !name.starts_with('.')
        && !name.contains(['/', '\0']);
    if good {
        return Ok(());
    }
    let shown: String = name.escape_debug().take(80).collect();
    let what =
        format!("'{shown}' is no file name: 1 to {NAME_MAX} bytes, no slash, no dot in front");
    Err(Error::own(ErrorKind::Invalid, what))
}

fn open_folder(path: &Path, make: bool) -> io::Result<OwnedFd> {
    if make && !path.is_dir() {
        // Each new directory is an entry of its parent, which has to be durable too.
        let missing: Vec<_> =
            path.ancestors().take_while(|p| !p.as_os_str().is_empty() && !p.exists()).collect();
        for new in missing.into_iter().rev() {
            match std::fs::create_dir(new) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
                _ => {}
            }
            let parent =
                new.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            std::fs::File::open(parent)?.sync_all()?;
        }
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Makes the file under its temporary name.
fn make_file(
    dir: &OwnedFd,
    new: &str,
    len: u64,
    space: Space,
    caching: Caching,
) -> io::Result<Opened> {
    match rustix::fs::unlinkat(dir, new, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(e) => return Err(e.into()),
    }
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, new, flags, Mode::RUSR | Mode::WUSR)?;
    let made = (|| {
        rustix::fs::ftruncate(&fd, len)?;
        if space == Space::Written && len > 0 {
            match rustix::fs::fallocate(&fd, FallocateFlags::empty(), 0, len) {
                // Without it the space is taken as the zeroes are written.
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
                Err(e) => return Err(e.into()),
            }
        }
        geometry::examine(fd, caching)
    })();
    if made.is_err() {
        // The first error counts; a name left behind is replaced by the next create.
        let _ = rustix::fs::unlinkat(dir, new, AtFlags::empty());
    }
    made
}

/// Gives the finished file its name; an error if something has it.
fn place(dir: &OwnedFd, new: &str, name: &str) -> io::Result<()> {
    match rustix::fs::renameat_with(dir, new, dir, name, RenameFlags::NOREPLACE) {
        // Not on every file system.
        Err(Errno::INVAL | Errno::NOSYS) => {
            rustix::fs::linkat(dir, new, dir, name, AtFlags::empty())?;
            Ok(rustix::fs::unlinkat(dir, new, AtFlags::empty())?)
        }
        other => Ok(other?),
    }
}
