//! Plays a plan: begins each step, lets the world go on, notes what was seen.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use futures::future::{Either, select};
use understudy_core::overlay::Role;
use understudy_core::replication::{ExportKind, Group, GroupStatus, LinkState, Volume};
use understudy_core::sim::{Failure, Operation, Sim, SimHost};
use understudy_core::units::{Epoch, Generation, VolumeCount, VolumeIndex};

use super::broken::Broken;
use super::oracle::Oracle;
use super::plan::{Death, Op, Plan, Setting};
use super::shared::{Counts, Shared};
use super::world::{NAMES, Side, micros, read_all};
use crate::random::Random;

/// A peer that says nothing for this long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// After so long each side knows: the answer to a hello may take as long as the silence behind it.
const SILENCE_NOTICED: Duration = Duration::from_secs(11);

/// The player.
#[derive(Debug)]
pub(super) struct Player {
    pub(super) sim: Sim,
    pub(super) setting: Setting,
    pub(super) shared: Rc<Shared>,
    pub(super) sides: [Side; 2],
    /// Which side is the primary.
    pub(super) primary: usize,
    pub(super) generation: Generation,
    /// The primary has a peer, or expects one.
    pub(super) paired: bool,
    /// The last checkpoint that the primary reported complete.
    pub(super) reported: u64,
    /// Requests of the primary's present life in flight.
    pub(super) in_flight: Rc<Cell<usize>>,
    /// The highest epoch that this generation's primary was seen to open.
    pub(super) opened: u64,
    /// How each side died.
    pub(super) deaths: [Option<Death>; 2],
    /// How often the power of each side had failed when it died.
    pub(super) power_cuts: [u32; 2],
    /// A failover during which its node may have died: keep the consumer's writes?
    pub(super) promoting: Option<bool>,
    pub(super) frozen: [bool; 2],
    /// A flush failed there: until it is started again its disks refuse.
    pub(super) poisoned: [bool; 2],
    pub(super) partitioned: bool,
    /// Its pool is full.
    pub(super) full: [bool; 2],
    /// How many checkpoints the present life of the primary has dropped.
    dropped: u64,
    /// What each volume was asked to grow to.
    pub(super) target: Vec<u64>,
    /// Requests of the present consumer's life in flight.
    pub(super) consuming: Rc<Cell<usize>>,
    /// The most volumes that a checkpoint was reported to cover.
    pub(super) covered: VolumeCount,
    /// By side and volume: its replica is there.
    pub(super) made: [Vec<bool>; 2],
    /// What is written beside a growing secondary.
    pub(super) load: Random,
}

fn at_start(e: impl std::fmt::Debug) -> String {
    format!("at the start: {e:?}")
}

/// Generation number `n`.
pub(super) fn generation(n: u64) -> Generation {
    Generation { number: n, id: n }
}

impl Player {
    /// Both sides, started, with or without content.
    pub(super) async fn new(sim: &Sim, plan: &Plan) -> Result<Self, String> {
        let mut player = Self::create(sim, &plan.setting).await?;
        player.paired = true;
        player.begin().await.map_err(at_start)?;
        Ok(player)
    }

    /// Both sides, neither started.
    pub(super) async fn create(sim: &Sim, setting: &Setting) -> Result<Self, String> {
        let s = setting.clone();
        sim.set_disk_delay(micros(20)..micros(s.slowness[0]));
        sim.set_network_delay(micros(30)..micros(s.slowness[1]));
        sim.set_network_capacity(s.capacity);
        sim.set_intent_hot(s.intent_hot);
        sim.set_resync_settle(s.resync_settle);
        for (name, (all, replicas)) in NAMES.iter().zip(s.disk_slowness) {
            sim.node(name).set_disk_slowness(all, replicas);
        }
        let (first, volumes) = (s.first, s.sizes.len());
        let at_first = s.sizes.get(..first).unwrap_or_default();
        let a = Side::create(sim, 0, s.alignment[0], at_first).await.map_err(at_start)?;
        let b = Side::create(sim, 1, s.alignment[1], at_first).await.map_err(at_start)?;
        let shared = Shared {
            oracle: RefCell::new(Oracle::new(&s.room)),
            violation: RefCell::default(),
            injected: Cell::default(),
            ran_full: Cell::default(),
            consumer_life: Cell::default(),
            counts: Cell::default(),
            answered: Cell::default(),
        };
        Ok(Self {
            sim: sim.clone(),
            target: s.sizes.clone(),
            setting: s,
            shared: Rc::new(shared),
            sides: [a, b],
            primary: 0,
            generation: generation(2),
            paired: false,
            reported: 0,
            in_flight: Rc::default(),
            opened: NONE,
            poisoned: [false; 2],
            deaths: [None; 2],
            power_cuts: [0; 2],
            promoting: None,
            frozen: [false; 2],
            partitioned: false,
            full: [false; 2],
            dropped: 0,
            consuming: Rc::default(),
            covered: VolumeCount::default(),
            made: [(); 2].map(|()| (0..volumes).map(|v| v < first).collect()),
            load: Random::new(sim.seed() ^ 0x6c6f_6164),
        })
    }

    pub(super) fn secondary(&self) -> usize {
        1 - self.primary
    }

    pub(super) fn group(&self, side: usize) -> Option<Group<SimHost>> {
        self.sides[side].slot.get()
    }

    pub(super) fn status(&self, side: usize) -> Option<GroupStatus> {
        self.group(side).map(|g| g.status())
    }

    /// Opens a volume of a side, if it offers that now.
    pub(super) fn open(
        &self,
        side: usize,
        volume: usize,
        kind: ExportKind,
    ) -> Option<Volume<SimHost>> {
        let index = VolumeIndex::of(volume);
        self.group(side)?.volume(index, kind).ok()
    }

    /// Does one step.
    pub(super) async fn step(&mut self, op: Op) {
        self.notice();
        match op {
            Op::Write(v, range, kind) => self.write(v, range, kind),
            Op::Flush(v) => self.flush(v),
            Op::Read(v, range) => self.read(v, range),
            Op::ViewWrite(v, range, kind) => self.view_write(v, range, kind),
            Op::ViewRead(v, range) => self.view_read(v, range),
            Op::ViewFlush(v) => self.view_flush(v),
            Op::Checkpoint => self.checkpoint(),
            Op::Pause(n) => self.pause(n).await,
            Op::Settle => self.settle().await,
            Op::Drain => self.drain().await,
            Op::VerifyView => self.verify_view().await,
            Op::Failover(keep) => self.failover(keep).await,
            Op::Die(side, death) => self.die(side, death),
            Op::DieAtSync(side, n, when) => {
                let at = self.sim.sync_points(NAMES[side]) + n;
                self.sim.crash_at_sync(NAMES[side], at, when);
            }
            Op::Restart(side) => self.restart(side).await,
            Op::Rejoin => self.rejoin().await,
            Op::StartAgain => self.start_again().await,
            Op::CutLink => self.harm(|s| s.cut("a", "b")),
            Op::StallLink => self.harm(|s| s.stall("a", "b")),
            Op::Partition(from, direction) => {
                self.partitioned = true;
                self.harm(|s| s.partition(NAMES[from], NAMES[1 - from], direction));
            }
            Op::Heal => self.heal(),
            Op::Slow(n) => self.sim.set_disk_delay(micros(20)..micros(n.max(21))),
            Op::LocalError(v) => {
                let v = self.there(self.primary, v);
                self.shared.injected.set(true);
                let path = format!("volumes/v{v}/disk");
                self.sides[self.primary].host.inject(&path, Operation::Write, Failure::Nth(0));
            }
            Op::Freeze(side) if self.sides[side].slot.is_empty() => {}
            Op::Freeze(side) => {
                self.frozen[side] = true;
                self.sim.pause_node(NAMES[side]);
            }
            Op::Thaw(side) => self.thaw(side),
            Op::FlushError(side, v) => self.flush_error(side, self.there(side, v)),
            Op::Rot(place) => self.rot(place).await,
            Op::Agree => self.agree().await,
            Op::Begin => self.begin_again().await,
            Op::Join(both) => self.join(both).await,
            Op::Policy(side, which) => self.set_policy(side, which).await,
            Op::PoolFull(side, one_in) => self.pool_full(side, Failure::OneIn(one_in)),
            Op::PoolHasRoom(side) => self.pool_full(side, Failure::Never),
            Op::Expand(v, by) => self.expand(v, by).await,
            Op::ExpandSide(side, v, by) => {
                self.ask_for(v, by);
                self.grow(side, v).await;
            }
        }
        self.notice();
    }

    /// A volume of a side: this one, or another where it has no such.
    fn there(&self, side: usize, v: usize) -> usize {
        v % self.volumes(side).max(self.setting.first).max(1)
    }

    /// What was done so far, or what must not be.
    pub(super) fn verdict(&self) -> Result<Counts, (Broken, String)> {
        match &*self.shared.violation.borrow() {
            None => Ok(self.shared.counts.get()),
            Some(v) => Err(v.clone()),
        }
    }

    fn harm(&self, how: impl FnOnce(&Sim)) {
        self.shared.count(|c| c.cuts += 1);
        how(&self.sim);
    }

    pub(super) fn heal(&mut self) {
        self.partitioned = false;
        self.sim.heal("a", "b");
    }

    pub(super) fn thaw(&mut self, side: usize) {
        self.frozen[side] = false;
        self.sim.resume_node(NAMES[side]);
    }

    async fn pause(&self, n: u64) {
        self.sim.pause(micros(n)).await;
        let calm = self.paired && self.frozen == [false; 2];
        if micros(n) < SILENCE_MAX || !self.partitioned || !calm {
            return;
        }
        // Longer than any silence that is taken for life: both sides must say so (invariant 6). One that
        // begins within a hello is counted from its answer.
        self.sim.pause(SILENCE_NOTICED.saturating_sub(micros(n))).await;
        for side in [0, 1] {
            if self.sides[side].host.is_dead() {
                continue;
            }
            if let Some(s) = self.status(side)
                && s.link == LinkState::Running
            {
                let text = format!("partitioned for {n} us, but side {side} says it runs: {s:?}");
                self.shared.fail(Broken::Silent, text);
            }
        }
    }

    /// Until all requests of the primary have ended; they never take longer than a few `max_delay`s.
    pub(super) async fn settle(&self) {
        let side = &self.sides[self.primary];
        let in_flight = self.in_flight.clone();
        for _ in 0..20_000 {
            if in_flight.get() == 0 || side.host.is_dead() || self.frozen[self.primary] {
                return;
            }
            self.sim.pause(Duration::from_millis(10)).await;
        }
        let s = self.status(self.primary);
        self.shared.fail(Broken::Bounded, format!("{} requests hang: {s:?}", in_flight.get()));
    }

    async fn drain(&self) {
        for _ in 0..100 {
            let Some(s) = self.status(self.primary) else { return };
            if s.missing == 0 && s.window == 0 && s.frames.0 == s.frames.2 {
                return;
            }
            self.sim.pause(Duration::from_millis(2)).await;
        }
    }

    /// What shows from outside: deaths, reported checkpoints.
    pub(super) fn notice(&mut self) {
        let (generation, answered) = self.shared.answered.get();
        if generation == self.generation.number && self.paired {
            self.reported = self.reported.max(answered);
        }
        for side in [0, 1] {
            // Its group may be closed meanwhile: that says nothing.
            if self.sides[side].host.is_dead() && self.deaths[side].is_none() {
                self.died(side, Death::Crash);
            }
        }
        let mut oracle = self.shared.oracle.borrow_mut();
        for side in [0, 1] {
            let Some(s) = self.status(side).filter(|s| s.generation == self.generation) else {
                continue;
            };
            let n = s.checkpoint.epoch.0;
            let is_primary = s.role.is_some_and(|(r, _)| r == Role::Primary);
            if is_primary && s.epoch.0 < self.opened {
                let text = format!("epoch {} is open, and {} was before", s.epoch, self.opened);
                self.shared.fail(Broken::Epoch, text);
            }
            if is_primary {
                self.opened = s.epoch.0;
                let dropped = std::mem::replace(&mut self.dropped, s.counts.dropped_checkpoints);
                self.shared.count(|c| c.dropped += self.dropped.saturating_sub(dropped));
            }
            if n > 0 && self.paired {
                let now = oracle.tick();
                oracle.cut(n).1.before(now);
                if is_primary && s.link != LinkState::Solo {
                    self.reported = self.reported.max(n);
                    self.covered = self.covered.max(s.joined);
                }
            }
        }
    }

    /// `future`, as a task of a side; `None` if that dies first or it takes a virtual minute.
    pub(super) async fn call<T: 'static>(
        &self,
        side: usize,
        future: impl Future<Output = T> + 'static,
    ) -> Option<T> {
        let host = &self.sides[side].host;
        let died = self.sim.died(NAMES[side]);
        let limit = Box::pin(self.sim.pause(Duration::from_secs(90)));
        let call = Box::pin(host.call("model call", future));
        if host.is_dead() {
            return None;
        }
        match select(call, select(Box::pin(died), limit)).await {
            Either::Left((output, _)) => output,
            Either::Right((Either::Left(_), _)) => None,
            Either::Right((Either::Right(_), _)) => {
                if !self.frozen.iter().any(|f| *f) {
                    self.shared.fail(Broken::Bounded, format!("an operation of side {side} hangs"));
                }
                None
            }
        }
    }

    /// The volumes of a side's group, if they can be read; of a view those that its checkpoint covers.
    pub(super) async fn read_volumes(&self, side: usize, kind: ExportKind) -> Option<Vec<Vec<u8>>> {
        let mut all = Vec::new();
        let mut count = self.volumes(side);
        if kind == ExportKind::View {
            count = count.min(self.status(side)?.joined.get());
        }
        for v in 0..count {
            let volume = self.open(side, v, kind)?;
            all.push(self.call(side, async move { read_all(&volume).await }).await?.ok()?);
        }
        Some(all)
    }
}

/// No checkpoint.
pub(super) const NONE: u64 = Epoch::NONE.0;
