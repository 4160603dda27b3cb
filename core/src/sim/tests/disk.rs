//! Requests of disks and directories.

use super::super::{Failure, Held, Operation, Sim};
use super::{all, small_disk};
use crate::disk::{Dir as _, Disk as _, ErrorKind, Space};
use crate::runtime::{Buf, Data};
use crate::units::{ByteOffset, ByteRange};

#[test]
fn a_write_is_read_back_and_zeroes_deallocate_only_when_punched() {
    let sim = Sim::new(1);
    sim.block_on(async {
        let (_, disk) = small_disk(&sim).await;
        disk.writev(ByteOffset(100), vec![Data::copy_of(b"abc"), Data::copy_of(&[7; 9000])])
            .await
            .unwrap();
        let (buf, r) = disk.read(ByteOffset(99), Buf::new(6)).await;
        r.unwrap();
        assert_eq!(&*buf, [0, b'a', b'b', b'c', 7, 7]);
        disk.write_zeroes(ByteRange::new(4096, 8192), true).await.unwrap();
        disk.write_zeroes(ByteRange::new(0, 4096), false).await.unwrap();
        let expected = [
            (ByteRange::new(0, 4096), true),
            (ByteRange::new(4096, 8192), false),
            (ByteRange::new(8192, 12288), true),
            (ByteRange::new(12288, 65536), false),
        ];
        assert_eq!(disk.allocation(all()).await.unwrap(), expected);
        assert_eq!(disk.peek(ByteRange::new(0, 8192), Held::Volatile), vec![0; 8192]);
        assert_eq!(disk.peek(ByteRange::new(9000, 9001), Held::Volatile), [7]);
        assert_eq!(disk.snapshot_content(Held::Durable), vec![0; 65536]);
    });
}

#[test]
fn overlapping_writes_in_flight_take_effect_in_either_order_and_sometimes_in_halves() {
    let mut seen = [0; 3];
    for seed in 0..300 {
        let sim = Sim::new(seed);
        let content = sim.block_on(async {
            let (_, disk) = small_disk(&sim).await;
            let first = disk.write(ByteOffset(0), Data::copy_of(&[1; 4096]));
            let second = disk.write(ByteOffset(0), Data::copy_of(&[2; 4096]));
            first.await.unwrap();
            second.await.unwrap();
            disk.peek(ByteRange::new(0, 4096), Held::Volatile)
        });
        let ones = content.iter().copied().map(usize::from).filter(|b| *b == 1).sum::<usize>();
        assert!(content.iter().all(|b| *b == 1 || *b == 2));
        seen[if ones == 4096 { 0 } else { 1 + usize::from(ones > 0) }] += 1;
    }
    assert!(seen.iter().all(|n| *n > 5), "{seen:?}");
}

#[test]
fn a_read_beside_a_write_may_see_half_of_it() {
    let torn = (0..500).filter(|seed| {
        let sim = Sim::new(*seed);
        sim.block_on(async {
            let (_, disk) = small_disk(&sim).await;
            let write = disk.write(ByteOffset(0), Data::copy_of(&[1; 4096]));
            let (buf, r) = disk.read(ByteOffset(0), Buf::new(4096)).await;
            r.unwrap();
            write.await.unwrap();
            buf.contains(&0) && buf.contains(&1)
        })
    });
    assert!(torn.count() > 5);
}

#[test]
fn requests_that_are_not_aligned_or_reach_beyond_the_end_are_refused() {
    let sim = Sim::new(1);
    sim.block_on(async {
        let host = sim.node("a");
        host.set_alignment(512);
        let disk = host.dir("d").create("f", 65536, Space::Written).await.unwrap();
        assert_eq!(disk.alignment(), 512);
        let kind = |r: crate::disk::Result<()>| r.unwrap_err().kind();
        assert_eq!(kind(disk.write(ByteOffset(100), Data::zeroes(512)).await), ErrorKind::Invalid);
        assert_eq!(kind(disk.write(ByteOffset(512), Data::zeroes(100)).await), ErrorKind::Invalid);
        assert_eq!(
            kind(disk.write(ByteOffset(65536), Data::zeroes(512)).await),
            ErrorKind::Invalid
        );
        assert_eq!(
            kind(disk.write(ByteOffset(u64::MAX), Data::zeroes(512)).await),
            ErrorKind::Invalid
        );
        assert_eq!(kind(disk.read(ByteOffset(1), Buf::new(512)).await.1), ErrorKind::Invalid);
        disk.write(ByteOffset(65024), Data::zeroes(512)).await.unwrap();
        assert_eq!(disk.allocation(all()).await.unwrap(), [(all(), true)]);
    });
}

#[test]
fn faults_strike_the_request_they_were_asked_for() {
    let sim = Sim::new(1);
    sim.block_on(async {
        let (host, disk) = small_disk(&sim).await;
        host.inject_kind("d/f", Operation::Write, Failure::Nth(1), ErrorKind::NoSpace);
        disk.write(ByteOffset(0), Data::zeroes(10)).await.unwrap();
        let error = disk.write(ByteOffset(0), Data::zeroes(10)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        disk.write(ByteOffset(0), Data::zeroes(10)).await.unwrap();
        host.inject("d/f", Operation::Read, Failure::Always);
        assert_eq!(
            disk.read(ByteOffset(0), Buf::new(1)).await.1.unwrap_err().kind(),
            ErrorKind::Io
        );
        host.inject("d/g", Operation::Create, Failure::Always);
        assert!(host.dir("d").create("g", 1, Space::Sparse).await.is_err());
    });
}

#[test]
fn a_failed_flush_poisons_until_the_file_is_opened_anew_and_what_it_covered_may_be_lost() {
    let (mut kept, mut lost, mut evicted) = (0, 0, 0);
    for seed in 0..200 {
        let sim = Sim::new(seed);
        sim.block_on(async {
            let (host, disk) = small_disk(&sim).await;
            disk.write(ByteOffset(0), Data::copy_of(&[1; 512])).await.unwrap();
            host.inject("d/f", Operation::Flush, Failure::Nth(0));
            assert_eq!(disk.flush().await.unwrap_err().kind(), ErrorKind::Io);
            assert_eq!(disk.flush().await.unwrap_err().kind(), ErrorKind::Poisoned);
            assert_eq!(
                disk.read(ByteOffset(0), Buf::new(1)).await.1.unwrap_err().kind(),
                ErrorKind::Poisoned
            );
            drop(disk);
            let disk = host.dir("d").open("f").await.unwrap().unwrap();
            disk.flush().await.unwrap();
            let durable = disk.peek(ByteRange::new(0, 1), Held::Durable)[0];
            let volatile = disk.peek(ByteRange::new(0, 1), Held::Volatile)[0];
            *if durable == 1 {
                &mut kept
            } else if volatile == 1 {
                &mut lost
            } else {
                &mut evicted
            } += 1;
        });
    }
    assert!(kept > 10 && lost > 10 && evicted > 10, "{kept} {lost} {evicted}");
}

#[test]
fn an_open_file_is_locked_until_its_last_clone_is_dropped() {
    let sim = Sim::new(1);
    sim.block_on(async {
        let (host, disk) = small_disk(&sim).await;
        let dir = host.dir("d");
        let clone = disk.clone();
        drop(disk);
        assert_eq!(dir.open("f").await.unwrap_err().kind(), ErrorKind::Locked);
        drop(clone);
        assert!(dir.open("f").await.unwrap().is_some());
        assert!(dir.open("g").await.unwrap().is_none());
    });
}

#[test]
fn files_are_listed_renamed_grown_and_removed() {
    let sim = Sim::new(1);
    sim.block_on(async {
        let host = sim.node("a");
        let dir = host.dir("d");
        for name in ["b", "a", "c"] {
            dir.create(name, 512, Space::Sparse).await.unwrap();
        }
        assert!(dir.create("a", 512, Space::Sparse).await.is_err());
        let disk = dir.open("a").await.unwrap().unwrap();
        disk.write(ByteOffset(0), Data::copy_of(b"a")).await.unwrap();
        dir.rename("a", "b").await.unwrap();
        assert_eq!(dir.list().await.unwrap(), ["b", "c"]);
        dir.grow("b", 1024).await.unwrap();
        assert_eq!(disk.len(), 512);
        drop(disk);
        let disk = dir.open("b").await.unwrap().unwrap();
        assert_eq!(disk.len(), 1024);
        assert_eq!(&*disk.read(ByteOffset(0), Buf::new(1)).await.0, b"a");
        dir.remove("b").await.unwrap();
        dir.remove("b").await.unwrap();
        assert_eq!(dir.list().await.unwrap(), ["c"]);
        assert!(host.dir("e").list().await.unwrap().is_empty());
    });
}
