//! A call runs to its end, whether its caller waits for it or not.
//!
//! ```text
//!   request ─► task (parse, guard, work) ─► answer
//!      └─ caller gone: the task goes on, and its guard with it: the same call again is ABORTED
//!         until it has ended, and then finds it done
//! ```
//!
//! A call that stopped where its caller hung up would leave a mount half made, and its guard free.

use std::time::Instant;

use tonic::{Response, Status};
use tracing::{debug, info, warn};

use crate::fault::{Fault, Problem};

/// The longest text of a caller's that is logged, in characters.
const TEXT_MAX: usize = 130;

/// Runs `work`, and logs how it ended: once, here.
pub async fn run<T: Send + 'static>(
    call: &'static str,
    volume: &str,
    work: impl Future<Output = Result<T, Fault>> + Send + 'static,
) -> Result<Response<T>, Status> {
    let volume = shown(volume);
    let task = tokio::spawn(async move {
        let began = Instant::now();
        let out = work.await;
        let took = began.elapsed();
        match &out {
            Ok(_) => debug!(call, %volume, ?took, "done"),
            Err(fault) => match fault.problem {
                Problem::Internal | Problem::DataLoss => {
                    warn!(call, %volume, ?took, code = ?fault.problem.code(), "failed: {fault}");
                }
                Problem::Invalid
                | Problem::NotFound
                | Problem::Exists
                | Problem::Busy
                | Problem::WrongState
                | Problem::OutOfRange
                | Problem::Exhausted
                | Problem::Unavailable => {
                    info!(call, %volume, ?took, code = ?fault.problem.code(), "failed: {fault}");
                }
            },
        }
        out
    });
    match task.await {
        Ok(out) => out.map(Response::new).map_err(Into::into),
        Err(error) => Err(Fault::internal(format!("{call} broke off: {error}")).into()),
    }
}

/// A caller's text, short and without control characters.
pub fn shown(text: &str) -> String {
    text.escape_debug().take(TEXT_MAX).collect()
}

/// Runs what may block: mounts, files, programs.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    match tokio::task::spawn_blocking(work).await {
        Ok(out) => out,
        Err(error) => Err(Fault::internal(format!("the operation broke off: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_goes_on_when_its_caller_has_gone() {
        let (tx, rx) = tokio::sync::oneshot::channel();
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        let call = run("CreateVolume", "vol-a", async move {
            wait.await.map_err(|e| Fault::internal(e.to_string()))?;
            tx.send(()).map_err(|()| Fault::internal("nobody listens"))?;
            Ok(())
        });
        tokio::select! {
            biased;
            _ = call => panic!("it can't have ended"),
            () = tokio::task::yield_now() => {}
        }
        go.send(()).unwrap();
        rx.await.unwrap();
    }

    #[test]
    fn what_a_caller_writes_is_shown_short_and_on_one_line() {
        assert_eq!(shown("a\nb"), "a\\nb");
        assert_eq!(shown(&"x".repeat(1000)).len(), TEXT_MAX);
    }
}
