//! The main job: the node of a pod loses power; a person fails over; the pod goes on elsewhere.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use super::ledger::{Ledger, Pod};
use super::shop;
use super::world::{World, text};

pub(super) fn play(world: &World) -> Result<()> {
    shop::apply(world)?;
    let old = shop::WEB.wait_for_pod(world, |_| true)?;
    shop::WEB.wait_for_writes(world, &old.node, 100)?;
    shop::protect(world)?;
    shop::WEB.wait_for_writes(world, &old.node, 100)?;

    let before = shop::status(world)?;
    world.provider.kill(&old.node)?;
    world.step(&format!("{} has lost its power", old.node));
    world.wait_for_node(&old.node, false)?;
    let (new, prefix) = fail_over(world, &old)?;

    world.provider.start(&old.node)?;
    world.wait_for_node(&old.node, true)?;
    let cut: Timestamp = text(&before["checkpoint"]["cutTime"]).parse().context("no cut time")?;
    judge(world, shop::WEB, &old.node, prefix, Some(cut))?;
    come_back(world, &old, &new)?;

    expand(world)?;
    shop::remove(world)
}

/// One command; then the pod must run elsewhere and hold a legal prefix.
pub(super) fn fail_over(world: &World, old: &Pod) -> Result<(Pod, u64)> {
    shop::understudy(world, &["failover", "shop/web", "--yes"])?;
    world.step("kubectl understudy failover");
    let new = shop::WEB.wait_for_pod(world, |pod| pod.uid != old.uid)?;
    ensure!(new.node != old.node, "the pod is on {} again, which is gone", new.node);
    let prefix = shop::WEB.found(world)?;
    world.step(&format!("the pod runs on {} and found the records up to {prefix}", new.node));
    Ok((new, prefix))
}

/// Whether the prefix is one that the old node's journal allows.
pub(super) fn judge(
    world: &World,
    ledger: Ledger,
    old: &str,
    prefix: u64,
    cut: Option<Timestamp>,
) -> Result<()> {
    let (journal, _) = ledger.notes(world, old)?;
    let cut = cut.map(|cut| u64::try_from(cut.as_microsecond())).transpose()?;
    let bounds = journal.bounds(cut);
    ensure!(
        (bounds.at_least..=bounds.at_most).contains(&prefix),
        "the promoted disks hold the records up to {prefix}; allowed are {bounds:?}"
    );
    ensure!(prefix > 0, "the promoted disks are empty");
    world.step(&format!(
        "{}: {prefix} of {} records survived; {} had completed before the checkpoint that was shown",
        ledger.pod,
        journal.last(),
        bounds.at_least
    ));
    Ok(())
}

/// The old primary becomes the secondary.
pub(super) fn come_back(world: &World, old: &Pod, new: &Pod) -> Result<()> {
    World::wait("the old primary is the secondary", Duration::from_mins(3), || {
        let status = shop::status(world)?;
        let good = status["state"] == "Running"
            && text(&status["primary"]) == new.node
            && text(&status["secondary"]) == old.node;
        Ok(good.then_some(()))
    })?;
    world.step(&format!("{} is the secondary, Running", old.node));
    Ok(())
}

/// Grows a volume under the pod.
fn expand(world: &World) -> Result<()> {
    let claim = "/api/v1/namespaces/shop/persistentvolumeclaims/data-web-0";
    let size = "128Mi";
    world.patch(claim, &json!({ "spec": { "resources": { "requests": { "storage": size } } } }))?;
    World::wait("the claim has grown", Duration::from_mins(2), || {
        let claim = world.get(claim)?.context("the claim is gone")?;
        Ok((claim["status"]["capacity"]["storage"] == size).then_some(()))
    })?;
    let words =
        ["exec", "-n", shop::NAMESPACE, "web-0", "--", "blockdev", "--getsize64", "/dev/data"];
    World::wait("the pod sees it", Duration::from_mins(1), || {
        Ok((world.kubectl.run(words)?.trim() == (128_u64 << 20).to_string()).then_some(()))
    })?;
    world.step("the disk has grown under the pod");
    Ok(())
}
