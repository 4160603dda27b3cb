//! Figures of a pair's primary, by the names of its metrics.

use anyhow::{Context, Result};

use crate::harness::engines::Engines;
use crate::harness::scrape::scrape;

/// A figure of the pair's group, as the primary counts it.
pub(super) fn figure(pair: &Engines, name: &str) -> Result<f64> {
    let figures = scrape(&pair.primary.metrics_address(), None)?;
    let series = format!("understudy_{name}{{group=\"{}\"}}", pair.group);
    figures.get(&series).copied().with_context(|| format!("no {series}"))
}
