//! A replica on disk: one directory with its label, its disk, and two pairs of active files.
//!
//! ```text
//!   <volume>/label            uuid, volume, size; never changes except by expand
//!            disk             the content, thin, padded to whole clusters
//!            active-0, -1     a consumer's own writes: one pair is in use, the other is the last
//!            active-map-0, -1 checkpoint's or free
//! ```

use crate::disk::{Dir, Disk, Error, ErrorKind, Host, Result, Space, settle};
use crate::overlay::{Active, LABEL_LEN, Label};
use crate::units::{CLUSTER, SECTOR, Uuid, VOLUME_MAX, VolumeId};

/// One open replica.
#[derive(Debug)]
pub struct Replica<H: Host> {
    /// Whose it is.
    pub label: Label,
    /// The content, padded to whole clusters.
    pub disk: H::Disk,
    dir: H::Dir,
}

impl<H: Host> Replica<H> {
    /// Makes a replica of zeroes in an empty directory. An error leaves files behind that only a
    /// new call into an empty directory makes good: make it under a temporary name.
    pub async fn create(dir: H::Dir, volume: VolumeId, uuid: Uuid, size: u64) -> Result<Self> {
        if size == 0 || !size.is_multiple_of(SECTOR) || size > VOLUME_MAX {
            return Err(Error::own(
                ErrorKind::Invalid,
                format!(
                    "size {size} of volume {volume}: it must be a multiple of {SECTOR} from {SECTOR} to {VOLUME_MAX} bytes"
                ),
            ));
        }
        let label = Label { uuid, volume, size, grown_from: 0 };
        let file = dir.create("label", LABEL_LEN, Space::Written).await?;
        label.write(&file).await?;
        file.flush().await?;
        let disk = dir.create("disk", size.next_multiple_of(CLUSTER), Space::Sparse).await?;
        Ok(Self { label, disk, dir })
    }

    /// Opens a replica; what was written before counts as durable after this. Finishes an expand
    /// that was cut off.
    pub async fn open(dir: H::Dir) -> Result<Self> {
        let missing =
            |what: &str| Error::own(ErrorKind::Corrupt, format!("the replica has no {what} file"));
        let file = dir.open("label").await?.ok_or_else(|| missing("label"))?;
        settle(&file).await?;
        let label = Label::read(&file).await?;
        let mut disk = dir.open("disk").await?.ok_or_else(|| missing("disk"))?;
        let wanted = label.size.next_multiple_of(CLUSTER);
        if disk.len() < wanted && disk.len() == label.grown_from.next_multiple_of(CLUSTER) {
            drop(disk);
            dir.grow("disk", wanted).await?;
            disk = dir.open("disk").await?.ok_or_else(|| missing("disk"))?;
        }
        if disk.len() != wanted {
            return Err(Error::own(
                ErrorKind::Corrupt,
                format!(
                    "the disk of volume {} has {} bytes, its label says {}",
                    label.volume,
                    disk.len(),
                    label.size
                ),
            ));
        }
        settle(&disk).await?;
        Ok(Self { label, disk, dir })
    }

    /// Makes the replica in `dir`, which nobody has open, larger; the new space reads as zeroes.
    ///
    /// One step decides: the rename of the new label. All that follows from it, the length of the
    /// disk, of active files, and what a group remembers, is brought up to it by whoever opens them.
    pub async fn expand(dir: &H::Dir, size: u64) -> Result<()> {
        // A label that was grown before has its disk now: only one step lies between them.
        let Self { label, .. } = Self::open(dir.clone()).await?;
        if size == label.size {
            return Ok(());
        }
        if size < label.size || !size.is_multiple_of(SECTOR) || size > VOLUME_MAX {
            return Err(Error::own(
                ErrorKind::Invalid,
                format!(
                    "volume {} has {} bytes and can't get {size}: it never shrinks, and grows by multiples of {SECTOR} up to {VOLUME_MAX}",
                    label.volume, label.size
                ),
            ));
        }
        // Whether the file system takes a file of that length shows before anything is decided.
        for leftover in ["disk-trial", "label-grown"] {
            dir.remove(leftover).await?;
        }
        drop(dir.create("disk-trial", size.next_multiple_of(CLUSTER), Space::Sparse).await?);
        dir.remove("disk-trial").await?;
        let grown = Label { size, grown_from: label.size, ..label };
        let file = dir.create("label-grown", LABEL_LEN, Space::Written).await?;
        grown.write(&file).await?;
        drop(file);
        dir.rename("label-grown", "label").await
    }

    /// Opens both pairs of active files, making those that are not there.
    pub(crate) async fn actives(&self) -> Result<[(H::Disk, H::Disk); 2]> {
        Ok([self.active_pair(0).await?, self.active_pair(1).await?])
    }

    async fn active_pair(&self, slot: usize) -> Result<(H::Disk, H::Disk)> {
        let data = self.open_or_make(&format!("active-{slot}"), self.disk.len()).await?;
        let map = self
            .open_or_make(
                &format!("active-map-{slot}"),
                Active::<H::Disk>::map_len(self.disk.len()),
            )
            .await?;
        Ok((data, map))
    }

    async fn open_or_make(&self, name: &str, len: u64) -> Result<H::Disk> {
        match self.dir.open(name).await? {
            Some(file) if file.len() == len => Ok(file),
            Some(file) if file.len() < len => {
                // Of before an expand: what a consumer wrote stays, what is new is blank.
                drop(file);
                self.dir.grow(name, len).await?;
                let grown = self.dir.open(name).await?;
                grown.ok_or_else(|| Error::own(ErrorKind::Corrupt, format!("{name} is gone")))
            }
            Some(file) => {
                drop(file);
                self.dir.remove(name).await?;
                self.dir.create(name, len, Space::Sparse).await
            }
            None => self.dir.create(name, len, Space::Sparse).await,
        }
    }
}

/// Which pair of active files an id uses.
pub(crate) fn slot_of(id: Uuid) -> usize {
    usize::from(id.0 & 1 == 1)
}
