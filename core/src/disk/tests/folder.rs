use super::on_each;
use crate::disk::{Caching, Dir, Disk, ErrorKind, Folder, Space};
use crate::runtime::{BUF_MAX, Buf, Data, Env};
use crate::units::{ByteOffset, ByteRange};

const MIB: u64 = 1 << 20;

#[test]
fn files_are_made_listed_renamed_grown_and_removed() {
    on_each(|env, path, caching| async move {
        let dir = Folder::open(&env, &path.join("pool/groups"), true, caching).await.unwrap();
        let disk = dir.create("b", MIB, Space::Sparse).await.unwrap();
        assert_eq!(disk.len(), MIB);
        assert!(dir.create("b", MIB, Space::Sparse).await.is_err());
        drop(dir.create("a", 8192, Space::Written).await.unwrap());
        dir.folder("inner").await.unwrap();
        std::fs::write(path.join("pool/groups/.half.new"), "left behind by a crash").unwrap();
        assert_eq!(dir.list().await.unwrap(), ["a", "b"]);
        assert_eq!(dir.folders().await.unwrap(), ["inner"]);
        assert!(dir.open("none").await.unwrap().is_none());
        drop(dir.create("half", 4096, Space::Sparse).await.unwrap());

        drop(disk);
        dir.grow("b", 2 * MIB).await.unwrap();
        assert!(dir.grow("b", MIB).await.is_err());
        let disk = dir.open("b").await.unwrap().unwrap();
        assert_eq!(disk.len(), 2 * MIB);
        drop(disk);
        dir.rename("b", "a").await.unwrap();
        assert_eq!(dir.open("a").await.unwrap().unwrap().len(), 2 * MIB);
        dir.remove("a").await.unwrap();
        dir.remove("a").await.unwrap();
        assert_eq!(dir.list().await.unwrap(), ["half"]);
        dir.remove_folder("inner").await.unwrap();
        dir.remove_folder("inner").await.unwrap();
        assert!(dir.folders().await.unwrap().is_empty());
    });
}

#[test]
fn names_that_leave_the_folder_are_refused() {
    on_each(|env, path, caching| async move {
        let dir = Folder::open(&env, &path, false, caching).await.unwrap();
        for bad in ["", ".", "..", ".hidden", "a/b", "/etc/passwd", "a\0b", &"x".repeat(241)] {
            assert_eq!(
                dir.create(bad, 4096, Space::Sparse).await.unwrap_err().kind(),
                ErrorKind::Invalid
            );
            assert!(dir.open(bad).await.is_err() && dir.remove(bad).await.is_err());
            assert!(dir.rename("a", bad).await.is_err() && dir.grow(bad, 1).await.is_err());
        }
        assert!(Folder::open(&env, &path.join("none"), false, caching).await.is_err());
    });
}

#[test]
fn a_written_file_is_in_use_while_it_is_filled_and_loses_nothing() {
    on_each(|env, path, caching| async move {
        let dir = Folder::open(&env, &path, false, caching).await.unwrap();
        let len = 24 * MIB;
        let disk = dir.create("log", len, Space::Written).await.unwrap();
        // Everywhere, while the fill is at work.
        let places: Vec<u64> = (0..240).map(|i| i * 97 % 240 * (len / 240) / 4096 * 4096).collect();
        let mut writes = Vec::new();
        for (i, at) in places.iter().enumerate() {
            writes.push(disk.write(ByteOffset(*at), Data::copy_of(&[5; 4096])));
            if i % 40 == 0 {
                env.sleep(std::time::Duration::from_millis(1)).await;
            }
        }
        for w in writes {
            w.await.unwrap();
        }
        disk.discard(ByteRange::new(places[7], places[7] + 4096)).await.unwrap();
        while disk.0.fill.borrow().is_some() {
            env.sleep(std::time::Duration::from_millis(1)).await;
        }
        for n in 0..len / (2 * MIB) {
            let (buf, r) = disk.read(ByteOffset(n * 2 * MIB), Buf::new(BUF_MAX)).await;
            r.unwrap();
            for (i, chunk) in buf.chunks(4096).enumerate() {
                let at = n * 2 * MIB + u64::try_from(i).unwrap() * 4096;
                let expected = if places.contains(&at) && at != places[7] { 5 } else { 0 };
                assert!(chunk.iter().all(|b| *b == expected), "at {at}");
            }
        }
        let all = disk.allocation(ByteRange::new(0, len)).await.unwrap();
        let free: u64 = all.iter().filter(|(_, a)| !a).map(|(r, _)| r.len()).sum();
        // Memory that was only set aside counts as free there.
        assert!(free <= 4096 || disk.0.in_memory, "{free}");
    });
}

#[test]
fn a_file_that_is_dropped_while_it_is_filled_can_be_opened_again() {
    on_each(|env, path, caching| async move {
        let dir = Folder::open(&env, &path, false, caching).await.unwrap();
        drop(dir.create("log", 64 * MIB, Space::Written).await.unwrap());
        let again = dir.open("log").await.unwrap().unwrap();
        assert_eq!(again.len(), 64 * MIB);
        assert_eq!(again.is_direct(), caching == Caching::Direct && !again.0.in_memory);
    });
}
