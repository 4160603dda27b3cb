//! Starting a device's process.
//!
//! ```text
//!   /proc/self/exe hold --state DIRECTORY --volume VOLUME --id ID [--tls DIRECTORY]
//!      stdin   the volume's lock: held until the last copy of the descriptor is closed
//!      stdout  one line: ready, or why not
//! ```

use std::fs::File;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::devices::refused;
use crate::attach::steps::reached;
use crate::attach::{Network, Ready, StateDirectory, Status};
use crate::engine::api::{Refusal, VolumeId};
use crate::engine::error::EngineError;

/// How long a holder may take to have its device.
const READY: Duration = Duration::from_secs(20);

/// A new device's identity.
pub(super) fn new_id() -> std::io::Result<String> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(format!("{:016x}", u64::from_le_bytes(bytes)))
}

/// Starts the holder of a volume, and waits until its device is there. After an error it is dead.
pub(super) async fn start(
    state: &StateDirectory,
    network: &Network,
    volume: &VolumeId,
    id: &str,
    lock: &File,
) -> Result<Status, EngineError> {
    let failed = |e: std::io::Error| {
        EngineError::new(Refusal::Internal, format!("can't start a holder for {volume}: {e}"))
    };
    // The program that runs, also when its file was replaced by a newer one.
    let mut command = Command::new("/proc/self/exe");
    command.arg("hold");
    if let Some(directory) = &network.tls {
        command.arg("--tls").arg(directory);
    }
    if let Some(node) = &network.node {
        command.args(["--node", node]);
    }
    if network.plaintext {
        command.arg("--insecure-plaintext");
    }
    let mut child = command
        .arg0("understudy-attachd")
        .arg("--state")
        .arg(state.path())
        .args(["--volume", volume.as_str(), "--id", id])
        .stdin(lock.try_clone().map_err(failed)?)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    reached("attach.holder-started");
    let mut line = String::new();
    let heard = match child.stdout.take() {
        Some(stdout) => {
            let mut stdout = BufReader::new(stdout);
            tokio::time::timeout(READY, stdout.read_line(&mut line)).await
        }
        None => Ok(Ok(0)),
    };
    let problem = match (heard, serde_json::from_str(&line)) {
        // From now on it lives for itself; the runtime only takes note of its end.
        (Ok(Ok(_)), Ok(Ready::Device(status))) => return Ok(status),
        (Ok(Ok(_)), Ok(Ready::Failed { why, message })) => refused(volume.as_str(), why, &message),
        (Err(_), _) => EngineError::new(
            Refusal::Unavailable,
            format!("the holder of {volume} had no device within {READY:?}: try again"),
        ),
        (Ok(_), _) => EngineError::new(
            Refusal::Internal,
            format!("the holder of {volume} ended before its device was there: see the log"),
        ),
    };
    let _ = child.kill().await;
    Err(problem)
}
