//! Our pair with one volume, as benches use it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use understudy_core::engine::api::{ByteLen, ExportKind, Policy};

use crate::harness::engines::{Carrier, Engines, EnginesOptions};
use crate::harness::nbd_address::Export;
use crate::harness::scrape::scrape;

/// Two engines that replicate, and the primary's export.
pub(super) struct Ours {
    pub(super) pair: Engines,
    pub(super) export: Export,
}

impl Ours {
    /// Starts them in `directory`, with further flags for both.
    pub(super) fn start(
        directory: &Path,
        size: u64,
        policy: Policy,
        carrier: Carrier,
        flags: &[String],
    ) -> Result<Self> {
        std::fs::create_dir_all(directory)?;
        let options = EnginesOptions {
            carrier,
            flags: flags.to_vec(),
            ..EnginesOptions::new(&[size], policy)
        };
        let pair = Engines::start(directory, &options)?;
        let volume = pair.members[0].volume.clone();
        let export = pair.primary.export(&pair.group, &volume, ExportKind::Primary)?;
        Ok(Self { pair, export })
    }

    /// The same with a checkpoint each 100 ms, undo space for all of it, and at most so many regions that stay
    /// marked in the intent log for speed.
    pub(super) fn marking(directory: &Path, size: u64, most: u64) -> Result<Self> {
        std::fs::create_dir_all(directory)?;
        let file = directory.join("engine.yaml");
        std::fs::write(&file, format!("limits:\n  intentMib: {most}\n"))?;
        let policy = Policy {
            checkpoint_interval: Some(Duration::from_millis(100)),
            undo_limit: Some(ByteLen(size)),
            ..Policy::default()
        };
        let flags = ["--config".to_owned(), file.display().to_string()];
        Self::start(directory, size, policy, Carrier::Tcp, &flags)
    }

    /// A figure of the group, as the primary counts it, by the name of its metric.
    pub(super) fn figure(&self, name: &str) -> Result<f64> {
        let figures = scrape(&self.pair.primary.metrics_address(), None)?;
        let series = format!("understudy_{name}{{group=\"{}\"}}", self.pair.group);
        figures.get(&series).copied().with_context(|| format!("no {series}"))
    }
}
