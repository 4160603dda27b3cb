//! Two simulated nodes with one group on each: the product's own code, over simulated disks and
//! streams.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use understudy_core::disk::{Disk, ErrorKind, Result};
use understudy_core::overlay::{Member, Policy, Role};
use understudy_core::replication::{Group, Replica, StartSpec, reshape, serve_link};
use understudy_core::runtime::{Address, Buf, Env};
use understudy_core::sim::{Sim, SimHost};
use understudy_core::units::{
    ByteOffset, ByteRange, Generation, GroupId, Uuid, VolumeId, usize_of,
};

/// The nodes' names, by side.
pub(super) const NAMES: [&str; 2] = ["a", "b"];

/// Where a node's group is while it is open. Clones are the same place.
#[derive(Clone, Default)]
pub(super) struct Slot(Rc<RefCell<Option<Group<SimHost>>>>);

impl Slot {
    pub(super) fn get(&self) -> Option<Group<SimHost>> {
        self.0.borrow().clone()
    }

    pub(super) fn take(&self) -> Option<Group<SimHost>> {
        self.0.borrow_mut().take()
    }

    fn put(&self, group: Group<SimHost>) {
        *self.0.borrow_mut() = Some(group);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.borrow().is_none()
    }
}

/// A node and, while it lives, its group.
pub(super) struct Side {
    /// Its present life.
    pub(super) host: SimHost,
    /// Empty after its death, and while it is closed.
    pub(super) slot: Slot,
}

impl std::fmt::Debug for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Side({:?}, {:?})", self.host, self.slot.get())
    }
}

/// Where the side of this name takes links.
pub(super) fn address(side: usize) -> Address {
    Address::Unix(NAMES[side].into())
}

fn group_id() -> Result<GroupId> {
    parse("g")
}

/// The name of a volume.
pub(super) fn volume(v: usize) -> Result<VolumeId> {
    parse(&format!("v{v}"))
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
            replicas.push(Replica::<SimHost>::create(dir, volume(i)?, uuid, *size).await?);
        }
        let pool = Uuid(u128::from(host.random()));
        let group = Group::create(&host, host.dir("groups/g"), replicas, pool, group_id()?).await?;
        Self::with(host, side, group)
    }

    fn with(host: SimHost, side: usize, group: Group<SimHost>) -> Result<Self> {
        let new = Self { host, slot: Slot::default() };
        new.slot.put(group);
        new.listen(side)?;
        Ok(new)
    }

    /// Starts a dead node again and finds its group; `Ok(None)` if it dies meanwhile. `begin` is
    /// told the open epoch before anything can go on.
    pub(super) async fn reopen(
        sim: &Sim,
        side: usize,
        begin: impl FnOnce(u64) + 'static,
    ) -> Result<Option<Self>> {
        let host = sim.node(NAMES[side]);
        let host2 = host.clone();
        let opened = host.call("model reopen", async move {
            let group = open(&host2).await?;
            begin(group.status().epoch.0);
            Ok(group)
        });
        let opened: Option<Result<_>> = opened.await;
        let Some(group) = opened else { return Ok(None) };
        Self::with(host, side, group?).map(Some)
    }

    fn listen(&self, side: usize) -> Result<()> {
        use understudy_core::disk::Error;
        let listener =
            self.host.listen(NAMES[side]).map_err(|e| Error::system("model: listen", e))?;
        let (host, slot) = (self.host.clone(), self.slot.clone());
        self.host.spawn("model listener", async move {
            loop {
                let stream = listener.accept().await;
                let (h, s) = (host.clone(), slot.clone());
                host.spawn("model serve link", async move {
                    serve_link(&h, stream, |id| {
                        let group = s.get().filter(|_| id.as_str() == "g");
                        group.ok_or_else(|| "no group".to_owned())
                    })
                    .await;
                });
            }
        });
        Ok(())
    }
}

/// Opens a group with the members that its superblock names.
async fn open(host: &SimHost) -> Result<Group<SimHost>> {
    use understudy_core::disk::Error;
    let names = Group::<SimHost>::members(&host.dir("groups/g")).await?;
    let names = names.ok_or_else(|| Error::own(ErrorKind::Corrupt, "there is no superblock"))?;
    let mut replicas = Vec::new();
    for (volume, _) in names.members {
        replicas.push(Replica::<SimHost>::open(host.dir(&format!("volumes/{volume}"))).await?);
    }
    Group::open(host, host.dir("groups/g"), replicas).await
}

/// How often, and how long between, files are tried that whoever had them open has not closed yet: for
/// about as long as the engine does.
const TRIES: u32 = 50;
const BETWEEN: Duration = Duration::from_millis(200);

/// Closes the group of a living node, makes a replica larger, opens the group again, as the engine
/// does. `begin` is told the open epoch before anything can go on.
pub(super) async fn expand(
    host: SimHost,
    slot: Slot,
    (volume, size): (usize, u64),
    begin: impl FnOnce(u64),
) -> Result<()> {
    let grow = async |host: &SimHost| {
        Replica::<SimHost>::expand(&host.dir(&format!("volumes/v{volume}")), size).await
    };
    closed(host, slot, grow, begin).await
}

/// The same for a volume that joins: its replica is there already.
pub(super) async fn join(
    host: SimHost,
    slot: Slot,
    volume: usize,
    begin: impl FnOnce(u64),
) -> Result<()> {
    let join = async |host: &SimHost| {
        let dir = host.dir(&format!("volumes/v{volume}"));
        let label = Replica::<SimHost>::open(dir).await?.label;
        let member = Member::new(label.volume, label.uuid, label.size);
        reshape::join(&host.dir("groups/g"), vec![member]).await
    };
    closed(host, slot, join, begin).await
}

/// The same for what a replaced primary had more than the side that replaced it.
pub(super) async fn let_go(host: SimHost, slot: Slot, left: usize) -> Result<()> {
    let go = async |host: &SimHost| reshape::let_go(&host.dir("groups/g"), left).await;
    closed(host, slot, go, |_| {}).await
}

/// Changes the files of a group while nobody has them open.
async fn closed(
    host: SimHost,
    slot: Slot,
    change: impl AsyncFn(&SimHost) -> Result<()>,
    begin: impl FnOnce(u64),
) -> Result<()> {
    if let Some(group) = slot.take() {
        group.shutdown().await;
    }
    let mut tries = 0;
    let group = loop {
        let opened = match change(&host).await {
            Ok(()) => open(&host).await,
            Err(e) => Err(e),
        };
        match opened {
            Err(e) if e.kind() == ErrorKind::Locked && tries < TRIES => {
                tries += 1;
                host.sleep(BETWEEN).await;
            }
            other => break other?,
        }
    };
    begin(group.status().epoch.0);
    slot.put(group);
    Ok(())
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
