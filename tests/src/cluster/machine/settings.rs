//! Settings of the whole kernel that a kubelet changes; kept here, and put back at the end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// What is changed, and to what. The first three are what the kubelet sets itself.
const SETTINGS: [(&str, &str); 5] = [
    ("vm/overcommit_memory", "1"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("fs/inotify/max_user_instances", "1024"),
    ("fs/inotify/max_user_watches", "524288"),
];

fn path(setting: &str) -> PathBuf {
    Path::new("/proc/sys").join(setting)
}

/// Notes the settings as they are in `file`, unless an earlier note waits to be put back; then
/// changes them.
pub(super) fn change(file: &Path) -> Result<()> {
    if !file.exists() {
        let read =
            |setting: &str| std::fs::read_to_string(path(setting)).map(|v| v.trim().to_owned());
        let old: BTreeMap<&str, String> =
            SETTINGS.iter().filter_map(|(name, _)| Some((*name, read(name).ok()?))).collect();
        std::fs::write(file, serde_json::to_vec(&old)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    for (setting, value) in SETTINGS {
        let old = std::fs::read_to_string(path(setting)).unwrap_or_default();
        let [wanted, old] = [value, old.trim()].map(|v| v.parse::<u64>().unwrap_or(0));
        if setting.starts_with("fs/") && old >= wanted {
            continue;
        }
        // Some machines keep some of them to themselves; a kubelet copes.
        let _kept = std::fs::write(path(setting), value);
    }
    Ok(())
}

/// Puts back what `file` notes.
pub(super) fn put_back(file: &Path) -> Result<()> {
    let Ok(note) = std::fs::read(file) else { return Ok(()) };
    let old: BTreeMap<String, String> = serde_json::from_slice(&note)?;
    for (setting, value) in old {
        let _kept = std::fs::write(path(&setting), value);
    }
    Ok(std::fs::remove_file(file)?)
}
