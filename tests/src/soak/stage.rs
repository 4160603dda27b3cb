//! The stage: two nodes, a group of two volumes between them, and devices where the primary is.
//!
//! ```text
//!   a: understudyd ── proxy of b ──► b: understudyd      each node: its engine, a pool that can be full, and
//!      ▲         ◄── proxy of a ──                       a proxy before its link; after a failover the
//!      │                                                 roles have changed places
//!   understudy-attachd ─ holders ─ /dev/loopN, /dev/loopM
//! ```

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use understudy_core::engine::api::{
    ByteLen, ExportKind, Failover, Generation, GroupId, Member, Policy, Role, Stage as GroupStage,
    Start,
};
use understudy_core::units::Epoch;

use super::Harm;
use super::pool::{self, Pool};
use super::room;
use crate::harness::attach::{Attachd, attach_to};
use crate::harness::engine::{Engine, PLAINTEXT};
use crate::harness::proxy::Proxy;

/// How long each volume is, in bytes.
pub(super) const VOLUME: u64 = 16 << 20;

/// How many volumes the group has.
pub(super) const VOLUMES: usize = 2;

/// The longest that the link may hold up a write.
pub(super) const MAX_DELAY: Duration = Duration::from_millis(500);

/// Between two checkpoints.
const INTERVAL: Duration = Duration::from_millis(200);

/// What may be queued for the peer, in bytes: so little that a hung one is felt at once.
const WINDOW: u64 = 2 << 20;

/// What an epoch may cost in undo log, in bytes: more than both volumes, for however long the peer is
/// away, what it lacks must fit.
const UNDO: u64 = 40 << 20;

/// How long a device may take to be let go by who had it open.
const LET_GO: Duration = Duration::from_secs(10);

/// How long the roll-back may take to be merged.
const MERGE: Duration = Duration::from_secs(15);

/// A node.
pub(super) struct Node {
    pub(super) engine: Engine,
    /// Before its link.
    proxy: Proxy,
    pub(super) pool: Pool,
}

/// All of it.
pub(super) struct Stage {
    // Dropped in this order: devices before what serves them.
    attachd: Attachd,
    nodes: [Node; 2],
    /// Which of them is the primary.
    primary: usize,
    pub(super) group: GroupId,
    pub(super) members: Vec<Member>,
    pub(super) generation: Generation,
    /// Where logs and journals go.
    pub(super) directory: PathBuf,
    /// The devices, in the order of the members.
    pub(super) devices: Vec<PathBuf>,
    /// What is to be done to it that must be found.
    pub(super) harm: Option<Harm>,
}

impl Stage {
    /// Two engines that replicate, and devices of both volumes.
    pub(super) fn start(directory: &Path, owner: u32, harm: Option<Harm>) -> Result<Self> {
        let images = directory.join("images");
        pool::mount_memory(&images)?;
        let node = |name: &str| -> Result<Node> {
            let place = directory.join(name);
            std::fs::create_dir_all(&place)?;
            let pool = Pool::make(&images, &place)?;
            let engine = Engine::start(name, directory, &[PLAINTEXT])?;
            let proxy = Proxy::start(engine.link_address())?;
            Ok(Node { engine, proxy, pool })
        };
        let nodes = [node("a")?, node("b")?];
        let members = (0..VOLUMES).map(|number| {
            Ok(Member { volume: room::volume(owner, number).parse()?, size: ByteLen(VOLUME) })
        });
        let mut stage = Self {
            attachd: Attachd::start(directory)?,
            nodes,
            primary: 0,
            group: "vm".parse()?,
            members: members.collect::<Result<Vec<Member>>>()?,
            generation: Generation { number: 2, id: 0x5eed_0000_0000_0001 },
            directory: directory.to_owned(),
            devices: Vec::new(),
            harm,
        };
        for node in &stage.nodes {
            for member in &stage.members {
                node.engine.create_replica(member)?;
            }
        }
        stage.replicate()?;
        stage.attach()?;
        Ok(stage)
    }

    pub(super) fn primary(&self) -> &Node {
        &self.nodes[self.primary]
    }

    pub(super) fn primary_mut(&mut self) -> &mut Node {
        &mut self.nodes[self.primary]
    }

    pub(super) fn secondary(&self) -> &Node {
        &self.nodes[1 - self.primary]
    }

    pub(super) fn secondary_mut(&mut self) -> &mut Node {
        &mut self.nodes[1 - self.primary]
    }

    /// What the link goes through.
    pub(super) fn link(&self) -> &Proxy {
        &self.secondary().proxy
    }

    /// Both sides begin their roles in the current generation, the secondary first.
    fn replicate(&self) -> Result<()> {
        let start = |role: Role, peer| Start {
            group: self.group.clone(),
            generation: self.generation,
            role,
            members: self.members.clone(),
            peer,
            policy: Policy {
                checkpoint_interval: Some(INTERVAL),
                undo_limit: Some(ByteLen(UNDO)),
                window: Some(ByteLen(WINDOW)),
                max_delay: Some(MAX_DELAY),
                ..Policy::default()
            },
            inbound: false,
            adopt: false,
        };
        self.secondary().engine.start_group(&start(Role::Secondary, None))?;
        let peer = Some(self.link().address());
        self.primary().engine.start_group(&start(Role::Primary, peer))
    }

    /// Makes devices of the volumes where the primary is.
    pub(super) fn attach(&mut self) -> Result<()> {
        let engine = &self.primary().engine;
        let device = |member: &Member| {
            let wanted = attach_to(engine, &member.volume, self.generation);
            Ok(self.attachd.attach(&wanted)?.path)
        };
        self.devices = self.members.iter().map(device).collect::<Result<_>>()?;
        Ok(())
    }

    /// Makes the devices of a generation fail for good.
    pub(super) fn fail_devices(&self, generation: Generation) -> Result<()> {
        for member in &self.members {
            self.attachd.fail(&member.volume, generation, "the node is lost")?;
        }
        Ok(())
    }

    /// Removes the devices, which nobody uses any more.
    pub(super) fn detach(&self) -> Result<()> {
        for member in &self.members {
            let end = Instant::now() + LET_GO;
            while let Err(error) = self.attachd.detach(&member.volume) {
                if Instant::now() >= end {
                    return Err(error).context("a device is still in use");
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    /// Starts each engine that was killed.
    pub(super) fn start_killed(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            if node.engine.pid().is_none() {
                node.engine.restart()?;
            }
        }
        Ok(())
    }

    /// The secondary is promoted; it is the primary from now on. Says to which checkpoint.
    pub(super) fn fail_over(&mut self) -> Result<Epoch> {
        let number = self.generation.number + 2;
        let new = Generation { number, id: self.generation.id.wrapping_add(1) };
        let epoch = self.secondary().engine.failover(&Failover {
            group: self.group.clone(),
            replace: self.generation,
            new,
            keep_active: false,
        })?;
        self.generation = new;
        self.primary = 1 - self.primary;
        Ok(epoch)
    }

    /// Waits until the roll-back is merged into the promoted disks.
    pub(super) fn wait_for_merge(&self) -> Result<()> {
        let end = Instant::now() + MERGE;
        loop {
            let status = self.primary().engine.group(&self.group)?;
            match status.stage {
                GroupStage::Done => return Ok(()),
                GroupStage::FailoverFailed => bail!("the merge failed: {:?}", status.error),
                _ if Instant::now() >= end => bail!("the merge is not done: {status:#?}"),
                _ => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// The node that was lost returns, and becomes the secondary.
    pub(super) fn take_back(&mut self) -> Result<()> {
        self.start_killed()?;
        self.replicate()
    }

    /// Where the volumes can be opened on the secondary, at its last checkpoint.
    pub(super) fn views(&self) -> Result<Vec<String>> {
        self.exports(&self.secondary().engine, ExportKind::View)
    }

    /// Where they can be opened on the primary, while no device is attached.
    pub(super) fn volumes(&self) -> Result<Vec<String>> {
        self.exports(&self.primary().engine, ExportKind::Primary)
    }

    fn exports(&self, engine: &Engine, kind: ExportKind) -> Result<Vec<String>> {
        let export =
            |member: &Member| Ok(engine.export(&self.group, &member.volume, kind)?.to_string());
        self.members.iter().map(export).collect()
    }

    /// The names of the devices, as a ledger wants them.
    pub(super) fn device_names(&self) -> Vec<String> {
        self.devices.iter().map(|device| device.display().to_string()).collect()
    }
}
