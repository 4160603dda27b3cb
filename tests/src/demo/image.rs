//! Two ext4 images with files of known content, made without root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::harness::tools;
use crate::random::Random;

/// The volumes: name, size of the file system in MiB, size of the volume in MiB. The load writes to
/// the space behind the file system.
pub(crate) const VOLUMES: [(&str, u64, u64); 2] = [("vm-root", 48, 64), ("vm-data", 72, 96)];

/// One image and what is in it.
pub(crate) struct Image {
    /// The volume it belongs on.
    pub(crate) volume: &'static str,
    /// The image file.
    pub(crate) path: PathBuf,
    /// The files it was made from.
    pub(crate) tree: PathBuf,
    /// The length of the file system in bytes.
    pub(crate) bytes: u64,
    /// The length of the volume in bytes.
    pub(crate) volume_bytes: u64,
    /// How many files are in it.
    pub(crate) files: usize,
}

/// Makes both images.
pub(crate) fn make(directory: &Path, seed: u64) -> Result<Vec<Image>> {
    let mut random = Random::new(seed);
    VOLUMES
        .into_iter()
        .map(|(volume, mib, volume_mib)| {
            let tree = directory.join(format!("{volume}.tree"));
            let files = plant(&tree, mib, &mut random)?;
            let path = directory.join(format!("{volume}.ext4"));
            let out = Command::new(tools::find("mkfs.ext4")?)
                .args(["-q", "-F", "-E", "root_owner=0:0", "-d"])
                .arg(&tree)
                .arg(&path)
                .arg(format!("{mib}M"))
                .output()?;
            if !out.status.success() {
                bail!("mkfs.ext4: {}", String::from_utf8_lossy(&out.stderr));
            }
            Ok(Image {
                volume,
                path,
                tree,
                bytes: mib << 20,
                volume_bytes: volume_mib << 20,
                files,
            })
        })
        .collect()
}

/// Files that fill about a third of the file system, in some directories.
fn plant(tree: &Path, mib: u64, random: &mut Random) -> Result<usize> {
    let mut left = mib * (1 << 20) / 3;
    let mut count = 0;
    while left > 0 {
        let folder = tree.join(format!("folder-{}", count % 7));
        fs::create_dir_all(&folder)?;
        let len = (random.below(200_000) + 1).min(left);
        let mut bytes = vec![0; usize::try_from(len)?];
        random.fill(&mut bytes);
        fs::write(folder.join(format!("file-{count:04}")), bytes).context("cannot write a file")?;
        left -= len;
        count += 1;
    }
    Ok(count)
}
