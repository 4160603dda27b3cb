//! What people read, as snapshots. `INSTA_UPDATE=always` writes them anew; then look at the difference.

mod failover;

use insta::assert_snapshot;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use understudy_crds::BlockReplication;

use super::doctor::{Finding, diagnose, listed, render};
use super::facts::Facts;
use super::failover::{loss, order};
use super::status::{describe, list, none_in};
use crate::desired::ObjectName;

const NOW: &str = "2026-06-01T12:00:00Z";
const BEFORE: &str = "2026-06-01T11:59:46Z";
const LONG_AGO: &str = "2026-06-01T09:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn of<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn condition(type_: &str, good: bool, reason: &str, message: &str) -> Value {
    json!({
        "type": type_, "status": if good { "True" } else { "False" },
        "reason": reason, "message": message, "lastTransitionTime": LONG_AGO,
    })
}

fn replication(name: &str, change: impl Fn(&mut Value)) -> BlockReplication {
    let mut object = json!({
        "metadata": { "name": name, "namespace": "shop" },
        "spec": { "source": { "persistentVolumeClaims": [{ "name": "root" }, { "name": "data" }] } },
        "status": {
            "group": format!("shop.{name}"),
            "stage": "Running", "state": "Running", "generation": "3-00000000000000aa",
            "primary": "node-a", "secondary": "node-b", "epoch": 813,
            "checkpoint": { "epoch": 812, "cutTime": BEFORE, "completionTime": BEFORE, "bytes": 65536 },
            "bytesAtRisk": 12288,
            "replicas": [
                { "node": "node-a", "role": "Primary", "reachable": true, "stage": "Running",
                  "checkpoint": 812, "missingBytes": 0, "observedTime": NOW },
                { "node": "node-b", "role": "Secondary", "reachable": true, "stage": "Running",
                  "checkpoint": 812, "observedTime": NOW },
            ],
            "conditions": [
                condition("Accepted", true, "Accepted", "fine"),
                condition("Protected", true, "Running", "checkpoints complete"),
                condition("Reconciled", true, "Settled", "nothing is left to do"),
            ],
        },
    });
    change(&mut object);
    of(object)
}

fn lost(name: &str) -> BlockReplication {
    replication(name, |o| {
        let status = &mut o["status"];
        for field in ["state", "stage", "epoch"] {
            status.as_object_mut().unwrap().remove(field);
        }
        status["replicas"][0]["reachable"] = json!(false);
        status["replicas"][0]["observedTime"] = json!(BEFORE);
        status["replicas"][0]["error"] = json!("connection refused");
        status["conditions"][1] =
            condition("Protected", false, "PrimaryUnreachable", "node-a gives no account");
    })
}

/// The disk of node-a's pool is not mounted.
fn unmounted() -> BlockReplication {
    let mut object = lost("web");
    let status = object.status.as_mut().unwrap();
    status.conditions.push(of(condition(
        "EnginesReachable",
        false,
        "WrongPool",
        "at a's address …",
    )));
    let a = &mut status.replicas[0];
    (a.reachable, a.error, a.stage, a.checkpoint) = (true, None, None, None);
    object
}

/// One volume joins, another is about to.
fn joining() -> BlockReplication {
    replication("web", |o| {
        o["status"]["joining"] = json!([
            { "volume": "pvc-extra", "sentPercent": 43 }, { "volume": "pvc-more" },
        ]);
    })
}

fn name() -> ObjectName {
    ObjectName { namespace: "shop".to_owned(), name: "web".to_owned() }
}

#[test]
fn status_lists_what_is_protected_and_what_is_not() {
    let refused = replication("db", |o| {
        o["status"] = json!({ "conditions": [
            condition("Accepted", false, "NotOurs", "claim shop/root has a volume of other.csi"),
        ]});
    });
    let objects = [replication("web", |_| {}), lost("queue"), refused];
    assert_snapshot!("list", list(&objects, now()));
    let none = [None, Some(&objects[..0]), Some(&objects[..])].map(|all| none_in("default", all));
    assert_snapshot!("list_of_nothing", list(&[], now()) + &none.concat());
}

#[test]
fn status_of_one_says_where_it_stands_and_what_to_do() {
    assert_snapshot!("protected", describe(&replication("web", |_| {}), now()));
    assert_snapshot!("lost", describe(&lost("web"), now()));
    assert_snapshot!("wrong_pool", describe(&unmounted(), now()));
    let merging = replication("web", |o| {
        let status = &mut o["status"];
        status["replicas"][0]["mergedBytes"] = json!(1 << 20);
        status["replicas"][0]["mergeBytes"] = json!(5 << 20);
        status["replicas"].as_array_mut().unwrap().remove(1);
        status.as_object_mut().unwrap().remove("secondary");
        status["conditions"][1] = condition("Protected", false, "Solo", "node-a is alone");
    });
    assert_snapshot!("alone", describe(&merging, now()));
    assert_snapshot!("joining", describe(&joining(), now()));
    let left = replication("web", |o| {
        o["status"]["leftBehind"] = json!([{ "volume": "pvc-extra", "node": "node-b" }]);
        let words = "the group goes on with the volumes it has: volume pvc-extra was left behind";
        o["status"]["conditions"][0] = condition("Accepted", false, "MembersChanged", words);
    });
    assert_snapshot!("left_behind", describe(&left, now()));
}

#[test]
fn a_failover_says_what_is_lost_before_it_asks() {
    let status = lost("web").status.unwrap();
    let found = order(&name(), &status, None).unwrap();
    assert_snapshot!("loss", loss(&name(), &status, &found, now()));
    let unmounted = unmounted().status.unwrap();
    assert_snapshot!("loss_with_a_wrong_pool", loss(&name(), &unmounted, &found, now()));
    let alive = replication("web", |_| {}).status.unwrap();
    assert_snapshot!("loss_of_a_living_primary", loss(&name(), &alive, &found, now()));
    let joining = joining().status.unwrap();
    assert_snapshot!("loss_while_a_volume_joins", loss(&name(), &joining, &found, now()));
}

/// An installation in which nothing is wrong.
fn sound() -> Facts {
    let node = |name: &str| {
        of(json!({
            "metadata": { "name": name, "labels": { "csi.understudy.dev/installation": "x" } },
            "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
        }))
    };
    let engine = |node: &str| {
        let container = |name: &str| {
            json!({
                "name": name, "ready": true, "image": "", "imageID": "", "restartCount": 0,
            })
        };
        of(json!({
            "metadata": {
                "name": format!("understudy-engine-{node}"),
                "labels": { "app.kubernetes.io/component": "engine" },
            },
            "spec": { "nodeName": node, "containers": [] },
            "status": { "containerStatuses": [container("engine"), container("attach"), container("certificates")] },
        }))
    };
    let report = || {
        of(json!({ "version": "0.1.0", "totalBytes": 1_u64 << 40, "availableBytes": 1_u64 << 39 }))
    };
    Facts {
        now: now(),
        namespace: "understudy".to_owned(),
        replications: vec![replication("web", |_| {})],
        nodes: vec![node("node-a"), node("node-b")],
        drivers: vec!["node-a".to_owned(), "node-b".to_owned()],
        reports: [("node-a".to_owned(), report()), ("node-b".to_owned(), report())].into(),
        parts: vec![engine("node-a"), engine("node-b")],
        persistent_volumes: vec![of(json!({
            "metadata": { "name": "pv" },
            "spec": { "claimRef": { "namespace": "shop", "name": "data" } },
        }))],
        lease: Some(of(json!({
            "metadata": {},
            "spec": { "holderIdentity": "operator-1", "renewTime": "2026-06-01T11:59:57.000000Z" },
        }))),
        ..Facts::default()
    }
}

fn broken(change: impl FnOnce(&mut Facts)) -> Vec<Finding> {
    let mut facts = sound();
    change(&mut facts);
    diagnose(&facts)
}

fn container<'a>(
    facts: &'a mut Facts,
    name: &str,
) -> &'a mut k8s_openapi::api::core::v1::ContainerStatus {
    let status = facts.parts[1].status.as_mut().unwrap();
    let all = status.container_statuses.as_mut().unwrap();
    all.iter_mut().find(|c| c.name == name).unwrap()
}

fn with_conditions(conditions: &[Value]) -> BlockReplication {
    replication("web", |o| o["status"]["conditions"] = json!(conditions))
}

type Case = (&'static str, fn(&mut Facts));

#[test]
fn a_sound_installation_has_no_findings() {
    assert_snapshot!("sound", render(&sound(), &diagnose(&sound())));
}

#[test]
fn each_fault_is_named_with_its_cause_and_a_remedy() {
    let cases: [Case; 30] = [
        ("OperatorDown", |f| f.lease = None),
        ("OperatorDown", |f| {
            let spec = f.lease.as_mut().unwrap().spec.as_mut().unwrap();
            spec.renew_time = Some(of(json!("2026-06-01T11:50:00.000000Z")));
        }),
        ("NodeNotReady", |f| {
            f.nodes[1].status = None;
        }),
        ("DriverMissing", |f| drop(f.drivers.pop())),
        ("DriverMissing", |f| f.nodes[1].metadata.labels = None),
        ("EngineMissing", |f| drop(f.parts.pop())),
        ("EngineDown", |f| {
            let found = container(f, "engine");
            found.ready = false;
            found.state = Some(of(json!({ "waiting": { "reason": "CrashLoopBackOff" } })));
        }),
        ("FuseMissing", |f| {
            let found = container(f, "attach");
            found.ready = false;
            found.last_state = Some(of(json!({
                "terminated": { "exitCode": 1, "message": "/dev/fuse is missing" },
            })));
        }),
        ("CertificatesDown", |f| container(f, "certificates").ready = false),
        ("CertificateMissing", |f| {
            let waiting = json!([{
                "name": "first-certificate", "ready": false, "image": "", "imageID": "", "restartCount": 0,
            }]);
            f.parts[1].status.as_mut().unwrap().init_container_statuses = Some(of(waiting));
        }),
        ("CertificateExpired", |f| {
            f.reports.get_mut("node-b").unwrap().error = Some("its certificate has expired".into());
        }),
        ("EngineSilent", |f| {
            f.reports.get_mut("node-b").unwrap().error = Some("connection refused".into());
        }),
        ("PoolFull", |f| f.reports.get_mut("node-b").unwrap().available_bytes = Some(1 << 30)),
        ("PoolLow", |f| f.reports.get_mut("node-b").unwrap().available_bytes = Some(1 << 36)),
        ("LeftoverReplica", |f| {
            f.reports.get_mut("node-b").unwrap().leftovers = vec!["pvc-1".to_owned()];
        }),
        ("CertificatePending", |f| {
            f.requests = vec![of(json!({
                "metadata": { "name": "understudy-engine-x", "creationTimestamp": LONG_AGO },
                "spec": { "request": "", "signerName": "understudy.dev/node", "username": "sa" },
            }))];
        }),
        ("CertificateDenied", |f| {
            f.requests = vec![of(json!({
                "metadata": { "name": "understudy-engine-x", "creationTimestamp": NOW },
                "spec": { "request": "", "signerName": "understudy.dev/node", "username": "sa" },
                "status": { "conditions": [
                    { "type": "Denied", "status": "True", "message": "engine/b is asked for from node a" },
                ]},
            }))];
        }),
        ("ClaimNotOurs", |f| {
            let told = condition("Accepted", false, "NotOurs", "a volume of other.csi");
            f.replications = vec![with_conditions(&[told])];
        }),
        ("VolumeInTwo", |f| {
            let told = condition("Accepted", false, "SourceConflict", "also replicated by shop/db");
            f.replications = vec![with_conditions(&[told])];
        }),
        ("OnHold", |f| {
            let told = condition("Reconciled", false, "ReplicaAhead", "the replica on b is ahead");
            f.replications = vec![with_conditions(&[told])];
        }),
        ("FailoverRefused", |f| {
            let told = condition("FailedOver", false, "StaleGeneration", "the group is at 5-…");
            f.replications = vec![with_conditions(&[told])];
        }),
        ("Degraded", |f| {
            f.replications =
                vec![with_conditions(&[condition("Protected", false, "Degraded", "")])];
        }),
        ("UndoFull", |f| {
            f.replications = vec![replication("web", |o| {
                o["status"]["conditions"] = json!([condition("Protected", false, "Degraded", "")]);
                o["status"]["replicas"][1]["error"] =
                    json!("UndoFull: the undo log is at its limit");
            })];
        }),
        ("NoSecondary", |f| {
            f.replications = vec![with_conditions(&[condition("Protected", false, "Solo", "")])];
        }),
        ("LeftBehind", |f| {
            f.replications = vec![replication("web", |o| {
                o["status"]["leftBehind"] = json!([{ "volume": "pvc-extra", "node": "node-b" }]);
            })];
        }),
        ("PrimaryLost", |f| f.replications = vec![lost("web")]),
        ("WrongPool", |f| f.replications = vec![unmounted()]),
        ("WrongPool", |f| {
            let told = condition("EnginesReachable", false, "WrongPool", "at node-b's address …");
            f.replications =
                vec![with_conditions(&[told, condition("Protected", false, "Solo", "")])];
        }),
        ("EndIsStuck", |f| {
            f.replications = vec![replication("web", |o| {
                o["metadata"]["deletionTimestamp"] = json!(LONG_AGO);
                let told = condition(
                    "Reconciled",
                    false,
                    "Progressing",
                    "waiting for the engine of node-a",
                );
                o["status"]["conditions"] = json!([told]);
            })];
        }),
        ("GroupLost", |f| {
            f.volumes = vec![of(json!({
                "metadata": { "name": "pvc-1" }, "spec": { "sizeBytes": 4096, "group": "shop.gone" },
            }))];
        }),
    ];
    let mut text = String::new();
    for (fault, change) in cases {
        let found = broken(change);
        assert_eq!(found.first().map(|f| f.fault), Some(fault), "{found:#?}");
        assert_eq!(found.len(), 1, "one fault, one finding: {found:#?}");
        assert!(!found[0].cause.is_empty() && !found[0].remedy.is_empty());
        text.push_str(&listed(&found));
    }
    assert_snapshot!("doctor", text);
}

#[test]
fn a_pod_that_does_not_end_is_told_apart_by_its_node() {
    let pod = |facts: &mut Facts| {
        facts.users = vec![of(json!({
            "metadata": { "namespace": "shop", "name": "db-0", "deletionTimestamp": LONG_AGO },
            "spec": {
                "nodeName": "node-b", "containers": [],
                "volumes": [{ "name": "d", "persistentVolumeClaim": { "claimName": "data" } }],
            },
        }))];
    };
    assert_eq!(broken(pod)[0].fault, "PodDoesNotEnd");
    let lost = broken(|f| {
        pod(f);
        f.nodes[1].status = None;
    });
    assert!(lost.iter().any(|f| f.fault == "PodOnLostNode" && f.remedy.contains("--force")));
}
