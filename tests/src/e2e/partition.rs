//! The node is only cut off: its pod goes on writing, on a disk that somebody else has by now.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::jiff::Timestamp;

use super::world::{World, text};
use super::{node_loss, shop};
use crate::ledger::went_back;

pub(super) fn play(world: &World) -> Result<()> {
    shop::apply(world)?;
    let old = shop::WEB.wait_for_pod(world, |_| true)?;
    shop::WEB.wait_for_writes(world, &old.node, 100)?;
    shop::protect(world)?;

    let before = shop::status(world)?;
    world.provider.set_link(&old.node, false)?;
    world.step(&format!("{} is cut off", old.node));
    world.wait_for_node(&old.node, false)?;
    let (new, prefix) = node_loss::fail_over(world, &old)?;
    shop::WEB.wait_for_writes(world, &new.node, 100)?;

    // The cut-off pod has written on: none of that may be seen again, and its device must fail.
    let alone = shop::WEB.wait_for_writes(world, &old.node, 100)?;
    ensure!(alone > prefix, "the cut-off pod wrote nothing: nothing was shown");
    world.step(&format!("the cut-off pod is at record {alone} of its own"));
    world.provider.set_link(&old.node, true)?;
    world.wait_for_node(&old.node, true)?;
    let aftermath = World::wait("the old device fails", Duration::from_secs(90), || {
        Ok(shop::WEB.notes(world, &old.node)?.1.filter(|text| text.contains(" error ")))
    })?;
    world.step("the old device has failed");
    let cut: Timestamp = text(&before["checkpoint"]["cutTime"]).parse().context("no cut time")?;
    node_loss::judge(world, shop::WEB, &old.node, prefix, Some(cut))?;
    node_loss::come_back(world, &old, &new)?;

    let (journal, later) = shop::WEB.notes(world, &old.node)?;
    let aftermath = later.unwrap_or(aftermath);
    if let Some(line) = went_back(&aftermath, &shop::plan()?, journal.last()) {
        anyhow::bail!("the old device went back in time: {line}");
    }
    let answers = |line: &&str| line.contains(" newest ");
    let first_error = aftermath.lines().position(|line| line.contains(" error "));
    let revived = aftermath.lines().skip(first_error.unwrap_or(0)).find(answers);
    ensure!(revived.is_none(), "the old device answered after it had failed: {revived:?}");

    // Whatever reached the promoted disks would break the chain of the ledger that goes on there.
    shop::WEB.wait_for_writes(world, &new.node, 100)?;
    world.kubectl.run(["delete", "pod", "-n", shop::NAMESPACE, "web-0", "--timeout=60s"])?;
    let again = shop::WEB.wait_for_pod(world, |pod| pod.uid != new.uid)?;
    let found = shop::WEB.found(world)?;
    let written = shop::WEB.notes(world, &new.node)?.0;
    let last = if again.node == new.node { written.after } else { written.last() };
    ensure!(
        found == last || found == last + 1,
        "a new pod found the records up to {found}; the pod before it completed {last}"
    );
    world.step("nothing of the cut-off pod has reached the promoted disks");
    shop::remove(world)
}
