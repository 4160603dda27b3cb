//! Replicas that grow under a running group, and what a crash leaves of it.

use std::cell::RefCell;
use std::rc::Rc;

use super::pair::{self, G1, G2, at, fill, pattern, policy, reopen, spec};
use crate::disk::{Disk, Result};
use crate::overlay::Role;
use crate::replication::ExportKind::{Primary, Secondary, View};
use crate::replication::{ExportKind, FailoverSpec, Group, LinkState, Replica, Volume, serve_link};
use crate::runtime::Env;
use crate::sim::{Keep, Sim, SimHost, When};
use crate::units::{Epoch, VolumeIndex};

const SIZE: u64 = 1 << 20;
const LEN: usize = 1 << 20;
const V0: VolumeIndex = VolumeIndex(0);

/// A group that can be closed and opened again: nobody else holds it.
type Slot = Rc<RefCell<Option<Group<SimHost>>>>;

struct Two {
    sim: Sim,
    a: Slot,
    b: Slot,
    volumes: usize,
}

fn listen(host: &SimHost, slot: &Slot) {
    let listener = host.listen("b").unwrap();
    let (host2, slot) = (host.clone(), slot.clone());
    host.spawn("link listener", async move {
        loop {
            let stream = listener.accept().await;
            let (h, g) = (host2.clone(), slot.borrow().clone());
            host2.spawn("serve link", async move {
                serve_link(&h, stream, |_| g.ok_or_else(|| "none here".into())).await;
            });
        }
    });
}

impl Two {
    async fn new(sim: &Sim, primary: &[u64], secondary: &[u64], fills: [Option<u8>; 2]) -> Self {
        let (a, b) = (sim.node("a"), sim.node("b"));
        let slot = |g| Rc::new(RefCell::new(Some(g)));
        let two = Self {
            sim: sim.clone(),
            a: slot(pair::group(&a, primary, fills[0]).await),
            b: slot(pair::group(&b, secondary, fills[1]).await),
            volumes: primary.len(),
        };
        listen(&b, &two.b);
        two.group("b").start(spec(Role::Secondary, policy())).await.unwrap();
        two.group("a").start(spec(Role::Primary, policy())).await.unwrap();
        two
    }

    /// One volume of 11, its first quarter 22; all of it is checkpoint 2.
    async fn started(sim: &Sim) -> Self {
        let two = Self::new(sim, &[SIZE], &[SIZE], [Some(0x11), None]).await;
        two.in_sync().await;
        fill(&two.volume("a", Primary), at(0, SIZE / 4), 0x22).await.unwrap();
        two.group("a").checkpoint(G1).await.unwrap();
        two
    }

    fn slot(&self, node: &str) -> &Slot {
        if node == "a" { &self.a } else { &self.b }
    }

    fn group(&self, node: &str) -> Group<SimHost> {
        self.slot(node).borrow().clone().unwrap()
    }

    fn volume(&self, node: &str, kind: ExportKind) -> Volume<SimHost> {
        self.group(node).volume(V0, kind).unwrap()
    }

    fn size(&self, node: &str) -> u64 {
        self.group(node).names().members[0].1
    }

    async fn wait_for(&self, node: &str, holds: impl Fn(&Group<SimHost>) -> bool) {
        let limit = self.sim.node("a").now().after(std::time::Duration::from_mins(1));
        while !holds(&self.group(node)) {
            assert!(self.sim.node("a").now() < limit, "{:?}", self.group(node).status());
            self.sim.pause(std::time::Duration::from_millis(1)).await;
        }
    }

    async fn in_sync(&self) {
        self.wait_for("a", |g| {
            let s = g.status();
            s.link == LinkState::Running
                && s.missing == 0
                && s.window == 0
                && s.frames.0 == s.frames.2
        })
        .await;
    }

    /// Closes a group, expands its first volume, opens it again; `None` if the node dies meanwhile.
    async fn expand(&self, node: &str, size: u64) -> Option<Result<()>> {
        let host = self.sim.node(node);
        let (slot, host2, volumes) = (self.slot(node).clone(), host.clone(), self.volumes);
        let work = async move {
            let group = slot.take();
            if let Some(group) = group {
                group.shutdown().await;
            }
            // What was cut ends on its own.
            host2.sleep(std::time::Duration::from_millis(500)).await;
            Replica::<SimHost>::expand(&host2.dir("volumes/v0"), size).await?;
            let group = reopen(&host2, volumes).await?;
            *slot.borrow_mut() = Some(group);
            Ok(())
        };
        host.call("expand", work).await
    }

    async fn reopen(&self, node: &str) {
        let host = self.sim.node(node);
        *self.slot(node).borrow_mut() = Some(reopen(&host, self.volumes).await.unwrap());
        if node == "b" {
            listen(&host, &self.b);
        }
    }
}

const GROWN: [(u8, usize); 3] = [(0x22, LEN / 4), (0x11, 3 * LEN / 4), (0, LEN)];

/// Both sides have 2 SIZE and work.
async fn check_grown(two: &Two) {
    two.in_sync().await;
    assert_eq!((two.size("a"), two.size("b")), (2 * SIZE, 2 * SIZE));
    let all = at(0, 2 * SIZE);
    for (node, kind) in [("a", Primary), ("b", Secondary), ("b", View)] {
        assert_eq!(pattern(&two.volume(node, kind), all).await, GROWN, "{kind:?}");
    }
    fill(&two.volume("a", Primary), at(SIZE, SIZE / 2), 0x33).await.unwrap();
    let epoch = two.group("a").checkpoint(G1).await.unwrap();
    assert!(epoch > Epoch(2));
    let now = [(0x22, LEN / 4), (0x11, 3 * LEN / 4), (0x33, LEN / 2), (0, LEN / 2)];
    fill(&two.volume("a", Primary), all, 0x44).await.unwrap();
    two.in_sync().await;
    assert_eq!(pattern(&two.volume("b", View), all).await, now);
    let failover = FailoverSpec { replace: G1, new: G2, keep_active: false };
    two.group("b").failover(failover).await.unwrap();
    assert_eq!(pattern(&two.volume("b", Primary), all).await, now);
}

#[test]
fn a_group_grows_secondary_first_and_its_checkpoint_stays() {
    pair::run(|sim| async move {
        let two = Two::started(&sim).await;
        fill(&two.volume("b", View), at(0, 4096), 0x99).await.unwrap();
        two.volume("b", View).flush().await.unwrap();
        two.expand("b", 2 * SIZE).await.unwrap().unwrap();
        assert_eq!(two.size("b"), 2 * SIZE);
        // The consumer's own writes stay, and what is beyond the primary's end is zeroes.
        two.in_sync().await;
        let view = [(0x99, 4096), (0x22, LEN / 4 - 4096), (0x11, 3 * LEN / 4), (0, LEN)];
        assert_eq!(pattern(&two.volume("b", View), at(0, 2 * SIZE)).await, view);
        fill(&two.volume("a", Primary), at(SIZE / 2, 4096), 0x11).await.unwrap();
        two.group("a").checkpoint(G1).await.unwrap();
        two.expand("a", 2 * SIZE).await.unwrap().unwrap();
        two.expand("a", 2 * SIZE).await.unwrap().unwrap();
        assert!(two.expand("a", SIZE).await.unwrap().is_err(), "it never shrinks");
        two.reopen("a").await;
        check_grown(&two).await;
    });
}

#[test]
fn what_a_consumer_wrote_and_did_not_flush_outlives_the_growth_of_its_volume() {
    pair::run(|sim| async move {
        let two = Two::started(&sim).await;
        fill(&two.volume("b", View), at(0, 4096), 0x99).await.unwrap();
        two.expand("b", 2 * SIZE).await.unwrap().unwrap();
        let view = [(0x99, 4096), (0x22, LEN / 4 - 4096), (0x11, 3 * LEN / 4), (0, LEN)];
        assert_eq!(pattern(&two.volume("b", View), at(0, 2 * SIZE)).await, view);
    });
}

#[test]
fn a_primary_larger_than_its_secondary_is_refused_until_that_grows_too() {
    pair::run(|sim| async move {
        let two = Two::started(&sim).await;
        two.expand("a", 2 * SIZE).await.unwrap().unwrap();
        two.wait_for("a", |g| {
            g.get_error(G1).unwrap().is_some_and(|e| e.contains("expand the secondary's replica"))
        })
        .await;
        assert_eq!(two.group("b").status().checkpoint.epoch, Epoch(2));
        two.expand("b", 2 * SIZE).await.unwrap().unwrap();
        check_grown(&two).await;
    });
}

#[test]
fn an_expand_cut_off_anywhere_has_happened_or_not_and_goes_on_when_asked_again() {
    for (node, other) in [("a", "b"), ("b", "a")] {
        for when in [When::Before, When::After] {
            let mut points = 0;
            for n in 0.. {
                let sim = Sim::new(Sim::seed_or(7) + n);
                let s = sim.clone();
                let died = sim.block_on(async move {
                    s.set_keep(Keep::BySeed);
                    let two = Two::started(&s).await;
                    if node == "a" {
                        two.expand("b", 2 * SIZE).await.unwrap().unwrap();
                    }
                    two.in_sync().await;
                    s.crash_at_sync(node, s.sync_points(node) + n, when);
                    let died = two.expand(node, 2 * SIZE).await.is_none();
                    if died {
                        two.reopen(node).await;
                        assert!([SIZE, 2 * SIZE].contains(&two.size(node)), "{}", two.size(node));
                        two.in_sync().await;
                        let now = pattern(&two.volume("b", View), at(0, SIZE)).await;
                        assert_eq!(now, GROWN[..2], "point {n}");
                        two.expand(node, 2 * SIZE).await.unwrap().unwrap();
                    }
                    if two.size(other) == SIZE {
                        two.expand(other, 2 * SIZE).await.unwrap().unwrap();
                    }
                    if died {
                        check_grown(&two).await;
                    }
                    died
                });
                if !died {
                    break;
                }
                points += 1;
            }
            assert!(points >= 6, "only {points} points on {node}");
        }
    }
}

#[test]
fn what_a_secondary_has_beyond_its_primary_is_cleared_before_the_first_checkpoint() {
    pair::run(|sim| async move {
        let two = Two::new(&sim, &[SIZE], &[2 * SIZE], [Some(0x11), Some(0x77)]).await;
        two.in_sync().await;
        let all = at(0, 2 * SIZE);
        assert_eq!(pattern(&two.volume("b", View), all).await, [(0x11, LEN), (0, LEN)]);
        two.expand("a", 2 * SIZE).await.unwrap().unwrap();
        two.in_sync().await;
        assert_eq!(pattern(&two.volume("b", Secondary), all).await, [(0x11, LEN), (0, LEN)]);
    });
}

#[test]
fn what_the_peer_lacks_is_still_known_when_the_intent_log_grows() {
    // Large enough for another shape of the intent log: the second volume's marks move.
    const LARGE: u64 = 4 << 30;
    pair::run(|sim| async move {
        let two = Two::new(&sim, &[LARGE, SIZE], &[LARGE, SIZE], [None, None]).await;
        two.in_sync().await;
        two.expand("b", 3 * LARGE).await.unwrap().unwrap();
        two.in_sync().await;
        sim.partition("a", "b", crate::sim::Direction::Both);
        let second = |node, kind| two.group(node).volume(VolumeIndex(1), kind).unwrap();
        fill(&second("a", Primary), at(4096, 8192), 0x55).await.unwrap();
        two.expand("a", 3 * LARGE).await.unwrap().unwrap();
        let missing = two.group("a").status().missing;
        assert!((8192..64 << 20).contains(&missing), "{missing} bytes are missing");
        sim.heal("a", "b");
        two.in_sync().await;
        let got = pattern(&second("b", Secondary), at(0, 16384)).await;
        assert_eq!(got, [(0, 4096), (0x55, 8192), (0, 4096)]);
    });
}

#[test]
fn a_primary_that_was_closed_in_good_order_sends_nothing_in_vain() {
    pair::run(|sim| async move {
        let two = Two::started(&sim).await;
        fill(&two.volume("a", Primary), at(0, 4096), 0x77).await.unwrap();
        two.group("a").checkpoint(G1).await.unwrap();
        let group = two.a.take().unwrap();
        group.shutdown().await;
        drop(group);
        // What was cut ends on its own.
        sim.pause(std::time::Duration::from_millis(500)).await;
        two.reopen("a").await;
        assert_eq!(two.group("a").status().missing, 0);
        two.in_sync().await;
        let got = pattern(&two.volume("b", Secondary), at(0, 8192)).await;
        assert_eq!(got, [(0x77, 4096), (0x22, 4096)]);
    });
}
