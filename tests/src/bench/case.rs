//! One kind of load, and how it is measured: the product's NBD client for every server alike.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use understudy_core::disk::Disk;
use understudy_core::nbd::client::{Client, Options};
use understudy_core::runtime::{Address, Buf, Data, Env, ShardConfig, ShardEnv, block_on};
use understudy_core::units::{ByteOffset, u64_of};

use crate::harness::nbd_address::{Export, Socket};
use crate::random::Random;

/// Reads or writes of one size, so many at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) write: bool,
    /// Bytes of a request.
    pub(crate) len: usize,
    /// Requests in flight.
    pub(crate) depth: usize,
    /// Distance between neighbouring requests' offsets, before they are shuffled.
    pub(crate) step: u64,
    pub(crate) shuffled: bool,
    /// How many requests; with a time limit at most so many.
    pub(crate) count: u64,
    /// Ends earlier when this time is over.
    pub(crate) limit: Option<Duration>,
}

impl Case {
    /// The offsets of a run on a volume of `size` bytes.
    pub(crate) fn offsets(&self, size: u64, random: &mut Random) -> Vec<u64> {
        let slots = size / self.step;
        let mut all: Vec<u64> = (0..slots).map(|i| i * self.step).collect();
        if self.shuffled {
            for i in (1..all.len()).rev() {
                let j = usize::try_from(random.below(u64_of(i + 1))).unwrap_or(0);
                all.swap(i, j);
            }
        }
        all.into_iter().cycle().take(usize::try_from(self.count).unwrap_or(usize::MAX)).collect()
    }

    /// Requests a second at these offsets.
    pub(crate) fn measure(&self, export: &Export, offsets: Vec<u64>) -> Result<f64> {
        let case = *self;
        let export = export.clone();
        // The client spins as little as any client would: what is measured is the server.
        let config = ShardConfig { spin: Duration::ZERO, ..ShardConfig::default() };
        block_on(&config, move |env| async move { load(&env, &export, case, offsets).await })
            .context("cannot start the client")?
    }
}

async fn load(env: &ShardEnv, export: &Export, case: Case, offsets: Vec<u64>) -> Result<f64> {
    let address = match &export.socket {
        Socket::Unix(path) => Address::Unix(path.clone()),
        Socket::Tcp(at) => Address::Tcp(at.clone()),
    };
    let stream = env.connect(&address).await?;
    let client = Client::connect(env, stream, &export.name, &Options::default())
        .await
        .map_err(|e| anyhow!("{e:?}"))?;
    let mut data = Buf::new(case.len);
    Random::new(7).fill(&mut data);
    let data = data.freeze();
    let began = Instant::now();
    let mut left = offsets.into_iter();
    let mut running = FuturesUnordered::new();
    let mut done = 0_u64;
    loop {
        let is_over = case.limit.is_some_and(|l| began.elapsed() > l);
        while running.len() < case.depth && !is_over {
            let Some(at) = left.next() else { break };
            running.push(request(client.clone(), case, at, data.clone()));
        }
        match running.next().await {
            Some(result) => result?,
            None => break,
        }
        done += 1;
    }
    let seconds = began.elapsed().as_secs_f64();
    client.close().await;
    #[allow(clippy::cast_precision_loss, reason = "a count of requests of one short run")]
    Ok(done as f64 / seconds)
}

async fn request(client: Client<ShardEnv>, case: Case, at: u64, data: Data) -> Result<()> {
    let result = if case.write {
        client.write(ByteOffset(at), data).await
    } else {
        client.read(ByteOffset(at), Buf::new(case.len)).await.1
    };
    result.map_err(|e| anyhow!("{e:?}"))
}
