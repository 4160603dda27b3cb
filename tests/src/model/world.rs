//! Two simulated nodes with one group on each: the product's own code, over simulated disks and
//! streams.

use std::time::Duration;

use understudy_core::disk::{Disk, Result};
use understudy_core::overlay::{Policy, Role};
use understudy_core::replication::{Group, Replica, StartSpec, serve_link};
use understudy_core::runtime::{Address, Buf, Env};
use understudy_core::sim::{Sim, SimHost};
use understudy_core::units::{
    ByteOffset, ByteRange, Generation, GroupId, Uuid, VolumeId, usize_of,
};

/// The nodes' names, by side.
pub(super) const NAMES: [&str; 2] = ["a", "b"];

/// A node and, while it lives, its group.
pub(super) struct Side {
    /// Its present life.
    pub(super) host: SimHost,
    /// `None` after its death.
    pub(super) group: Option<Group<SimHost>>,
}

impl std::fmt::Debug for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Side({:?}, {:?})", self.host, self.group)
    }
}

/// Where the side of this name takes links.
pub(super) fn address(side: usize) -> Address {
    Address::Unix(NAMES[side].into())
}

fn group_id() -> Result<GroupId> {
    parse("g")
}

fn parse<T: std::str::FromStr<Err = understudy_core::units::ParseError>>(text: &str) -> Result<T> {
    use understudy_core::disk::{Error, ErrorKind};
    text.parse()
        .map_err(|e: understudy_core::units::ParseError| Error::own(ErrorKind::Invalid, e.0))
}

impl Side {
    /// A node with a new group of volumes of these sizes, not started.
    pub(super) async fn create(
        sim: &Sim,
        side: usize,
        alignment: u64,
        sizes: &[u64],
    ) -> Result<Self> {
        let host = sim.node(NAMES[side]);
        host.set_alignment(alignment);
        let mut replicas = Vec::new();
        for (i, size) in sizes.iter().enumerate() {
            let dir = host.dir(&format!("volumes/v{i}"));
            let uuid = Uuid(u128::from(host.random()));
            let volume: VolumeId = parse(&format!("v{i}"))?;
            replicas.push(Replica::<SimHost>::create(dir, volume, uuid, *size).await?);
        }
        let pool = Uuid(u128::from(host.random()));
        let group = Group::create(&host, host.dir("groups/g"), replicas, pool, group_id()?).await?;
        let new = Self { host, group: Some(group) };
        new.listen(side)?;
        Ok(new)
    }

    /// Starts a dead node again and finds its group; `Ok(None)` if it dies meanwhile. `begin` is
    /// told the open epoch before anything can go on.
    pub(super) async fn reopen(
        sim: &Sim,
        side: usize,
        volumes: usize,
        begin: impl FnOnce(u64) + 'static,
    ) -> Result<Option<Self>> {
        let host = sim.node(NAMES[side]);
        let host2 = host.clone();
        let opened = host.call("model reopen", async move {
            let mut replicas = Vec::new();
            for i in 0..volumes {
                replicas.push(Replica::<SimHost>::open(host2.dir(&format!("volumes/v{i}"))).await?);
            }
            let group = Group::open(&host2, host2.dir("groups/g"), replicas).await?;
            begin(group.status().epoch.0);
            Ok(group)
        });
        let opened: Option<Result<_>> = opened.await;
        let Some(group) = opened else { return Ok(None) };
        let new = Self { host, group: Some(group?) };
        new.listen(side)?;
        Ok(Some(new))
    }

    fn listen(&self, side: usize) -> Result<()> {
        use understudy_core::disk::Error;
        let Some(group) = self.group.clone() else { return Ok(()) };
        let listener =
            self.host.listen(NAMES[side]).map_err(|e| Error::system("model: listen", e))?;
        let host = self.host.clone();
        self.host.spawn("model listener", async move {
            loop {
                let stream = listener.accept().await;
                let (h, g) = (host.clone(), group.clone());
                host.spawn("model serve link", async move {
                    serve_link(&h, stream, |id| {
                        (id.as_str() == "g").then_some(g).ok_or_else(|| "no group".to_owned())
                    })
                    .await;
                });
            }
        });
        Ok(())
    }
}

/// How to start a role.
pub(super) fn spec(role: Role, peer: usize, generation: Generation, policy: &Policy) -> StartSpec {
    let peer = (role == Role::Primary).then(|| address(peer));
    StartSpec { generation, role, peer, policy: policy.clone(), inbound: false, adopt: false }
}

/// All of a disk.
pub(super) async fn read_all<D: Disk>(disk: &D) -> Result<Vec<u8>> {
    let (buf, r) = disk.read(ByteOffset(0), Buf::new(usize_of(disk.len()))).await;
    r.map(|()| buf.to_vec())
}

/// All of a range.
pub(super) async fn read<D: Disk>(disk: &D, range: ByteRange) -> Result<Vec<u8>> {
    let (buf, r) = disk.read(range.offset(), Buf::new(usize_of(range.len()))).await;
    r.map(|()| buf.to_vec())
}

/// A virtual duration in microseconds.
pub(super) fn micros(n: u64) -> Duration {
    Duration::from_micros(n)
}
