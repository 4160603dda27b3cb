//! The shard over both backends: tasks, timers, other threads, sockets.

mod reactor;
mod shard;
mod socket;

use std::future::Future;

use super::{IoChoice, ShardConfig, ShardEnv, block_on};

/// Every backend this machine has.
pub(crate) fn backends() -> Vec<ShardConfig> {
    let config = |io| ShardConfig { io, ..ShardConfig::default() };
    let mut all = vec![config(IoChoice::Threads)];
    match block_on(&config(IoChoice::Ring), |_| async {}) {
        Ok(()) => all.push(config(IoChoice::Ring)),
        Err(e) => eprintln!("not tested with a ring: {e}"),
    }
    all
}

/// Runs the same future on each backend.
pub(crate) fn on_each<Fut: Future<Output = ()> + 'static>(make: impl Fn(ShardEnv) -> Fut) {
    for config in backends() {
        eprintln!("with {:?}", config.io);
        block_on(&config, &make).unwrap();
    }
}
