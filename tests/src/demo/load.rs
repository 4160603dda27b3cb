//! A busy VM: random 4 KiB writes to both volumes behind their file systems, until stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Result, anyhow};

use super::image::Image;
use super::stage::Stage;
use crate::random::Random;

const BLOCK: usize = 4096;

/// The load's threads, one a volume.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<u64>>>,
}

impl Load {
    pub(crate) fn start(stage: &Stage, images: &[Image]) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = images
            .iter()
            .map(|image| {
                let mut client = stage.open(image.volume)?;
                let (stop, from, to) = (stop.clone(), image.bytes, image.volume_bytes);
                Ok(std::thread::spawn(move || {
                    let mut random = Random::new(from);
                    let mut block = vec![0; BLOCK];
                    let mut written = 0;
                    while !stop.load(Ordering::Relaxed) {
                        random.fill(&mut block);
                        let at = from + random.below((to - from) / 4096) * 4096;
                        client.write(at, &block)?;
                        written += 1;
                        if written % 256 == 0 {
                            client.flush()?;
                        }
                    }
                    Ok(written)
                }))
            })
            .collect::<Result<_>>()?;
        Ok(Self { stop, threads })
    }

    /// Ends it; says how many blocks were written.
    pub(crate) fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let mut written = 0;
        for t in self.threads {
            written += t.join().map_err(|_| anyhow!("a load thread ended badly"))??;
        }
        Ok(written)
    }
}
