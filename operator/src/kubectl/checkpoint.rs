//! One checkpoint now.

use std::time::Duration;

use kube::Client;
use serde_json::json;

use super::{get, patch, until};
use crate::desired::ObjectName;
use crate::observe::now;

/// Asks for it; with `wait`, until it is complete.
pub async fn run(
    client: &Client,
    name: &ObjectName,
    wait: Option<Duration>,
) -> anyhow::Result<String> {
    get(client, name).await?;
    let token = format!("kubectl {}", now());
    let trigger = json!({ "spec": { "checkpoint": { "trigger": token } } });
    patch(client, name, &trigger).await?;
    let Some(limit) = wait else {
        return Ok(format!(
            "asked for; when it is complete, status.trigger.token of {name} is '{token}'\n"
        ));
    };
    let done = until(client, name, limit, |object| {
        let trigger = object.status.as_ref()?.trigger.as_ref()?;
        (trigger.token == token).then_some(trigger.epoch)
    });
    Ok(format!("{name}: checkpoint {} is complete on both sides\n", done.await?))
}
