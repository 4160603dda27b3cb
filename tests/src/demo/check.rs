//! Is what was promoted what the checkpoint held? Byte by byte, then as a file system.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::image::Image;
use super::stage::Stage;
use crate::harness::tools;

/// The most faults that are told of one volume.
const TOLD: usize = 3;

/// What each volume held at the checkpoint.
pub(crate) struct Expected {
    volumes: Vec<(&'static str, Vec<u8>)>,
}

impl Expected {
    /// Reads it from the primary; nobody writes now.
    pub(crate) fn read(stage: &Stage, images: &[Image]) -> Result<Self> {
        let volumes = images
            .iter()
            .map(|i| Ok((i.volume, stage.open(i.volume)?.read(0, i.volume_bytes)?)))
            .collect::<Result<_>>()?;
        Ok(Self { volumes })
    }
}

/// Compares every byte; each fault names volume and offset.
pub(crate) fn content(stage: &Stage, expected: &Expected, when: &str) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for (volume, want) in &expected.volumes {
        let len = u64::try_from(want.len())?;
        let got = stage.open(volume)?.read(0, len)?;
        let wrong: Vec<usize> = (0..want.len()).filter(|i| got.get(*i) != want.get(*i)).collect();
        for at in wrong.iter().take(TOLD) {
            faults.push(format!(
                "volume {volume}, byte {at}, {when}: {:#04x} instead of {:#04x}",
                got.get(*at).copied().unwrap_or_default(),
                want[*at]
            ));
        }
        if wrong.len() > TOLD {
            faults.push(format!("volume {volume}, {when}: {} wrong bytes in all", wrong.len()));
        }
    }
    Ok(faults)
}

/// e2fsck on what is served now, then every file against the one it was made from.
pub(crate) fn files(stage: &Stage, image: &Image, directory: &Path) -> Result<Vec<String>> {
    let copy = directory.join(format!("{}.promoted", image.volume));
    fs::write(&copy, stage.open(image.volume)?.read(0, image.bytes)?)?;
    let mut faults = Vec::new();
    let fsck = Command::new(tools::find("e2fsck")?).args(["-f", "-n"]).arg(&copy).output()?;
    if !fsck.status.success() {
        let words =
            String::from_utf8_lossy(&fsck.stdout).lines().take(4).collect::<Vec<_>>().join("; ");
        faults.push(format!(
            "volume {}: e2fsck finds the file system damaged: {words}",
            image.volume
        ));
    }
    let out = directory.join(format!("{}.files", image.volume));
    fs::create_dir_all(&out)?;
    // As another user than root it can't set owners; that is all it then complains about.
    let dump = format!("rdump / {}", out.display());
    Command::new(tools::find("debugfs")?).args(["-R", &dump]).arg(&copy).output()?;
    let mut compared = 0;
    compare(&image.tree, &out, &mut compared, &mut faults)?;
    if compared != image.files {
        faults.push(format!(
            "volume {}: {compared} of {} files are there",
            image.volume, image.files
        ));
    }
    fs::remove_file(&copy)?;
    fs::remove_dir_all(&out)?;
    Ok(faults)
}

fn compare(want: &Path, got: &Path, compared: &mut usize, faults: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(want).with_context(|| format!("cannot list {}", want.display()))? {
        let entry = entry?;
        let other = got.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            compare(&entry.path(), &other, compared, faults)?;
            continue;
        }
        match fs::read(&other) {
            Ok(bytes) if bytes == fs::read(entry.path())? => *compared += 1,
            Ok(_) => faults.push(format!("file {} has another content", other.display())),
            Err(e) => faults.push(format!("file {} can't be read: {e}", other.display())),
        }
    }
    Ok(())
}
