//! T3: the CSI driver's programs with a real API server, a real engine over TLS, and real devices.
//!
//! ```text
//!   sanity    csi-sanity, the interface's own test; what it leaves out is a capability that is not advertised
//!   pods      what that does not ask: growth, a killed plugin, the next pod
//!   rounds    a volume's whole life, again and again: nothing is left
//!   kubelet   the calls, as sidecars and kubelet make them
//! ```

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

mod kubelet;
mod pods;
mod rounds;
mod sanity;

use std::path::Path;

use understudy_tests::cluster::{Bench, programs};
use understudy_tests::harness::attach::possible;
use understudy_tests::harness::csi::Driver;
use understudy_tests::harness::tools;

pub(crate) const MIB: i64 = 1 << 20;

/// The driver in a directory of its own, or `None` after saying what is skipped and why.
pub(crate) fn driver(test: &str) -> Option<(tempfile::TempDir, Bench, Driver)> {
    let can = programs::require(test, &["etcd", "kube-apiserver", "kubectl", "csi-sanity"])
        && possible(test)
        && tools::require(test, ["mkfs.ext4", "resize2fs"]).is_some();
    if !can {
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench::start().unwrap();
    let driver = Driver::start(directory.path(), &bench).unwrap();
    Some((directory, bench, driver))
}

/// Whether anything of ours is still there.
pub(crate) fn assert_nothing_is_left(directory: &Path, bench: &Bench, driver: &Driver) {
    assert_eq!(driver.attachd.list().unwrap(), []);
    // A connection that nobody served for minutes was given up by the engine: the next call has a new one.
    let status = driver.engine.status().or_else(|_| driver.engine.status());
    assert_eq!(status.unwrap().replicas, []);
    let volumes = bench.kubectl().unwrap().run(["get", "rvol", "-o", "name"]).unwrap();
    assert_eq!(volumes.trim(), "");
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let ours = directory.display().to_string();
    let mounted: Vec<_> = table.lines().filter(|line| line.contains(&ours)).collect();
    assert!(mounted.iter().all(|line| line.contains(" - fuse ")), "still mounted: {mounted:?}");
}
