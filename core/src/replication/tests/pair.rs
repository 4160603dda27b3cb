//! A primary and a secondary engine's group in the simulator.

use std::time::Duration;

use crate::disk::{Disk, Result};
use crate::overlay::{Policy, Role, Stage};
use crate::replication::{
    ExportKind, FailoverSpec, Group, LinkState, Replica, StartSpec, Volume, serve_link,
};
use crate::runtime::{Address, Buf, Data, Env};
use crate::sim::{Sim, SimHost};
use crate::units::{ByteRange, Epoch, Generation, Uuid, VolumeIndex, usize_of};

pub(crate) const G1: Generation = Generation { number: 2, id: 0xa };
pub(crate) const G2: Generation = Generation { number: 4, id: 0xb };

/// Two nodes, one group on each.
pub(crate) struct Pair {
    pub(crate) sim: Sim,
    pub(crate) primary: Group<SimHost>,
    pub(crate) secondary: Group<SimHost>,
}

/// Runs a scenario in a few worlds: `UNDERSTUDY_SEED`, if that is set, decides the first.
pub(crate) fn run<F: Future<Output = ()>>(scenario: impl Fn(Sim) -> F) {
    let first = Sim::seed_or(5);
    for seed in first..first + SEEDS {
        let sim = Sim::new(seed);
        let s = sim.clone();
        sim.block_on(scenario(s));
    }
}

/// In how many worlds each scenario runs.
const SEEDS: u64 = 4;

pub(crate) fn policy() -> Policy {
    Policy { checkpoint_interval: Duration::ZERO, undo_limit: 16 << 20, ..Policy::default() }
}

pub(crate) fn address() -> Address {
    Address::Unix("b".into())
}

/// A group of volumes of these sizes on `host`, its disks filled.
pub(crate) async fn group(host: &SimHost, sizes: &[u64], fill: Option<u8>) -> Group<SimHost> {
    let mut replicas = Vec::new();
    for (i, size) in sizes.iter().enumerate() {
        let dir = host.dir(&format!("volumes/v{i}"));
        let uuid = Uuid(u128::from(host.random()));
        let r = Replica::<SimHost>::create(dir, format!("v{i}").parse().unwrap(), uuid, *size)
            .await
            .unwrap();
        if let Some(fill) = fill {
            for part in ByteRange::new(0, r.disk.len()).pieces(1 << 20) {
                let data = Data::copy_of(&vec![fill; usize_of(part.len())]);
                r.disk.write(part.offset(), data).await.unwrap();
            }
            r.disk.flush().await.unwrap();
        }
        replicas.push(r);
    }
    let pool = Uuid(u128::from(host.random()));
    Group::create(host, host.dir("groups/g"), replicas, pool, "g".parse().unwrap()).await.unwrap()
}

/// Finds a group again after a crash or kill of its node.
pub(crate) async fn reopen(host: &SimHost, volumes: usize) -> Result<Group<SimHost>> {
    let mut replicas = Vec::new();
    for i in 0..volumes {
        replicas.push(Replica::open(host.dir(&format!("volumes/v{i}"))).await?);
    }
    Group::open(host, host.dir("groups/g"), replicas).await
}

/// Takes links for `group` until its node dies.
pub(crate) fn listen(host: &SimHost, path: &str, group: &Group<SimHost>) {
    let listener = host.listen(path).unwrap();
    let (host2, group) = (host.clone(), group.clone());
    host.spawn("link listener", async move {
        loop {
            let stream = listener.accept().await;
            let (h, g) = (host2.clone(), group.clone());
            host2.spawn("serve link", async move {
                serve_link(&h, stream, |id| {
                    (id.as_str() == "g").then_some(g).ok_or_else(|| "no group".to_owned())
                })
                .await;
            });
        }
    });
}

impl Pair {
    /// Two groups with these volumes, not started.
    pub(crate) async fn new(sim: &Sim, sizes: &[u64], fill: Option<u8>) -> Self {
        let (a, b) = (sim.node("a"), sim.node("b"));
        let primary = group(&a, sizes, fill).await;
        let secondary = group(&b, sizes, None).await;
        listen(&b, "b", &secondary);
        Self { sim: sim.clone(), primary, secondary }
    }

    /// Starts both and waits for the first checkpoint.
    pub(crate) async fn start(&self, policy: Policy) {
        self.secondary.start(spec(Role::Secondary, policy.clone())).await.unwrap();
        self.primary.start(spec(Role::Primary, policy)).await.unwrap();
        self.wait_for(|p| p.primary.status().checkpoint.epoch != Epoch::NONE).await;
    }

    /// Waits until something holds, at most a virtual minute.
    pub(crate) async fn wait_for(&self, holds: impl Fn(&Self) -> bool) {
        let host = self.sim.node("a");
        let limit = host.now().after(Duration::from_mins(1));
        while !holds(self) {
            assert!(
                host.now() < limit,
                "{:?}\n{:?}",
                self.primary.status(),
                self.secondary.status()
            );
            host.sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits until the secondary has applied everything that was written.
    pub(crate) async fn drain(&self) {
        self.wait_for(|p| {
            let s = p.primary.status();
            s.missing == 0 && s.window == 0 && s.frames.0 == s.frames.2
        })
        .await;
    }

    /// Waits until the secondary lacks nothing and the link is up.
    pub(crate) async fn in_sync(&self) {
        self.wait_for(|p| p.primary.status().link == LinkState::Running).await;
        self.drain().await;
    }

    /// Waits until a promoted secondary has merged its roll-back.
    pub(crate) async fn merged(&self) {
        self.wait_for(|p| p.secondary.status().role == Some((Role::Primary, Stage::Done))).await;
    }

    /// The volume of the promoted secondary.
    pub(crate) fn promoted(&self) -> Volume<SimHost> {
        self.secondary.volume(VolumeIndex(0), ExportKind::Primary).unwrap()
    }

    /// Finds the secondary again after its node's death, and takes links for it.
    pub(crate) async fn reopen_secondary(&mut self) {
        let host = self.sim.node("b");
        self.secondary = reopen(&host, self.secondary.names().members.len()).await.unwrap();
        listen(&host, "b", &self.secondary);
    }

    pub(crate) async fn checkpoint(&self) -> Epoch {
        self.primary.checkpoint(G1).await.unwrap()
    }

    pub(crate) fn volume(&self, kind: ExportKind) -> Volume<SimHost> {
        let group = if kind == ExportKind::Primary { &self.primary } else { &self.secondary };
        group.volume(VolumeIndex(0), kind).unwrap()
    }

    pub(crate) async fn failover(&self, keep_active: bool) -> Result<Epoch> {
        self.secondary.failover(FailoverSpec { replace: G1, new: G2, keep_active }).await
    }
}

pub(crate) fn spec(role: Role, policy: Policy) -> StartSpec {
    let peer = (role == Role::Primary).then(address);
    StartSpec { generation: G1, role, peer, policy, inbound: false, adopt: false }
}

pub(crate) async fn read<D: Disk>(disk: &D, range: ByteRange) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for part in range.pieces(1 << 20) {
        let (buf, r) = disk.read(part.offset(), Buf::new(usize_of(part.len()))).await;
        r?;
        out.extend_from_slice(&buf);
    }
    Ok(out)
}

pub(crate) async fn fill<D: Disk>(disk: &D, range: ByteRange, byte: u8) -> Result<()> {
    for part in range.pieces(1 << 20) {
        disk.write(part.offset(), Data::copy_of(&vec![byte; usize_of(part.len())])).await?;
    }
    Ok(())
}

/// The runs of equal bytes of `range`: `(byte, length)`.
pub(crate) async fn pattern<D: Disk>(disk: &D, range: ByteRange) -> Vec<(u8, usize)> {
    let bytes = read(disk, range).await.unwrap();
    let mut out: Vec<(u8, usize)> = Vec::new();
    for b in bytes {
        match out.last_mut() {
            Some((last, n)) if *last == b => *n += 1,
            _ => out.push((b, 1)),
        }
    }
    out
}

pub(crate) fn at(offset: u64, len: u64) -> ByteRange {
    ByteRange::new(offset, offset + len)
}
