//! The suite on a whole cluster (T5): what a platform team does, with the faults it fears.
//!
//! ```text
//!   provider   a cluster and its power switch: local namespaces, or kind
//!   world      what every scenario has: the API, kubectl, the switch, the clock
//!   install    helm install … uninstall, and that nothing is left
//!   shop       the workload: a StatefulSet whose pod keeps a ledger over two block volumes
//!   ledger     how a pod keeps one, and what it noted on its node
//!   node_loss, added_disk, partition, restarts, outage, ports, roles      the scenarios
//! ```
//!
//! A scenario is a function of the world. Each step is printed with how long it took.

mod added_disk;
mod install;
mod ledger;
mod node_loss;
mod outage;
mod partition;
mod ports;
mod provider;
mod restarts;
mod roles;
mod shop;
mod world;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;

use world::World;

/// How the suite is run.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// How often each scenario is played.
    #[arg(long, default_value_t = 1)]
    pub runs: u32,
    /// Only scenarios whose name contains this.
    #[arg(long)]
    pub only: Option<String>,
    /// Leave the cluster and the installation as they are at the end, for looking at them.
    #[arg(long)]
    pub keep: bool,
    /// Use the images that are there.
    #[arg(long)]
    pub no_images: bool,
}

/// A scenario by its name.
type Scenario = (&'static str, fn(&World) -> Result<()>);

/// In the order in which they are played. `roles` looks at what the others asked for, so it is last.
const SCENARIOS: [Scenario; 7] = [
    ("node-loss", node_loss::play),
    ("added-disk", added_disk::play),
    ("partition", partition::play),
    ("engine-restarts", restarts::play),
    ("api-outage", outage::play),
    ("ports", ports::play),
    ("roles", roles::play),
];

/// Brings a cluster up, installs, plays the scenarios, uninstalls and looks for what is left.
pub fn run(options: &Options) -> Result<ExitCode> {
    let provider = provider::choose(!options.no_images, options.keep)?;
    let world = World::new(provider)?;
    let wanted = |name: &str| options.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    let mut verdicts = Vec::new();
    let played = (|| -> Result<()> {
        let before = install::inventory(&world)?;
        install::install(&world)?;
        for (name, play) in SCENARIOS.iter().filter(|(name, _)| wanted(name)) {
            for run in 1..=options.runs {
                println!("── {name}, run {run} of {}", options.runs);
                let verdict = play(&world);
                if let Err(error) = &verdict {
                    println!("FAILED {name}: {error:#}");
                    world.save_evidence(name);
                }
                let failed = verdict.is_err();
                verdicts.push((*name, verdict.is_ok()));
                // What is half done would judge the next scenario.
                if failed && !options.keep {
                    shop::remove(&world).context("after the failure")?;
                }
            }
        }
        if options.keep {
            return Ok(());
        }
        install::uninstall(&world)?;
        install::compare(&before, &install::inventory(&world)?)
    })();
    if let Err(error) = &played {
        println!("FAILED: {error:#}");
        world.save_evidence("suite");
    }
    if options.keep {
        println!("export KUBECONFIG={}", world.kubeconfig().display());
    }
    let passed = verdicts.iter().filter(|(_, good)| *good).count();
    let failed = verdicts.len() - passed + usize::from(played.is_err());
    println!("test result: {passed} passed; {failed} failed");
    if failed > 0 {
        bail!("the suite failed; what was seen is in {}", World::evidence().display());
    }
    Ok(ExitCode::SUCCESS)
}
