//! Random requests, many in flight, against a model in memory.

use std::cell::RefCell;
use std::rc::Rc;

use super::{file, on_each};
use crate::disk::{Disk, File};
use crate::runtime::{Buf, Data};
use crate::units::{ByteOffset, ByteRange, u64_of, usize_of};

const LEN: u64 = 4 << 20;
const LANES: u64 = 16;

/// A small generator of its own: the sequence is fixed by the seed alone.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

fn seed() -> u64 {
    let given = std::env::var("UNDERSTUDY_SEED").ok().and_then(|s| s.parse().ok());
    given.unwrap_or_else(|| u64::from(std::process::id()) * 7919)
}

/// Requests of one lane, one after the other; each lane has its own part of the disk.
async fn lane(disk: File, model: Rc<RefCell<Vec<u8>>>, lane: u64, seed: u64) {
    let mut random = Random(seed ^ lane << 32);
    let (start, len) = (LEN / LANES * lane, LEN / LANES);
    for round in 0..60 {
        let at = random.below(len / 512) * 512;
        let most = if random.below(4) == 0 { 200 } else { 16 };
        let n = (random.below(most) + 1) * 512;
        let range = ByteRange::new(start + at, start + (at + n).min(len));
        let size = usize_of(range.len());
        let part = usize_of(range.start)..usize_of(range.end);
        let fill = u8::try_from(random.below(255) + 1).unwrap();
        match random.below(8) {
            0..3 => {
                // Pieces of any length and place in memory.
                let whole = Data::copy_of(&vec![fill; size + 100]).slice(77..77 + size);
                let cut = usize_of(random.below(range.len()));
                disk.writev(range.offset(), vec![whole.slice(0..cut), whole.slice(cut..size)])
                    .await
                    .unwrap();
                model.borrow_mut()[part].fill(fill);
            }
            3 => {
                disk.write_zeroes(range, random.below(2) == 0).await.unwrap();
                model.borrow_mut()[part].fill(0);
            }
            4 => disk.flush().await.unwrap(),
            _ => {
                let (buf, r) = disk.read(range.offset(), Buf::new(size)).await;
                r.unwrap();
                assert!(*buf == model.borrow()[part], "lane {lane} round {round}: {range}");
            }
        }
    }
}

#[test]
fn random_requests_give_what_the_model_holds() {
    let seed = seed();
    eprintln!("UNDERSTUDY_SEED={seed}");
    on_each(move |env, dir, caching| async move {
        let disk = file(&env, &dir.join("d"), usize_of(LEN), 7, caching).await;
        let model = Rc::new(RefCell::new(vec![7; usize_of(LEN)]));
        let lanes = (0..LANES).map(|n| lane(disk.clone(), model.clone(), n, seed));
        futures::future::join_all(lanes).await;
        for at in (0..LEN).step_by(1 << 20) {
            let (buf, r) = disk.read(ByteOffset(at), Buf::new(1 << 20)).await;
            r.unwrap();
            assert!(*buf == model.borrow()[usize_of(at)..usize_of(at + u64_of(buf.len()))]);
        }
    });
}
