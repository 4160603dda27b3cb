//! `kubectl understudy`, as people type it.

use std::process::Command;

use serde_json::json;
use understudy_crds::conditions::PROTECTED;
use understudy_tests::harness::tools;

use super::objects::reason;
use super::stage::{Stage, is_possible};

/// What it printed, and whether it was content.
pub(super) fn understudy(stage: &Stage, words: &[&str]) -> (bool, String) {
    let mut command = Command::new(tools::own("kubectl-understudy").unwrap());
    command.args(words).arg("--kubeconfig").arg(stage.bench.kubeconfig());
    command.stdin(std::process::Stdio::null());
    let output = command.output().unwrap();
    let [out, err] =
        [&output.stdout, &output.stderr].map(|b| String::from_utf8_lossy(b).into_owned());
    (output.status.success(), format!("{out}{err}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn people_look_make_a_checkpoint_and_fail_over() {
    if !is_possible("kubectl understudy") {
        return;
    }
    let mut stage = Stage::start(&["a", "b"]).await;
    let (good, text) = understudy(&stage, &["status", "-A"]);
    assert!(good && text.contains("nothing is replicated"), "{text}");
    stage.claim("root", "a", 4 << 20).await;
    stage.replicate("web", &["root"], &json!({}));
    stage.until("web", "running", |o| reason(o, PROTECTED) == "Running").await;

    let (good, text) = understudy(&stage, &["checkpoint", "shop/web", "--wait"]);
    assert!(good && text.contains("is complete on both sides"), "{text}");
    let (good, text) = understudy(&stage, &["status", "-n", "shop", "web"]);
    assert!(
        good && text.contains("shop/web: protected") && text.contains("what to do: nothing"),
        "{text}"
    );
    let (good, text) = understudy(&stage, &["status"]);
    assert!(good && text.contains("in namespace default; shop has 1"), "{text}");
    let (good, text) = understudy(&stage, &["status", "nothing"]);
    assert!(!good && text.contains("no BlockReplication nothing in namespace default"), "{text}");

    // Nobody is asked without a terminal, and nothing is done unasked.
    let (good, text) = understudy(&stage, &["failover", "shop/web"]);
    assert!(!good && text.contains("lost for good") && text.contains("--yes"), "{text}");
    assert!(text.contains("WARNING: a still answers"), "{text}");
    let (good, text) = understudy(&stage, &["failover", "shop/web", "--target", "c", "--yes"]);
    assert!(!good && text.contains("its secondary is b"), "{text}");

    stage.lose("a").await;
    stage.until("web", "lost", |o| reason(o, PROTECTED) == "PrimaryUnreachable").await;
    let (good, text) = understudy(&stage, &["doctor"]);
    assert!(!good, "{text}");
    for fault in ["node/a  NodeNotReady", "br/shop/web  PrimaryLost", "failover shop/web"] {
        assert!(text.contains(fault), "no {fault} in {text}");
    }
    let (good, text) = understudy(&stage, &["failover", "shop/web", "--yes"]);
    assert!(good && text.contains("b serves the volumes"), "{text}");
    let (good, text) = understudy(&stage, &["status", "-A"]);
    assert!(good && text.contains("NO: Solo"), "{text}");
}
