use std::cell::Cell;
use std::rc::Rc;

use super::{file, on_each};
use crate::disk::{Caching, Disk, ErrorKind, File};
use crate::runtime::{BUF_MAX, Buf, Data, Env};
use crate::units::{ByteOffset, ByteRange, usize_of};

const MIB: u64 = 1 << 20;

async fn read(disk: &File, at: u64, len: usize) -> Vec<u8> {
    let (buf, r) = disk.read(ByteOffset(at), Buf::new(len)).await;
    r.unwrap();
    buf.to_vec()
}

#[test]
fn what_was_written_is_read_back() {
    on_each(|env, dir, caching| async move {
        let disk = file(&env, &dir.join("d"), usize_of(8 * MIB), 1, caching).await;
        assert_eq!(disk.len(), 8 * MIB);
        // Small and large, one piece and many, eager: all in flight at once.
        let small = disk.write(ByteOffset(4096), Data::copy_of(&[2; 4096]));
        let large = disk.write(ByteOffset(MIB), Data::copy_of(&vec![3; BUF_MAX]));
        let pieces =
            (0..1500_u64).map(|i| Data::copy_of(&vec![u8::try_from(i % 200).unwrap(); 2048]));
        let many = disk.writev(ByteOffset(4 * MIB), pieces.collect());
        many.await.unwrap();
        large.await.unwrap();
        small.await.unwrap();
        disk.flush().await.unwrap();
        assert_eq!(
            read(&disk, 0, 12288).await,
            [vec![1; 4096], vec![2; 4096], vec![1; 4096]].concat()
        );
        assert!(read(&disk, MIB, BUF_MAX).await.iter().all(|b| *b == 3));
        let many = [
            read(&disk, 4 * MIB, BUF_MAX).await,
            read(&disk, 6 * MIB, 1500 * 2048 - BUF_MAX).await,
        ]
        .concat();
        assert!(
            many.chunks(2048)
                .enumerate()
                .all(|(i, c)| c.iter().all(|b| usize::from(*b) == i % 200))
        );
        assert!(read(&disk, 0, 0).await.is_empty());
    });
}

#[test]
fn memory_that_is_not_aligned_is_written_all_the_same() {
    on_each(|env, dir, caching| async move {
        let disk = file(&env, &dir.join("d"), usize_of(8 * MIB), 1, caching).await;
        let odd = Data::copy_of(&vec![7; 1000]);
        let bytes: Vec<u8> = (0..4096 * 600).map(|i: u32| u8::try_from(i % 253).unwrap()).collect();
        let cut: Vec<_> = bytes.chunks(999).map(Data::copy_of).collect();
        disk.write(ByteOffset(0), Data::copy_of(&bytes[..8192]).slice(1000..1000 + 4096))
            .await
            .unwrap();
        disk.writev(ByteOffset(MIB), cut).await.unwrap();
        disk.writev(ByteOffset(8192), vec![odd.slice(1..513), odd.slice(0..512)]).await.unwrap();
        assert_eq!(read(&disk, 0, 4096).await, bytes[1000..5096]);
        let back =
            [read(&disk, MIB, BUF_MAX).await, read(&disk, 3 * MIB, bytes.len() - BUF_MAX).await];
        assert!(back.concat() == bytes);
        assert_eq!(read(&disk, 8192, 1024).await, vec![7; 1024]);
    });
}

#[test]
fn requests_that_are_unaligned_or_beyond_the_end_are_refused_by_name() {
    on_each(|env, dir, caching| async move {
        let disk = file(&env, &dir.join("d"), 8192, 1, caching).await;
        let e = disk.write(ByteOffset(4096), Data::zeroes(8192)).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Invalid);
        assert!(format!("{e}").contains("d: write 4096+8192"), "{e}");
        assert!(disk.read(ByteOffset(u64::MAX), Buf::new(4096)).await.1.is_err());
        assert!(disk.write_zeroes(ByteRange::new(0, 8193), true).await.is_err());
        let odd = disk.write(ByteOffset(1), Data::zeroes(10)).await;
        if disk.is_direct() {
            assert!(disk.alignment() >= 512);
            assert_eq!(odd.unwrap_err().kind(), ErrorKind::Invalid);
        } else {
            assert_eq!(disk.alignment(), 1);
            odd.unwrap();
        }
    });
}

#[test]
fn zeroes_and_discards_read_as_zeroes_and_touch_nothing_else() {
    on_each(|env, dir, caching| async move {
        let disk = file(&env, &dir.join("d"), usize_of(32 * MIB), 1, caching).await;
        for (i, (len, punch)) in [
            (4096, false),
            (4096, true),
            (MIB, false),
            (MIB, true),
            (20 * MIB, false),
            (512, true),
            (20 * MIB, true),
        ]
        .into_iter()
        .enumerate()
        {
            let at = 8192 * (u64::try_from(i).unwrap() + 1);
            for n in 0..16 {
                disk.write(ByteOffset(n * 2 * MIB), Data::copy_of(&vec![1; BUF_MAX]))
                    .await
                    .unwrap();
            }
            let range = ByteRange::new(at, at + len);
            // Without what the file system can do, and with it.
            for can in [true, false] {
                disk.0.can_zero.set(can);
                disk.0.can_punch.set(can);
                disk.write_zeroes(range, punch).await.unwrap();
            }
            let (first, last) =
                (read(&disk, at, 512).await, read(&disk, at + len - 512, 512).await);
            assert_eq!((first, last), (vec![0; 512], vec![0; 512]));
            assert_eq!(read(&disk, at - 512, 512).await, vec![1; 512]);
            assert_eq!(read(&disk, at + len, 512).await, vec![1; 512]);
        }
        disk.write(ByteOffset(0), Data::copy_of(&vec![1; 4096])).await.unwrap();
        disk.0.can_punch.set(true);
        disk.discard(ByteRange::new(0, 4096)).await.unwrap();
        assert_eq!(read(&disk, 0, 4096).await, vec![0; 4096]);
    });
}

#[test]
fn allocation_covers_the_range_and_what_it_calls_free_reads_as_zeroes() {
    on_each(|env, dir, caching| async move {
        let path = dir.join("d");
        std::fs::File::create(&path).unwrap().set_len(16 * MIB).unwrap();
        let disk = File::open(&env, &path, caching).await.unwrap();
        disk.write(ByteOffset(4 * MIB), Data::copy_of(&vec![1; 65536])).await.unwrap();
        disk.flush().await.unwrap();
        let parts = disk.allocation(ByteRange::new(4096, 16 * MIB)).await.unwrap();
        let mut at = 4096;
        for (part, _) in &parts {
            assert_eq!(part.start, at);
            at = part.end;
        }
        assert_eq!(at, 16 * MIB);
        let written = ByteRange::new(4 * MIB, 4 * MIB + 65536);
        assert!(parts.iter().all(|(p, allocated)| *allocated || !p.overlaps(written)));
        assert!(parts.iter().any(|(_, allocated)| !allocated));
    });
}

#[test]
fn requests_whose_futures_are_dropped_still_happen_and_keep_their_buffers() {
    on_each(|env, dir, caching| async move {
        let disk = file(&env, &dir.join("d"), usize_of(4 * MIB), 1, caching).await;
        for n in 0..64 {
            drop(disk.write(ByteOffset(n * 65536), Data::copy_of(&vec![9; 65536])));
            drop(disk.read(ByteOffset(n * 65536), Buf::new(65536)));
        }
        drop(disk.flush());
        // Buffers that the kernel still filled would show here.
        for _ in 0..50 {
            let mut b = Buf::new(65536);
            b.fill(3);
            crate::runtime::yield_now().await;
            assert!(b.iter().all(|x| *x == 3));
        }
        disk.flush().await.unwrap();
        env.sleep(std::time::Duration::from_millis(100)).await;
        assert!(read(&disk, 0, BUF_MAX).await.iter().all(|b| *b == 9));
    });
}

#[test]
fn a_failed_flush_poisons_the_disk_even_if_nobody_waited_for_it() {
    on_each(|env, dir, caching| async move {
        let good = file(&env, &dir.join("d"), 8192, 1, caching).await;
        for waited in [true, false] {
            // fdatasync of a socket is refused: the fault of a device, as seen from here.
            let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
            let opened = crate::disk::geometry::Opened {
                fd: socket.into(),
                len: 8192,
                align: 1,
                memory_align: 1,
                direct: false,
                in_memory: false,
            };
            let disk = File::new(&env, dir.join("bad"), opened);
            if waited {
                let (first, second) = (disk.flush(), disk.flush());
                assert_eq!(first.await.unwrap_err().kind(), ErrorKind::Io);
                assert_eq!(second.await.unwrap_err().kind(), ErrorKind::Poisoned);
            } else {
                drop(disk.flush());
                env.sleep(std::time::Duration::from_millis(30)).await;
            }
            let e = disk.write(ByteOffset(0), Data::zeroes(512)).await.unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Poisoned);
            assert!(e.to_string().contains("bad"), "{e}");
            assert_eq!(
                disk.read(ByteOffset(0), Buf::new(512)).await.1.unwrap_err().kind(),
                ErrorKind::Poisoned
            );
            assert_eq!(disk.flush().await.unwrap_err().kind(), ErrorKind::Poisoned);
            assert!(disk.discard(ByteRange::new(0, 512)).await.is_err());
        }
        good.flush().await.unwrap();
    });
}

#[test]
fn flushes_that_come_together_share_one() {
    on_each(|env, dir, caching| async move {
        let disk = file(&env, &dir.join("d"), 8192, 1, caching).await;
        let done = Rc::new(Cell::new(0));
        let tasks: Vec<_> = (0..20)
            .map(|_| {
                let (disk, done) = (disk.clone(), done.clone());
                env.spawn("flush", async move {
                    disk.flush().await.unwrap();
                    done.set(done.get() + 1);
                })
            })
            .collect();
        for t in tasks {
            t.join().await;
        }
        assert_eq!(done.get(), 20);
        drop(disk.flush());
        disk.flush().await.unwrap();
    });
}

#[test]
fn a_file_is_locked_until_its_last_clone_is_dropped() {
    let config = crate::runtime::ShardConfig::default();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d");
    crate::runtime::block_on(&config, |env| async move {
        let disk = file(&env, &path, 8192, 1, Caching::Direct).await;
        let again = File::open(&env, &path, Caching::Direct).await.unwrap_err();
        assert_eq!(again.kind(), ErrorKind::Locked);
        // Freed while the other one tries.
        let clone = disk.clone();
        drop(disk);
        let env2 = env.clone();
        env.spawn("free", async move {
            env2.sleep(std::time::Duration::from_millis(200)).await;
            drop(clone);
        });
        File::open(&env, &path, Caching::Direct).await.unwrap();
        let e =
            File::open(&env, std::path::Path::new("/dev/null"), Caching::Direct).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Invalid);
    })
    .unwrap();
}
