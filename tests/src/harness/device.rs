//! A device as its holder has it: one export name for ever, connecting again; and load on it.
//!
//! ```text
//!   request ─► connection ─┬─ answered
//!                 ▲        ├─ lost, or ESHUTDOWN ─► connect again ─┬─ refused for now ─► again
//!                 └────────┴───────────────────────────────────────┴─ refused for good ─► the end
//! ```

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use understudy_core::units::usize_of;

use super::nbd::{Client, Failure};
use super::nbd_address::Export;

/// What load reads and writes.
pub const BLOCK: u64 = 4096;

/// NBD's word for *gone for good*, as our client says it.
pub const GONE: &str = "refused (0x80000002)";
/// NBD's word for *try again*.
pub const LATER: &str = "refused (0x80000006)";

/// A device may wait this long for one request.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A device bound to one export name.
#[allow(missing_debug_implementations, reason = "a connection has nothing to show")]
pub struct Device {
    export: Export,
    client: Option<Client>,
}

impl Device {
    /// Connects with its first request.
    pub fn new(export: Export) -> Self {
        Self { export, client: None }
    }

    /// Connects anew with the next request.
    pub fn disconnect(&mut self) {
        self.client = None;
    }

    /// Does a request, over as many connections as it takes; `None` once the device is gone for good.
    ///
    /// # Panics
    /// If the request fails, or takes longer than [`PATIENCE`].
    pub fn request<T>(
        &mut self,
        mut request: impl FnMut(&mut Client) -> Result<T, Failure>,
    ) -> Option<T> {
        let end = Instant::now() + PATIENCE;
        loop {
            if self.client.is_none() {
                match Client::connect(&self.export) {
                    Ok(client) => self.client = Some(client),
                    Err(e) if e.to_string().contains(GONE) => return None,
                    Err(e) => assert!(Instant::now() < end, "{}: {e}", self.export),
                }
            }
            match self.client.as_mut().map(&mut request) {
                Some(Ok(done)) => return Some(done),
                // A connection that ends, or is about to (ESHUTDOWN), is no answer.
                Some(Err(Failure::Broken(_) | Failure::Refused(108))) => self.client = None,
                Some(Err(e)) => panic!("{}: a request failed: {e}", self.export),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
            assert!(Instant::now() < end, "{}: a request took too long", self.export);
        }
    }
}

/// Writes blocks with growing stamps, and reads some back; each must hold what was written last.
#[allow(missing_debug_implementations, reason = "a thread has nothing to show")]
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    thread: JoinHandle<(Device, Vec<u64>)>,
}

impl Load {
    /// Begins on the first `blocks` blocks, which hold zeroes.
    ///
    /// # Panics
    /// Its thread does, at the first wrong answer; see [`end`](Self::end).
    pub fn begin(export: Export, blocks: u64) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stop2, done2) = (stop.clone(), done.clone());
        let thread = std::thread::spawn(move || {
            let mut device = Device::new(export);
            let mut stamps = vec![0_u64; usize_of(blocks)];
            let mut random = 88_172_645_463_325_252_u64;
            for stamp in 1.. {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let block = random % blocks;
                let place = &mut stamps[usize_of(block)];
                let bytes = fill(stamp);
                if stamp % 4 == 0 {
                    let got = device.request(|c| c.read(block * BLOCK, BLOCK));
                    let Some(got) = got else { break };
                    assert!(got == fill(*place), "block {block} is not of write {place}");
                } else {
                    if device.request(|c| c.write(block * BLOCK, &bytes)).is_none() {
                        break;
                    }
                    *place = stamp;
                }
                done2.fetch_add(1, Ordering::Relaxed);
                if stop2.load(Ordering::Relaxed) {
                    break;
                }
            }
            (device, stamps)
        });
        Self { stop, done, thread }
    }

    /// Waits until requests have completed that began after this call.
    ///
    /// # Panics
    /// If they don't within [`PATIENCE`].
    pub fn goes_on(&self) {
        let (now, end) = (self.done.load(Ordering::Relaxed), Instant::now() + PATIENCE);
        while self.done.load(Ordering::Relaxed) < now + 5 {
            assert!(!self.thread.is_finished(), "the load has ended");
            assert!(Instant::now() < end, "the load stands still");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends it: the device, and the stamp of each block.
    ///
    /// # Panics
    /// If a request had failed.
    pub fn end(self) -> (Device, Vec<u64>) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// The content of a block.
fn fill(stamp: u64) -> Vec<u8> {
    stamp.to_le_bytes().repeat(usize_of(BLOCK / 8))
}

/// The content of all blocks.
pub fn content(stamps: &[u64]) -> Vec<u8> {
    stamps.iter().flat_map(|s| fill(*s)).collect()
}
