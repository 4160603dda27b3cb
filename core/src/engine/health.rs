//! `understudyd health`: asks a running engine whether it serves, for probes that run a command.
//!
//! ```text
//!   --api ADDRESS [--tls DIR] ─► health service ─► one line, exit status 0 or 1
//! ```

use std::time::Duration;

use super::api::Address;
use super::client::{ClientError, EngineClient, Tls};
use super::config::Health;

/// Asks. `Ok`: the line to print; an error says why it does not serve, or can't be asked.
pub fn ask(health: &Health) -> anyhow::Result<String> {
    let address: Address = health.api.parse()?;
    let tls = health.tls.as_deref().map(|dir| Tls::open(dir, None)).transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let limit = Duration::from_secs(health.timeout.max(1));
    runtime.block_on(async {
        let asked = async {
            EngineClient::connect_with(&address, tls.as_ref())
                .await?
                .with_deadline(limit)
                .health()
                .await
        };
        let late = || ClientError::Deadline { address: address.clone(), after: limit };
        tokio::time::timeout(limit, asked).await.unwrap_or_else(|_| Err(late()))
    })?;
    Ok(format!("the engine at {address} serves"))
}
