//! Sets of files good and bad, and who is let in where.

mod doors;
mod reload;

#[allow(unreachable_pub, reason = "it is public where the other tests have it from")]
#[path = "../../../../tests/src/harness/certs.rs"]
pub(crate) mod certs;

use std::path::Path;

use certs::Authority;

use super::{Identity, Tls};

/// A directory with a set of files for `identity`, and the set.
pub(crate) fn issued(authority: &Authority, identity: &str) -> (tempfile::TempDir, Tls) {
    let dir = tempfile::tempdir().unwrap();
    authority.issue(dir.path(), identity).unwrap();
    let tls = Tls::open(dir.path(), None).unwrap();
    (dir, tls)
}

fn refusal(dir: &Path, expected: Option<Identity>) -> String {
    Tls::open(dir, expected).unwrap_err().to_string()
}

#[test]
fn a_set_that_does_not_fit_together_is_refused_by_the_name_of_the_file() {
    let (authority, other) = (Authority::new().unwrap(), Authority::new().unwrap());
    let good = tempfile::tempdir().unwrap();
    authority.issue(good.path(), "engine/a").unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    other.issue(elsewhere.path(), "engine/a").unwrap();
    let take = |name: &str, from: &Path| {
        let dir = tempfile::tempdir().unwrap();
        for file in ["ca.crt", "tls.crt", "tls.key"] {
            let from = if file == name { from } else { good.path() };
            std::fs::copy(from.join(file), dir.path().join(file)).unwrap();
        }
        dir
    };
    let text = refusal(take("ca.crt", elsewhere.path()).path(), None);
    assert!(text.contains("tls.crt") && text.contains("authority"), "{text}");
    let text = refusal(take("tls.key", elsewhere.path()).path(), None);
    assert!(text.contains("tls.key") && text.contains("does not fit"), "{text}");
    for file in ["ca.crt", "tls.crt", "tls.key"] {
        let dir = take("none", elsewhere.path());
        std::fs::write(dir.path().join(file), "no PEM").unwrap();
        let text = refusal(dir.path(), None);
        assert!(text.contains(file) && text.contains("PEM"), "{text}");
        std::fs::remove_file(dir.path().join(file)).unwrap();
        let error = Tls::open(dir.path(), None).unwrap_err();
        assert!(error.is_absent && error.to_string().contains(file), "{error}");
    }
    let text = refusal(good.path(), Some(Identity::Engine("b".into())));
    assert!(text.contains("of engine/a, not of engine/b"), "{text}");
}

#[test]
fn an_expired_set_and_one_of_nobody_are_refused() {
    let authority = Authority::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    authority.issue_expired(dir.path(), "engine/a").unwrap();
    assert!(refusal(dir.path(), None).contains("expired"));
    authority.issue(dir.path(), "guest").unwrap();
    assert!(refusal(dir.path(), None).contains("is no identity"));
}
