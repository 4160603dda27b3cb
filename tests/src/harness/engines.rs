//! Two real engines that replicate a group from one to the other.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use understudy_core::engine::api::{
    ByteLen, ExportKind, Failover, Generation, GroupId, LinkState, Member, Policy, Role, Stage,
    Start, VolumeId,
};
use understudy_core::units::{Epoch, usize_of};

use super::certs::Authority;
use super::engine::{Engine, PLAINTEXT};
use super::nbd::Client;
use super::nbd_address::Export;

/// The piece in which disks are filled.
const FILL_PIECE: u64 = 1 << 20;

/// What is replicated, and how.
#[derive(Clone, Debug)]
pub struct EnginesOptions {
    /// The volumes' lengths in bytes.
    pub sizes: Vec<u64>,
    /// What all of them are filled with before anything else; the first checkpoint holds it.
    pub fill: u8,
    /// The policy.
    pub policy: Policy,
    /// Further flags of both engines.
    pub flags: Vec<String>,
    /// What carries the link.
    pub carrier: Carrier,
}

/// What carries a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carrier {
    /// A Unix socket.
    Unix,
    /// TCP in plaintext.
    Tcp,
    /// TLS; the engines' API and NBD are served over TLS too.
    Tls,
}

impl EnginesOptions {
    /// Volumes of these sizes, filled with 0x11, checkpoints on demand.
    pub fn new(sizes: &[u64], policy: Policy) -> Self {
        Self {
            sizes: sizes.to_vec(),
            fill: 0x11,
            policy,
            flags: Vec::new(),
            carrier: Carrier::Unix,
        }
    }
}

/// The two engines and what they replicate.
pub struct Engines {
    /// The one whose volumes are written.
    pub primary: Engine,
    /// The other.
    pub secondary: Engine,
    /// The group.
    pub group: GroupId,
    /// Its volumes, in order.
    pub members: Vec<Member>,
    /// Who may write.
    pub generation: Generation,
    policy: Policy,
    /// Who signed the engines' certificates, if they have any.
    authority: Option<Authority>,
}

impl Engines {
    /// Starts both, replicates, fills the volumes and makes the first checkpoint.
    pub fn start(directory: &Path, options: &EnginesOptions) -> Result<Self> {
        let mut flags: Vec<&str> = options.flags.iter().map(String::as_str).collect();
        if options.carrier == Carrier::Tcp {
            flags.push(PLAINTEXT);
        }
        let authority = match options.carrier {
            Carrier::Tls => Some(Authority::new()?),
            Carrier::Unix | Carrier::Tcp => None,
        };
        let start = |name| match &authority {
            Some(authority) => Engine::start_secure(name, directory, &flags, authority),
            None => Engine::start(name, directory, &flags),
        };
        let primary = start("a")?;
        let mut secondary = start("b")?;
        if options.carrier == Carrier::Tcp {
            secondary.link_by_tcp()?;
        }
        let members = options.sizes.iter().enumerate().map(|(index, size)| {
            let volume: VolumeId = format!("disk{index}").parse()?;
            Ok(Member { volume, size: ByteLen(*size) })
        });
        let members = members.collect::<Result<Vec<Member>>>()?;
        let engines = Self {
            primary,
            secondary,
            group: "vm".parse()?,
            members,
            generation: Generation { number: 2, id: 0x5eed_0000_0000_0001 },
            policy: options.policy.clone(),
            authority,
        };
        engines.begin()?;
        engines.fill(options.fill)?;
        engines.checkpoint()?;
        Ok(engines)
    }

    fn begin(&self) -> Result<()> {
        for engine in [&self.secondary, &self.primary] {
            for member in &self.members {
                engine.create_replica(member)?;
            }
        }
        let start = |role: Role, peer| Start {
            group: self.group.clone(),
            generation: self.generation,
            role,
            members: self.members.clone(),
            peer,
            policy: self.policy.clone(),
            inbound: false,
            adopt: false,
        };
        // The secondary first: the primary's link looks for it.
        let from = self.authority.is_some().then(|| self.primary.link_address());
        self.secondary.start_group(&start(Role::Secondary, from))?;
        self.primary.start_group(&start(Role::Primary, Some(self.secondary.link_address())))?;
        Ok(())
    }

    /// Fills every volume through its primary export.
    fn fill(&self, byte: u8) -> Result<()> {
        let piece = vec![byte; usize_of(FILL_PIECE)];
        for member in &self.members {
            let mut client = self.open_primary(&member.volume)?;
            let mut at = 0;
            while at < member.size.0 {
                let now = usize_of(FILL_PIECE.min(member.size.0 - at));
                client.write(at, &piece[..now])?;
                at += FILL_PIECE;
            }
        }
        Ok(())
    }

    /// Who signed the engines' certificates.
    pub fn authority(&self) -> Result<&Authority> {
        self.authority.as_ref().context("the engines were started without TLS")
    }

    /// Makes a checkpoint, complete on both sides when this returns.
    pub fn checkpoint(&self) -> Result<Epoch> {
        self.primary.wait_for(&self.group, "a link without missing writes", |status| {
            matches!(status.link, LinkState::Running | LinkState::Syncing) && status.missing.0 == 0
        })?;
        self.primary.checkpoint(&self.group, self.generation)
    }

    /// Waits until everything the primary has completed is on the secondary disk.
    pub fn quiesce(&self) -> Result<()> {
        let sent = self.primary.wait_for(&self.group, "an empty window", |status| {
            status.window.0 == 0
                && status.missing.0 == 0
                && status.frames_sent == status.frames_acknowledged
        })?;
        let sent = sent.frames_sent;
        let applied = self
            .secondary
            .wait_for(&self.group, "every frame applied", |status| status.frames_applied >= sent);
        applied.with_context(|| {
            let now = self.primary.group(&self.group);
            format!("the primary had {sent} frames acknowledged and is {now:#?}")
        })?;
        Ok(())
    }

    /// Promotes the secondary to the last checkpoint. The primary need not be alive.
    pub fn failover(&mut self, keep_active: bool) -> Result<Epoch> {
        let number = self.generation.number + 2;
        let new = Generation { number, id: self.generation.id.wrapping_add(1) };
        let (group, replace) = (self.group.clone(), self.generation);
        let epoch = self.secondary.failover(&Failover { group, replace, new, keep_active })?;
        self.generation = new;
        Ok(epoch)
    }

    /// Waits until the roll-back has been merged into the promoted disks.
    pub fn wait_for_commit(&self) -> Result<()> {
        let status = self.secondary.wait_for(&self.group, "the end of the commit", |status| {
            matches!(status.stage, Stage::Done | Stage::FailoverFailed)
        })?;
        ensure!(status.stage == Stage::Done, "the commit failed: {:?}", status.error);
        Ok(())
    }

    /// Opens a volume on the primary.
    pub fn open_primary(&self, volume: &VolumeId) -> Result<Client> {
        let export = self.primary.export(&self.group, volume, ExportKind::Primary)?;
        Ok(Client::connect(&export)?)
    }

    /// Where a volume can be opened on the secondary's engine: before a failover the view, the
    /// secondary disk; after it, the promoted volume as `Primary`.
    pub fn on_secondary(&self, volume: &VolumeId, kind: ExportKind) -> Result<Export> {
        self.secondary.export(&self.group, volume, kind)
    }

    /// Opens one of those.
    pub fn open_on_secondary(&self, volume: &VolumeId, kind: ExportKind) -> Result<Client> {
        Ok(Client::connect(&self.on_secondary(volume, kind)?)?)
    }
}
