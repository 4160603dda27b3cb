//! A pair that replicates over TLS, and its disks over NBD with TLS.

use understudy_core::engine::api::ExportKind;

use super::{MIB, byte_at, export, issued, pair, write_and_read};

/// Write, checkpoint, write, lose the primary, promote: all over TLS.
fn replicates_and_fails_over(flags: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let mut pair = pair(directory.path(), flags);
    let (_dir, client) = issued(pair.authority().unwrap(), "engine/a");
    let (a, b) = (pair.primary.secure_nbd().unwrap(), pair.secondary.secure_nbd().unwrap());
    let primary = export(&pair, &pair.primary, ExportKind::Primary);
    write_and_read(&a, &primary, &client, MIB, 0x22);
    pair.checkpoint().unwrap();
    write_and_read(&a, &primary, &client, MIB, 0x33);
    pair.quiesce().unwrap();
    let view = export(&pair, &pair.secondary, ExportKind::View);
    assert_eq!(byte_at(&b, &view, &client, MIB), 0x22);
    pair.primary.kill();
    pair.failover(false).unwrap();
    pair.wait_for_commit().unwrap();
    let promoted = export(&pair, &pair.secondary, ExportKind::Primary);
    assert_eq!(byte_at(&b, &promoted, &client, MIB), 0x22);
    write_and_read(&b, &promoted, &client, 0, 0x44);
}

#[test]
fn two_engines_replicate_and_fail_over_on_one_shard() {
    replicates_and_fails_over(&["--shards", "1"]);
}

#[test]
fn streams_move_between_shards_with_their_tls() {
    replicates_and_fails_over(&["--shards", "3"]);
}

#[test]
fn both_ends_find_each_other_again_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut pair = pair(directory.path(), &["--io", "pool"]);
    let (_dir, client) = issued(pair.authority().unwrap(), "engine/x");
    pair.secondary.restart().unwrap();
    pair.primary.restart().unwrap();
    let primary = export(&pair, &pair.primary, ExportKind::Primary);
    write_and_read(&pair.primary.secure_nbd().unwrap(), &primary, &client, 0, 0x55);
    pair.checkpoint().unwrap();
}
