//! The configuration file: YAML whose keys are the flags' names.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{ConfigError, Limits};

/// The largest file read, in bytes: a device or a core dump is none.
const FILE_MAX: u64 = 64 << 10;

#[derive(Deserialize, Default, Debug)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(super) struct File {
    pub(super) pool: Option<PathBuf>,
    pub(super) node: Option<String>,
    pub(super) api: Option<Vec<String>>,
    pub(super) nbd: Option<Vec<String>>,
    pub(super) metrics: Option<Vec<String>>,
    pub(super) metrics_plaintext: Option<bool>,
    pub(super) link: Option<String>,
    pub(super) tls: Option<PathBuf>,
    pub(super) insecure_plaintext: Option<bool>,
    pub(super) shards: Option<usize>,
    pub(super) io: Option<String>,
    pub(super) log_format: Option<String>,
    pub(super) log_level: Option<String>,
    pub(super) limits: Option<FileLimits>,
}

#[derive(Deserialize, Default, Debug)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(super) struct FileLimits {
    nbd_connections: Option<usize>,
    nbd_connections_per_listener: Option<usize>,
    link_connections: Option<usize>,
    api_connections: Option<usize>,
    groups: Option<usize>,
    intent_mib: Option<usize>,
}

impl From<FileLimits> for Limits {
    fn from(f: FileLimits) -> Self {
        let d = Self::default();
        Self {
            nbd_connections: f.nbd_connections.unwrap_or(d.nbd_connections),
            nbd_connections_per_listener: f
                .nbd_connections_per_listener
                .unwrap_or(d.nbd_connections_per_listener),
            link_connections: f.link_connections.unwrap_or(d.link_connections),
            api_connections: f.api_connections.unwrap_or(d.api_connections),
            groups: f.groups.unwrap_or(d.groups),
            intent_mib: f.intent_mib.unwrap_or(d.intent_mib),
        }
    }
}

pub(super) fn read(path: &Path) -> Result<File, ConfigError> {
    use std::io::Read;
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let n = file.take(FILE_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if n > crate::units::usize_of(FILE_MAX) {
        let reason = format!("it is longer than {FILE_MAX} bytes");
        return Err(ConfigError::Refused { path: path.to_owned(), reason });
    }
    parse(path, &text)
}

pub(super) fn parse(path: &Path, text: &str) -> Result<File, ConfigError> {
    serde_yaml::from_str(text)
        .map_err(|e| ConfigError::Refused { path: path.to_owned(), reason: e.to_string() })
}
