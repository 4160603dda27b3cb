//! The data-plane threads of an engine.
//!
//! ```text
//!   tokio side ── run(shard, |env| async ..) ──► Shard 0   groups a, d
//!                                           ├──► Shard 1   groups b
//!                                           └──► Shard 2   group c
//! ```
//!
//! A group is placed once, where the fewest volumes are, and stays until the engine restarts.

use std::io;

use super::api::Refusal;
use super::config::{Config, Io};
use super::error::EngineError;
use crate::runtime::{IoChoice, Shard, ShardConfig, ShardEnv, ShardHandle};
use crate::tls::Tls;

/// One of an engine's shards.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct ShardId(usize);

/// All shards of an engine.
#[derive(Debug)]
pub(crate) struct Shards(Vec<ShardHandle>);

impl Shards {
    /// Starts as many as the configuration says.
    pub(crate) fn start(engine: &Config, tls: Option<Tls>) -> io::Result<Self> {
        let plaintext = engine.insecure_plaintext;
        let intent_hot = engine.limits.intent_mib;
        let mut config = ShardConfig { tls, plaintext, intent_hot, ..ShardConfig::default() };
        match engine.io {
            // Leaves the choice to the environment, and else to a probe.
            Io::Auto => {}
            Io::Uring => config.io = IoChoice::Ring,
            Io::Pool => config.io = IoChoice::Threads,
        }
        let start = |i| Shard::start(&format!("shard-{i}"), config.clone());
        (0..engine.shards).map(start).collect::<io::Result<_>>().map(Self)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.0.len()).map(ShardId)
    }

    /// The n-th, counted round and round.
    pub(crate) fn round_robin(&self, n: usize) -> ShardId {
        ShardId(n % self.0.len().max(1))
    }

    /// The one with the least load, given the load of some.
    pub(crate) fn least_loaded(&self, loads: impl Iterator<Item = (ShardId, usize)>) -> ShardId {
        let mut sums = vec![0; self.0.len()];
        for (shard, load) in loads {
            if let Some(sum) = sums.get_mut(shard.0) {
                *sum += load;
            }
        }
        ShardId(sums.iter().enumerate().min_by_key(|(_, sum)| **sum).map_or(0, |(i, _)| i))
    }

    /// What carries their requests, for the log.
    pub(crate) fn io(&self) -> String {
        self.0.first().map_or_else(String::new, |s| format!("{:?}", s.io()))
    }

    /// Runs what `make` returns on a shard. It runs on if this future is dropped.
    pub(crate) async fn run<T, F, Fut>(&self, shard: ShardId, make: F) -> Result<T, EngineError>
    where
        T: Send + 'static,
        F: FnOnce(ShardEnv) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, EngineError>> + 'static,
    {
        let gone = || {
            EngineError::new(Refusal::Internal, "a data-plane thread has ended: restart the engine")
        };
        let handle = self.0.get(shard.0).ok_or_else(gone)?;
        handle.run(make).await.map_err(|_| gone())?
    }

    /// Ends all of them and waits. Blocks.
    pub(crate) fn stop(&self) {
        for shard in &self.0 {
            shard.stop();
        }
        for shard in &self.0 {
            shard.join();
        }
    }
}
