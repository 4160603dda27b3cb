//! The operator is killed after every single change that it makes, and the API server likewise: each
//! action still ends as it should.
//!
//! ```text
//!   life n:  start ─► checkpoint ─► growth ─► a volume more ─► new secondary ─► stop ─► start again
//!              ─► failover ─► failover from a lost node ─► its return ─► end
//!            in each of them, the victim is killed right after the n-th change, and comes back
//!   lives 1, 2, … until no action has an n-th change
//! ```
//!
//! A change is a write to the API server or a call to an engine that does something, as a gate between
//! them sees it. All lives take minutes (`make kills`); without being asked for all, some are played,
//! chosen by a seed.

use std::time::{Duration, Instant};

use kube::Api;
use serde_json::{Value, json};
use understudy_core::engine::api::LinkState;
use understudy_crds::conditions::{FAILED_OVER, PROTECTED, RECONCILED};
use understudy_crds::{BlockReplication, ReplicationGroup};
use understudy_tests::harness::gate::Gate;
use understudy_tests::random::Random;

use super::objects::reason;
use super::stage::{Stage, is_possible};

const MIB: u64 = 1 << 20;

/// How long an action may take, with a victim that comes back in the middle.
const LIMIT: Duration = Duration::from_secs(90);

/// No action has so many changes; so many lives, and something spins.
const LIVES_MAX: usize = 60;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Victim {
    Operator,
    ApiServer,
}

/// One action of one life.
struct Played {
    action: &'static str,
    /// After which change the victim was killed.
    struck: Option<String>,
    took: Duration,
}

/// A life: one BlockReplication with fresh volumes.
struct Life<'a> {
    stage: &'a mut Stage,
    gate: &'a Gate,
    victim: Victim,
    n: usize,
    name: String,
    played: Vec<Played>,
}

impl Life<'_> {
    fn group(&self) -> String {
        format!("shop.{}", self.name)
    }

    fn volume(&self, claim: &str) -> String {
        format!("pvc-{claim}-{}", self.name)
    }

    async fn object(&self) -> Option<BlockReplication> {
        let api: Api<BlockReplication> = Api::namespaced(self.stage.client.clone(), "shop");
        api.get_opt(&self.name).await.ok().flatten()
    }

    async fn group_object(&self) -> Option<ReplicationGroup> {
        let api: Api<ReplicationGroup> = Api::all(self.stage.client.clone());
        api.get_opt(&self.group()).await.ok().flatten()
    }

    /// The sizes of a volume's replicas on these nodes.
    async fn sizes(&self, claim: &str, nodes: &[&str]) -> Vec<u64> {
        let volume = self.volume(claim).parse().unwrap();
        let mut sizes = Vec::new();
        for node in nodes {
            let engine = self.stage.engine(node).await;
            let replica = engine.as_ref().and_then(|e| e.replica(&volume));
            sizes.push(replica.map_or(0, |r| r.size.0));
        }
        sizes
    }

    fn patch(&self, patch: &Value) {
        let words = ["patch", "br", "-n", "shop", &self.name, "--type=merge", "-p"];
        let patch = patch.to_string();
        self.stage.kubectl.run(words.into_iter().chain([patch.as_str()])).unwrap();
    }

    /// Orders something and waits until it is done; the victim dies in between.
    async fn act(
        &mut self,
        action: &'static str,
        order: impl AsyncFnOnce(&mut Self),
        done: impl AsyncFn(&Self) -> bool,
    ) {
        let pid = match self.victim {
            Victim::Operator => self.stage.operators["first"].pid(),
            Victim::ApiServer => self.stage.bench.api_pid().unwrap(),
        };
        // Nothing is changed between the order and the first change that counts.
        let closed = self.gate.close().await;
        let began = Instant::now();
        order(self).await;
        self.gate.arm(self.n, pid);
        drop(closed);
        let mut dead = false;
        loop {
            if !dead && self.gate.struck().is_some() {
                dead = true;
                self.revive();
            }
            if done(self).await {
                break;
            }
            if began.elapsed() > LIMIT {
                let status = self.object().await.and_then(|object| object.status);
                panic!(
                    "{action} of {} did not end; killed after {:?}; changes: {:#?}\n{}\n{}",
                    self.name,
                    self.gate.struck(),
                    self.gate.disarm(),
                    serde_yaml::to_string(&status).unwrap(),
                    self.stage.log("operator-first"),
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.gate.disarm();
        let struck = self.gate.struck();
        if !dead && struck.is_some() {
            self.revive();
        }
        self.played.push(Played { action, struck, took: began.elapsed() });
    }

    fn revive(&mut self) {
        match self.victim {
            Victim::Operator => {
                self.stage.operators.clear();
                self.stage.operator("first");
            }
            Victim::ApiServer => {
                self.stage.bench.stop_api();
                self.stage.bench.start_api().unwrap();
            }
        }
    }

    /// Whether it is protected, from one node to another, and nothing is left to do.
    async fn runs(&self, primary: &str, secondary: &str) -> bool {
        let Some(object) = self.object().await else { return false };
        let status = object.status.clone().unwrap_or_default();
        reason(&object, PROTECTED) == "Running"
            && reason(&object, RECONCILED) == "Settled"
            && (status.primary.as_deref(), status.secondary.as_deref())
                == (Some(primary), Some(secondary))
    }

    async fn order_failover(&self, target: &str) {
        let generation = self.group_object().await.unwrap().spec.generation;
        let order = json!({ "generation": generation, "target": target });
        self.patch(&json!({ "spec": { "failover": { "trigger": order } } }));
    }

    async fn play(&mut self) {
        let (root, data) = (format!("root-{}", self.name), format!("data-{}", self.name));
        self.stage.claim(&root, "a", 4 * MIB).await;
        self.stage.claim(&data, "a", 4 * MIB).await;
        self.act(
            "start",
            async |life| {
                let more = json!({
                    "secondary": { "node": "b" }, "checkpoint": { "interval": "200ms" },
                });
                life.stage.replicate(&life.name, &[&root, &data], &more);
            },
            async |life| life.runs("a", "b").await,
        )
        .await;
        for claim in ["root", "data"] {
            let spec = self.stage.volume(&self.volume(claim)).await.spec;
            assert_eq!(spec.group.as_deref(), Some(self.group().as_str()));
        }

        self.act(
            "checkpoint",
            async |life| {
                life.patch(&json!({ "spec": { "checkpoint": { "trigger": "now" } } }));
            },
            async |life| {
                let status = life.object().await.and_then(|object| object.status);
                status.and_then(|s| s.trigger).is_some_and(|t| t.token == "now")
            },
        )
        .await;

        self.act(
            "growth",
            async |life| {
                let volume = life.volume("data");
                let patch = json!({ "spec": { "sizeBytes": 8 * MIB } }).to_string();
                let words = ["patch", "rvol", &volume, "--type=merge", "-p", &patch];
                life.stage.kubectl.run(words).unwrap();
            },
            async |life| {
                let members = life.group_object().await.map(|group| group.spec.members);
                let said = members.is_some_and(|m| m[1].size_bytes == 8 << 20);
                said && life.sizes("data", &["a", "b"]).await == [8 * MIB; 2]
                    && life.runs("a", "b").await
            },
        )
        .await;

        let extra = format!("extra-{}", self.name);
        self.stage.claim(&extra, "a", 4 * MIB).await;
        self.act(
            "join",
            async |life| {
                let claims = [&root, &data, &extra].map(|claim| json!({ "name": claim }));
                let source = json!({ "persistentVolumeClaims": claims });
                life.patch(&json!({ "spec": { "source": source } }));
            },
            async |life| {
                let members = life.group_object().await.map(|group| group.spec.members);
                members.is_some_and(|m| m.len() == 3 && m[2].joining.is_none())
                    && life.sizes("extra", &["a", "b"]).await == [4 * MIB; 2]
                    && life.runs("a", "b").await
            },
        )
        .await;

        self.act(
            "new secondary",
            async |life| life.patch(&json!({ "spec": { "secondary": { "node": "c" } } })),
            async |life| life.runs("a", "c").await,
        )
        .await;
        assert_eq!(self.sizes("data", &["c"]).await, [8 * MIB]);

        self.act(
            "stop",
            async |life| life.patch(&json!({ "spec": { "state": "Stopped" } })),
            async |life| {
                let stopped =
                    life.object().await.is_some_and(|o| reason(&o, PROTECTED) == "Stopped");
                let engine = life.stage.engine("a").await.unwrap();
                let group = engine.group(&life.group().parse().unwrap()).cloned();
                stopped && group.is_some_and(|g| g.link == LinkState::Solo)
            },
        )
        .await;

        self.act(
            "start again",
            async |life| life.patch(&json!({ "spec": { "state": "Running" } })),
            async |life| life.runs("a", "c").await,
        )
        .await;

        let generation = self.group_object().await.unwrap().spec.generation;
        self.act(
            "failover",
            async |life| life.order_failover("c").await,
            async |life| life.runs("c", "a").await,
        )
        .await;
        let raised = self.group_object().await.unwrap().spec.generation;
        assert_ne!(raised, generation);

        // The node is lost, and its pod with it.
        let pod = format!("db-{}", self.name);
        self.stage.pod(&pod, "c", &data);
        self.stage.lose("c").await;
        self.stage
            .until(&self.name, "lost", |o| reason(o, PROTECTED) == "PrimaryUnreachable")
            .await;
        self.act(
            "failover from a lost node",
            async |life| life.order_failover("a").await,
            async |life| {
                let object = life.object().await;
                let primary = object.as_ref().and_then(|o| o.status.clone()?.primary);
                let there = life.stage.kubectl.run(["get", "pods", "-n", "shop", "-o", "name"]);
                object.is_some_and(|o| reason(&o, FAILED_OVER) == "Promoted")
                    && primary.as_deref() == Some("a")
                    && there.is_ok_and(|names| !names.contains(&pod))
            },
        )
        .await;
        assert_ne!(self.group_object().await.unwrap().spec.generation, raised);

        self.act(
            "return",
            async |life| life.stage.bring_back("c").await,
            async |life| life.runs("a", "c").await,
        )
        .await;

        self.act(
            "end",
            async |life| {
                let words = ["delete", "br", "-n", "shop", &life.name, "--wait=false"];
                life.stage.kubectl.run(words).unwrap();
            },
            async |life| {
                let api: Api<BlockReplication> = Api::namespaced(life.stage.client.clone(), "shop");
                matches!(api.get_opt(&life.name).await, Ok(None))
            },
        )
        .await;
        assert!(self.stage.group(&self.group()).await.is_none());
        for (claim, size) in [("root", 4 * MIB), ("data", 8 * MIB), ("extra", 4 * MIB)] {
            let spec = self.stage.volume(&self.volume(claim)).await.spec;
            assert_eq!((spec.node.as_deref(), spec.group), (Some("a"), None));
            assert_eq!(u64::try_from(spec.size_bytes).unwrap(), size);
            assert_eq!(self.sizes(claim, &["a", "c"]).await, [size, 0], "the copy is deleted");
        }
    }
}

/// Plays these lives; ends with the first in which nobody died. How many points there were. After all,
/// nothing is left behind either.
async fn play(victim: Victim, lives: impl IntoIterator<Item = usize>, all: bool) -> usize {
    let gate = Gate::default();
    let mut stage = Stage::counted(&["a", "b", "c"], &gate).await;
    let mut points = 0;
    for n in lives {
        let name = format!("web-{n}");
        let mut life = Life { stage: &mut stage, gate: &gate, victim, n, name, played: Vec::new() };
        life.play().await;
        let mut last = true;
        for Played { action, struck, took } in life.played {
            if let Some(change) = struck {
                println!("{victim:?} {n:2} {action}: killed after {change}; ended in {took:.1?}");
                points += 1;
                last = false;
            }
        }
        if last {
            break;
        }
    }
    // What a replaced secondary kept is found and removed, after a while.
    let began = Instant::now();
    while all && !stage.engine("b").await.unwrap().replicas.is_empty() {
        assert!(began.elapsed() < LIMIT, "b: {:?}", stage.engine("b").await.unwrap().replicas);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    println!("{victim:?}: {points} points");
    points
}

/// All lives where they are asked for; else some, by a seed that is printed.
async fn play_some(victim: Victim) {
    if std::env::var("UNDERSTUDY_KILLS").is_ok_and(|asked| asked == "all") {
        let points = play(victim, 1..=LIVES_MAX, true).await;
        assert!(points > 30, "{points} points: what is counted?");
        return;
    }
    let (mut random, seed) = Random::from_environment();
    println!("UNDERSTUDY_SEED={seed}");
    // An early change, which every action has, and a later one.
    let mut below = |end| usize::try_from(random.below(end)).unwrap();
    let lives = [1 + below(3), 4 + below(5)];
    let lives = if victim == Victim::Operator { &lives[..] } else { &lives[..1] };
    assert!(play(victim, lives.iter().copied(), false).await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_killed_after_any_change_comes_to_the_same_end() {
    if is_possible("an operator killed after any change") {
        play_some(Victim::Operator).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_killed_after_any_change_leads_to_the_same_end() {
    if is_possible("an API server killed after any change") {
        play_some(Victim::ApiServer).await;
    }
}
