//! Start, stop, failover and their refusals: what fails leaves what was.

use std::time::Duration;

use super::pair::{self, G1, G2, Pair, at, fill, listen, pattern, policy, read, run, spec};
use crate::disk::ErrorKind;
use crate::overlay::{Policy, Role, Stage};
use crate::replication::ExportKind::{self, Primary, Secondary, View};
use crate::replication::{FailoverSpec, LinkState, StartSpec};
use crate::runtime::{Address, Buf};
use crate::sim::{Direction, Failure, Operation, Sim};
use crate::units::{ByteOffset, ByteRange, Epoch, Generation, VolumeIndex};

const SIZE: u64 = 1 << 20;
const ALL: ByteRange = ByteRange { start: 0, end: SIZE };
const LEN: usize = 1 << 20;
const V0: VolumeIndex = VolumeIndex(0);

async fn started(sim: &Sim) -> Pair {
    let pair = Pair::new(sim, &[SIZE], Some(0x11)).await;
    pair.start(policy()).await;
    pair
}

#[test]
fn a_start_that_fails_leaves_nothing_behind() {
    run(|sim| async move {
        let pair = Pair::new(&sim, &[SIZE], Some(0x11)).await;
        let role = |g: &crate::replication::Group<_>| g.status().role;
        let b = sim.node("b");
        let files = [
            "groups/g/undo-0",
            "groups/g/undo-1",
            "volumes/v0/active-0",
            "volumes/v0/active-map-1",
        ];
        for file in files {
            b.inject(file, Operation::Create, Failure::Nth(0));
            pair.secondary.start(spec(Role::Secondary, policy())).await.unwrap_err();
            assert_eq!(role(&pair.secondary), Some((Role::None, Stage::None)), "{file}");
            assert!(ExportKind::ALL.iter().all(|k| !pair.secondary.offers(*k)), "{file}");
        }
        sim.node("a").inject("groups/g/intent", Operation::Create, Failure::Nth(0));
        pair.primary.start(spec(Role::Primary, policy())).await.unwrap_err();
        assert_eq!(role(&pair.primary), Some((Role::None, Stage::None)));
        assert!(ExportKind::ALL.iter().all(|k| !pair.primary.offers(*k)));
        assert!(pair.primary.get_error(G1).is_err() && pair.primary.checkpoint(G1).await.is_err());
        pair.start(policy()).await;
        assert_eq!(pattern(&pair.volume(View), ALL).await, [(0x11, LEN)]);
    });
}

#[test]
fn a_promoted_replica_that_can_t_become_a_secondary_stays_what_it_was() {
    run(|sim| async move {
        let pair = started(&sim).await;
        pair.failover(false).await.unwrap();
        pair.merged().await;
        let now = pair.promoted();
        let b = sim.node("b");
        b.inject("groups/g/superblock", Operation::Write, Failure::Nth(0));
        let spec = StartSpec {
            generation: Generation { number: 6, id: 1 },
            ..spec(Role::Secondary, policy())
        };
        pair.secondary.start(spec).await.unwrap_err();
        assert_eq!(pair.secondary.status().role, Some((Role::Primary, Stage::Done)));
        assert_eq!(pattern(&now, ALL).await, [(0x11, LEN)], "its device goes on");
    });
}

#[test]
fn a_peer_that_is_too_small_is_refused_by_name_and_the_vm_goes_on() {
    run(|sim| async move {
        let (a, b) = (sim.node("a"), sim.node("b"));
        let primary = pair::group(&a, &[2 * SIZE], Some(0x11)).await;
        let secondary = pair::group(&b, &[SIZE], None).await;
        listen(&b, "b", &secondary);
        secondary.start(spec(Role::Secondary, policy())).await.unwrap();
        primary.start(spec(Role::Primary, policy())).await.unwrap();
        sim.pause(Duration::from_secs(1)).await;
        let error = primary.get_error(G1).unwrap().unwrap();
        assert!(
            error.contains("expand the secondary") && error.contains("v0 has 2097152 bytes"),
            "{error}"
        );
        fill(&primary.volume(V0, Primary).unwrap(), ALL, 0x22).await.unwrap();
        assert_eq!(pattern(&secondary.volume(V0, Secondary).unwrap(), ALL).await, [(0, LEN)]);
        assert_eq!(secondary.volume(V0, View).unwrap_err().kind(), ErrorKind::NotPermitted);
        let failover = FailoverSpec { replace: G1, new: G2, keep_active: false };
        assert_eq!(secondary.failover(failover).await.unwrap_err().kind(), ErrorKind::NotPermitted);
    });
}

#[test]
fn a_second_start_is_fine_when_it_says_the_same_and_refused_when_not() {
    run(|sim| async move {
        let pair = started(&sim).await;
        fill(&pair.volume(Primary), at(0, 4096), 0x22).await.unwrap();
        pair.secondary.start(spec(Role::Secondary, policy())).await.unwrap();
        pair.primary.start(spec(Role::Primary, policy())).await.unwrap();
        assert_eq!(pair.checkpoint().await, Epoch(2), "nothing began anew");
        let as_primary = spec(Role::Primary, policy());
        assert_eq!(
            pair.secondary.start(as_primary).await.unwrap_err().kind(),
            ErrorKind::NotPermitted
        );
        let inbound = StartSpec { inbound: true, ..spec(Role::Secondary, policy()) };
        assert_eq!(
            pair.secondary.start(inbound).await.unwrap_err().kind(),
            ErrorKind::NotPermitted
        );
        let solo = StartSpec { peer: None, ..spec(Role::Primary, policy()) };
        assert_eq!(pair.primary.start(solo).await.unwrap_err().kind(), ErrorKind::NotPermitted);
        assert_eq!(pair.checkpoint().await, Epoch(3));
    });
}

#[test]
fn every_call_of_another_generation_is_refused() {
    run(|sim| async move {
        let pair = started(&sim).await;
        let stale = Generation { number: 1, id: 7 };
        for group in [&pair.primary, &pair.secondary] {
            for generation in [stale, Generation { number: G1.number, id: 99 }, G2] {
                let kinds = [
                    group.checkpoint(generation).await.unwrap_err().kind(),
                    group.get_error(generation).unwrap_err().kind(),
                    group.stop(generation, false).await.unwrap_err().kind(),
                    group.stop(generation, true).await.unwrap_err().kind(),
                    group.set_policy(generation, Policy::default()).await.unwrap_err().kind(),
                ];
                assert_eq!(kinds, [ErrorKind::Stale; 5], "{generation}");
            }
        }
        let replace = FailoverSpec { replace: stale, new: G2, keep_active: false };
        assert_eq!(pair.secondary.failover(replace).await.unwrap_err().kind(), ErrorKind::Stale);
        let backwards = FailoverSpec { replace: G1, new: stale, keep_active: false };
        assert_eq!(
            pair.secondary.failover(backwards).await.unwrap_err().kind(),
            ErrorKind::Invalid
        );
        let view = pair.volume(View);
        pair.failover(false).await.unwrap();
        assert_eq!(view_error(&view).await, ErrorKind::Stale);
        assert_eq!(pair.secondary.get_error(G1).unwrap_or(None), None);
        let old = spec(Role::Secondary, policy());
        pair.merged().await;
        assert_eq!(pair.secondary.start(old).await.unwrap_err().kind(), ErrorKind::Stale);
        // Asked again by someone who did not hear the answer.
        pair.failover(false).await.unwrap();
    });
}

async fn view_error(view: &impl crate::disk::Disk) -> ErrorKind {
    view.read(ByteOffset(0), Buf::new(512)).await.1.unwrap_err().kind()
}

#[test]
fn a_stop_leaves_both_sides_at_a_last_checkpoint_and_the_primary_solo() {
    run(|sim| async move {
        let pair = started(&sim).await;
        let (p, view) = (pair.volume(Primary), pair.volume(View));
        fill(&p, at(0, SIZE / 2), 0x22).await.unwrap();
        fill(&view, at(SIZE / 2, 4096), 0x44).await.unwrap();
        pair.primary.stop(G1, false).await.unwrap();
        assert_eq!(pair.primary.status().link, LinkState::Solo);
        assert_eq!(pair.secondary.status().role, Some((Role::Secondary, Stage::None)));
        assert_eq!(pair.secondary.status().checkpoint.epoch, Epoch(2));
        assert!(
            ExportKind::ALL.iter().all(|k| !pair.secondary.offers(*k)),
            "the copy serves nobody"
        );
        fill(&p, ALL, 0x33).await.unwrap();
        assert_eq!(pattern(&p, ALL).await, [(0x33, LEN)]);
        pair.primary.stop(G1, false).await.unwrap();
        assert_eq!(pair.failover(true).await.unwrap(), Epoch(2), "by hand, later");
        assert_eq!(pattern(&pair.promoted(), ALL).await, [(0x22, LEN / 2), (0x11, LEN / 2)]);
        pair.merged().await;
        assert_eq!(pattern(&pair.promoted(), ALL).await, [(0x22, LEN / 2), (0x11, LEN / 2)]);
    });
}

#[test]
fn writes_go_on_during_a_stop_and_the_copy_holds_a_prefix_of_them() {
    run(|sim| async move {
        let pair = started(&sim).await;
        let p = pair.volume(Primary);
        let writes = async {
            for i in 0..200 {
                fill(&p, at(i * 4096, 4096), 0x22).await.unwrap();
            }
        };
        let stop = async {
            sim.pause(Duration::from_millis(3 + sim.seed() % 40)).await;
            pair.primary.stop(G1, false).await.unwrap();
        };
        futures::join!(writes, stop);
        assert_eq!(pair.primary.status().link, LinkState::Solo);
        pair.failover(false).await.unwrap();
        let runs = pattern(&pair.promoted(), ALL).await;
        let is_prefix = matches!(runs[..], [(0x11, _)] | [(0x22, _), (0x11, _)]);
        assert!(is_prefix && runs[0].1 % 4096 == 0, "{runs:?}");
    });
}

#[test]
fn a_stop_without_the_link_fails_and_abandoning_the_peer_does_not() {
    run(|sim| async move {
        let mut pair = started(&sim).await;
        let p = pair.volume(Primary);
        sim.partition("a", "b", Direction::Both);
        sim.cut("a", "b");
        sim.pause(Duration::from_millis(100)).await;
        fill(&p, at(0, SIZE / 2), 0x22).await.unwrap();
        pair.primary.stop(G1, false).await.unwrap_err();
        assert_eq!(pair.primary.status().link, LinkState::Degraded, "the replication goes on");
        pair.primary.stop(G1, true).await.unwrap();
        assert_eq!(pair.primary.status().link, LinkState::Solo);
        fill(&p, at(SIZE / 2, SIZE / 4), 0x33).await.unwrap();
        sim.heal("a", "b");
        sim.pause(Duration::from_secs(3)).await;
        assert_eq!(pair.secondary.status().link, LinkState::Degraded);
        assert_eq!(pattern(&pair.volume(View), ALL).await, [(0x11, LEN)]);
        sim.kill("b");
        pair.reopen_secondary().await;
        // Started anew, nothing that the copy holds is trusted: it is sent whole.
        pair.primary.start(spec(Role::Primary, policy())).await.unwrap();
        pair.wait_for(|p| p.primary.status().checkpoint.epoch != Epoch::NONE).await;
        let local = read(&p, ALL).await.unwrap();
        assert!(read(&pair.volume(View), ALL).await.unwrap() == local);
        assert!(read(&pair.volume(Secondary), ALL).await.unwrap() == local);
    });
}

#[test]
fn the_old_primary_returns_as_secondary_and_gets_everything() {
    run(|sim| async move {
        let pair = started(&sim).await;
        fill(&pair.volume(Primary), at(0, SIZE / 2), 0x22).await.unwrap();
        pair.checkpoint().await;
        fill(&pair.volume(Primary), at(SIZE / 4, SIZE / 2), 0x33).await.unwrap();
        sim.power_cut("a");
        pair.failover(false).await.unwrap();
        let now = pair.promoted();
        fill(&now, at(0, 4096), 0x55).await.unwrap();
        pair.merged().await;
        let a = sim.node("a");
        let back = pair::reopen(&a, 1).await.unwrap();
        assert_eq!(
            back.status().role,
            Some((Role::Primary, Stage::Running)),
            "it has not heard of it"
        );
        let anew = |role, peer| StartSpec {
            generation: G2,
            role,
            peer,
            policy: policy(),
            inbound: false,
            adopt: false,
        };
        back.start(anew(Role::Secondary, None)).await.unwrap();
        listen(&a, "a", &back);
        assert_eq!(
            back.volume(V0, View).unwrap_err().kind(),
            ErrorKind::NotPermitted,
            "not promotable yet"
        );
        pair.secondary.start(anew(Role::Primary, Some(Address::Unix("a".into())))).await.unwrap();
        fill(&pair.promoted(), at(SIZE - 4096, 4096), 0x66).await.unwrap();
        pair.secondary.checkpoint(G2).await.unwrap();
        let want = [(0x55, 4096), (0x22, LEN / 2 - 4096), (0x11, LEN / 2 - 4096), (0x66, 4096)];
        assert_eq!(pattern(&back.volume(V0, View).unwrap(), ALL).await, want);
        assert_eq!(pattern(&back.volume(V0, Secondary).unwrap(), ALL).await, want);
    });
}
