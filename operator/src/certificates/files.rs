//! Certificates as files that change all at once.
//!
//! ```text
//!   DIR/ca.crt  ─► ..data/ca.crt       links, made once
//!   DIR/tls.crt ─► ..data/tls.crt
//!   DIR/tls.key ─► ..data/tls.key
//!   DIR/..data  ─► ..1800000000-1      one link that is replaced by a rename: the whole set changes
//! ```

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::Path;

/// The files of a set.
const NAMES: [&str; 3] = ["ca.crt", "tls.crt", "tls.key"];
const CURRENT: &str = "..data";

/// A set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Files {
    /// Whom to trust.
    pub ca: String,
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

/// The set that is there; `None` if it is not whole.
pub fn read(dir: &Path) -> Option<Files> {
    let [ca, certificate, key] = NAMES.map(|name| fs::read_to_string(dir.join(name)).ok());
    Some(Files { ca: ca?, certificate: certificate?, key: key? })
}

/// Replaces the set.
pub fn write(dir: &Path, files: &Files) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let before = fs::read_link(dir.join(CURRENT)).ok();
    let count = (0..u32::MAX).map(|n| format!("..set-{n}"));
    let mut made = None;
    for name in count {
        match fs::DirBuilder::new().mode(0o700).create(dir.join(&name)) {
            Ok(()) => {
                made = Some(name);
                break;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    let made = made.ok_or_else(|| io::Error::other("no name is free for the certificates"))?;
    for (name, text) in NAMES.iter().zip([&files.ca, &files.certificate, &files.key]) {
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(dir.join(&made).join(name))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
    }
    let fresh = dir.join("..data.new");
    let _stale = fs::remove_file(&fresh);
    symlink(&made, &fresh)?;
    fs::rename(&fresh, dir.join(CURRENT))?;
    for name in NAMES {
        let link = dir.join(name);
        let target = Path::new(CURRENT).join(name);
        if fs::read_link(&link).ok().as_ref() != Some(&target) {
            let _plain_file = fs::remove_file(&link);
            symlink(&target, &link)?;
        }
    }
    // Nobody opens it by this name any more; and what a killed predecessor left goes too.
    for entry in fs::read_dir(dir)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let old = before.as_deref() == Some(Path::new(&name));
        if name.starts_with("..set-") && name != made || old {
            let _kept = fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_set_replaces_another_whole_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let set = |n: u32| Files {
            ca: format!("ca {n}"),
            certificate: format!("certificate {n}"),
            key: format!("key {n}"),
        };
        assert_eq!(read(dir.path()), None);
        for n in 0..3 {
            write(dir.path(), &set(n)).unwrap();
            assert_eq!(read(dir.path()), Some(set(n)));
        }
        // Three links, the link to the set, the set.
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 5);
        let mode = fs::metadata(dir.path().join("tls.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
