//! New files: in use when they are good and settled, refused when they are not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::certs::Authority;
use super::issued;
use crate::tls::{Identity, Set, Tls};

/// The set that is in use once it is another than `old`, within the time that a change may take.
fn changed(tls: &Tls, old: &Arc<Set>, limit: Duration) -> Option<Arc<Set>> {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        let now = tls.current();
        if !Arc::ptr_eq(&now, old) {
            return Some(now);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    None
}

#[test]
fn new_files_come_into_use_and_bad_ones_leave_the_old_set() {
    let authority = Authority::new().unwrap();
    let (dir, tls) = issued(&authority, "engine/a");
    let first = tls.current();
    std::fs::write(dir.path().join("tls.crt"), "half a").unwrap();
    assert!(changed(&tls, &first, Duration::from_secs(5)).is_none());
    authority.issue(dir.path(), "operator").unwrap();
    let second = changed(&tls, &first, Duration::from_secs(10)).unwrap();
    assert_eq!(*second.identity(), Identity::Operator);
}

#[test]
fn files_that_come_late_are_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("later");
    let late = {
        let path = path.clone();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(400));
            Authority::new().unwrap().issue(&path, "engine/a").unwrap();
        })
    };
    Tls::open_within(&path, None, Duration::from_secs(20)).unwrap();
    late.join().unwrap();
    let never = dir.path().join("never");
    let error = Tls::open_within(&never, None, Duration::ZERO).unwrap_err().to_string();
    assert!(error.contains("ca.crt") && error.contains("tls.key"), "{error}");
}
