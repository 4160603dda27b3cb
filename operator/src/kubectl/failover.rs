//! A failover by hand: what is lost is said first, then asked, then ordered and waited for.

use std::io::{BufRead, IsTerminal, Write};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use serde_json::json;
use understudy_crds::BlockReplicationStatus;
use understudy_crds::conditions::{FAILED_OVER, PROTECTED, failed_over, protected};

use super::pool;
use super::status::{checkpoint_age, condition};
use super::words::{age, bytes, table};
use super::{get, patch, until};
use crate::desired::ObjectName;
use crate::observe::now;

/// What is ordered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Order {
    /// The generation to replace.
    pub generation: String,
    /// The node that takes over.
    pub target: String,
}

/// What can be ordered now, or why nothing can.
pub fn order(
    name: &ObjectName,
    status: &BlockReplicationStatus,
    target: Option<&str>,
) -> Result<Order, String> {
    let Some(generation) = status.generation.clone() else {
        return Err(format!("{name} has not begun: there is nothing to fail over"));
    };
    let Some(secondary) = status.secondary.clone() else {
        return Err(format!(
            "{name} has no secondary: {} holds the only copy",
            status.primary.as_deref().unwrap_or("its primary")
        ));
    };
    if let Some(target) = target.filter(|t| *t != secondary) {
        return Err(format!(
            "{target} holds no copy of {name}: its secondary is {secondary}; leave --target out, or \
             name that one"
        ));
    }
    if status.checkpoint.as_ref().is_none_or(|c| c.epoch <= 0) {
        return Err(format!(
            "{secondary} has no complete checkpoint of {name} yet: its copy would not be consistent"
        ));
    }
    Ok(Order { generation, target: secondary })
}

/// What a failover costs, before it is ordered.
pub fn loss(
    name: &ObjectName,
    status: &BlockReplicationStatus,
    order: &Order,
    now: Timestamp,
) -> String {
    let primary = status.primary.as_deref().unwrap_or("the primary");
    let epoch = status.checkpoint.as_ref().map_or(0, |c| c.epoch);
    let old =
        checkpoint_age(status, now).map_or("of unknown age".to_owned(), |a| format!("{a} old"));
    let seen = status.replicas.iter().find(|r| Some(&r.node) == status.primary.as_ref());
    let seen = seen.and_then(|r| r.observed_time.as_ref()).map(|t| age(t.0, now));
    let counted = match (status.bytes_at_risk, seen) {
        (Some(count), Some(seen)) => format!("{}, as counted {seen} ago", bytes(count)),
        (Some(count), None) => bytes(count),
        (None, _) => format!("unknown: {primary} gives no account"),
    };
    let row = |what: &str, words: String| vec![format!("  {what}"), words];
    let mut rows = vec![
        row("lost for good", format!("what was written since ({counted})")),
        row(
            "pods",
            "those that use its volumes are deleted, and start again with the promoted disks".into(),
        ),
        row(
            primary,
            "its devices fail; when it is back it becomes the secondary, and what it had is overwritten"
                .into(),
        ),
    ];
    for (place, joining) in (1..).zip(&status.joining) {
        let words = format!(
            "{}: no checkpoint covers it yet; {primary} serves it alone when it is back",
            joining.volume
        );
        rows.insert(place, row("left behind", words));
    }
    let mut text = format!(
        "{name} fails over from {primary} to {}, to checkpoint {epoch} or a later one, {old}.\n{}",
        order.target,
        table(&rows)
    );
    let alive = condition(status, PROTECTED)
        .is_some_and(|c| c.reason != protected::PRIMARY_UNREACHABLE && status.state.is_some());
    if alive {
        text.push_str(&format!(
            "\nWARNING: {primary} still answers and serves. To lose nothing, shut the VM down and make a \
             checkpoint first:\n  kubectl understudy checkpoint {name} --wait\n"
        ));
    }
    if pool::wrong(status).is_some() {
        text.push_str(&format!(
            "\nWARNING: the engine of {} answers with another pool than the one that its replicas lie in: \
             most likely a disk is not mounted, and nothing is lost. See first:\n  kubectl understudy \
             doctor\n",
            pool::node(status)
        ));
    }
    text
}

/// Whether a person wants it. Without a terminal nobody can be asked.
fn confirmed(yes: bool) -> anyhow::Result<bool> {
    if yes {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        anyhow::bail!("nobody can be asked without a terminal: repeat it with --yes");
    }
    print!("\nType yes to go on: ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim() == "yes")
}

/// Says what is lost, asks, orders and waits.
pub async fn run(
    client: &Client,
    name: &ObjectName,
    target: Option<&str>,
    yes: bool,
    limit: Duration,
) -> anyhow::Result<String> {
    let status = get(client, name).await?.status.unwrap_or_default();
    let order = order(name, &status, target).map_err(anyhow::Error::msg)?;
    print!("{}", loss(name, &status, &order, now()));
    if !confirmed(yes)? {
        return Ok("Nothing was done.\n".to_owned());
    }
    let trigger = json!({ "generation": order.generation, "target": order.target });
    patch(client, name, &json!({ "spec": { "failover": { "trigger": trigger } } })).await?;
    let outcome = until(client, name, limit, |object| outcome(object.status.as_ref()?, &order));
    outcome.await?.map_err(anyhow::Error::msg)
}

/// What became of the order; `None`: not known yet.
pub fn outcome(status: &BlockReplicationStatus, order: &Order) -> Option<Result<String, String>> {
    let done = status.failover.as_ref().filter(|f| f.replaced == order.generation);
    let condition = condition(status, FAILED_OVER);
    if let Some(done) = done.filter(|f| f.target == order.target) {
        // The raised generation is finished; wait until the volumes can be used.
        return condition.filter(|c| c.status == "True").map(|_| {
            let mut text = format!(
                "{} serves the volumes, from checkpoint {} or later.\n",
                done.target, done.checkpoint
            );
            for left in &status.left_behind {
                let words =
                    format!("Left behind: {}, which {} serves alone", left.volume, left.node);
                text.push_str(&format!("{words} when it is back.\n"));
            }
            Ok(text)
        });
    }
    let refused = condition.filter(|c| c.status == "False")?;
    // One about an earlier order says nothing of this one.
    let about_this = match refused.reason.as_str() {
        failed_over::STALE_GENERATION => refused.message.contains(&order.generation),
        failed_over::NOT_THE_SECONDARY | failed_over::NOTHING_TO_PROMOTE => {
            refused.message.contains(&order.target)
        }
        // It stands, and is obeyed when the target answers.
        _ => false,
    };
    about_this.then(|| Err(format!("refused ({}): {}", refused.reason, refused.message)))
}
