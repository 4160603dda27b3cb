//! The API server is down: checkpoints and the pod's I/O go on.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::shop;
use super::world::World;

/// How long it is down: many checkpoints.
const DOWN: Duration = Duration::from_secs(10);

pub(super) fn play(world: &World) -> Result<()> {
    shop::apply(world)?;
    let pod = shop::WEB.wait_for_pod(world, |_| true)?;
    shop::protect(world)?;
    let before = shop::status(world)?["checkpoint"]["epoch"].as_i64().unwrap_or(0);
    if !world.provider.set_api(false)? {
        println!("SKIPPED api-outage: this provider cannot stop its API server");
        return shop::remove(world);
    }
    world.step("the API server is down");
    let began = std::time::Instant::now();
    let first = shop::WEB.notes(world, &pod.node)?.0.last();
    while began.elapsed() < DOWN {
        shop::WEB.wait_for_writes(world, &pod.node, 10)?;
    }
    let last = shop::WEB.notes(world, &pod.node)?.0.last();
    world.step(&format!("{} records were written meanwhile", last - first));
    world.provider.set_api(true)?;
    world.step("the API server is back");
    let seconds = i64::try_from(DOWN.as_secs())?;
    World::wait("the status is current again", Duration::from_mins(1), || {
        let now = shop::status(world)?["checkpoint"]["epoch"].as_i64().unwrap_or(0);
        Ok((now > before + seconds).then_some(()))
    })?;
    let now = shop::WEB.wait_for_pod(world, |_| true)?;
    ensure!(now.uid == pod.uid, "the pod was replaced");
    world.step("checkpoints went on meanwhile");
    shop::remove(world)
}
