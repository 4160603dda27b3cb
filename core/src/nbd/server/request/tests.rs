//! Which requests are refused, and with which number.

use super::*;
use crate::disk::Memory;
use crate::nbd::Export;

fn session(align: u64, read_only: bool) -> Session<Memory> {
    let mut export = Export::new(Memory::new(1 << 20, 0));
    export.blocks = crate::nbd::BlockSizes::of(align);
    export.read_only = read_only;
    Session { export, name: "vol".into(), structured: true, context: Some(1) }
}

fn judge(s: &Session<Memory>, command: u16, flags: u16, offset: u64, length: u32) -> u32 {
    check(s, &Request { flags, command, cookie: 0, offset, length }).map_or_else(|r| r.errno, |_| 0)
}

#[test]
fn requests_beyond_the_end_are_refused_as_the_protocol_says() {
    let s = session(1, false);
    assert_eq!(judge(&s, command::READ, 0, (1 << 20) - 1, 1), 0);
    assert_eq!(judge(&s, command::READ, 0, 1 << 20, 1), EINVAL);
    assert_eq!(judge(&s, command::READ, 0, u64::MAX, 2), EINVAL);
    assert_eq!(judge(&s, command::WRITE, 0, 1 << 20, 1), ENOSPC);
    assert_eq!(judge(&s, command::WRITE_ZEROES, 0, 0, u32::MAX), ENOSPC);
    assert_eq!(judge(&s, command::TRIM, 0, u64::MAX, u32::MAX), ENOSPC);
}

#[test]
fn requests_that_are_not_aligned_are_refused_where_the_disk_needs_it() {
    for (offset, length) in [(0, 511), (1, 512), (513, 1)] {
        assert_eq!(judge(&session(512, false), command::READ, 0, offset, length), EINVAL);
        assert_eq!(judge(&session(1, false), command::READ, 0, offset, length), 0);
    }
}

#[test]
fn a_read_only_export_refuses_every_change() {
    let s = session(1, true);
    for command in [command::WRITE, command::WRITE_ZEROES, command::TRIM] {
        assert_eq!(judge(&s, command, 0, 0, 512), EPERM);
    }
    for command in [command::READ, command::FLUSH, command::BLOCK_STATUS] {
        assert_eq!(judge(&s, command, 0, 0, 512), 0);
    }
}

#[test]
fn unknown_commands_and_flags_and_absurd_lengths_are_refused() {
    let mut s = session(1, false);
    assert_eq!(judge(&s, 5, 0, 0, 512), EINVAL, "CACHE is not advertised");
    assert_eq!(judge(&s, command::WRITE_ZEROES, 16, 0, 512), EINVAL, "FAST_ZERO neither");
    assert_eq!(judge(&s, command::WRITE, command_flag::NO_HOLE, 0, 512), EINVAL);
    assert_eq!(judge(&s, command::READ, command_flag::DONT_FRAGMENT, 0, 512), 0);
    s.structured = false;
    assert_eq!(judge(&s, command::READ, command_flag::DONT_FRAGMENT, 0, 512), EINVAL);
    s.export.disk = Memory::new(u64::from(REQUEST_MAX) + 512, 0);
    assert_eq!(judge(&s, command::READ, 0, 0, REQUEST_MAX), 0);
    assert_eq!(judge(&s, command::READ, 0, 0, REQUEST_MAX + 1), EINVAL);
    s.context = None;
    assert_eq!(judge(&s, command::BLOCK_STATUS, 0, 0, 512), EINVAL);
}

#[test]
fn extents_begin_where_asked_and_neighbours_of_one_state_are_one() {
    use crate::nbd::test_disk::slow;
    use crate::nbd::test_stream::World;
    let world = World::default();
    let disk = slow(&world, 1 << 20, 0);
    disk.holes(&[ByteRange::new(4096, 8192), ByteRange::new(8192, 12288)]);
    let ask = |start, end, one| {
        let disk = disk.clone();
        let found = world.run(async move { status(&disk, ByteRange::new(start, end), one).await });
        found.unwrap().iter().map(|e| (e.length, e.flags)).collect::<Vec<_>>()
    };
    assert_eq!(ask(0, 16384, false), [(4096, 0), (8192, 3), (4096, 0)]);
    assert_eq!(ask(0, 16384, true), [(4096, 0)]);
    assert_eq!(ask(5000, 6000, false), [(1000, 3)]);
}
