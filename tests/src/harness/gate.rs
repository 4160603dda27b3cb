//! A way to the API server and to engines that counts what changes something, and kills a process right
//! after the n-th such request was carried out.
//!
//! ```text
//!   operator ── http ──► Gate ── TLS, the operator's own certificate ──► kube-apiserver
//!            ── gRPC ──►      ── gRPC ─────────────────────────────────► understudyd
//!                         the n-th change is made, and its answer never comes: the process is dead
//! ```
//!
//! Who asks needs no switch of its own for being tested. Leases, events and the report on nodes are no
//! steps towards anything, and not counted.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedRwLockWriteGuard, RwLock};

type Error = Box<dyn std::error::Error + Send + Sync>;
type Relayed = Response<UnsyncBoxBody<Bytes, Error>>;

/// Calls of the engine API that change nothing.
const LOOKS: [&str; 4] = ["WatchStatus", "GetError", "Capacity", "Check"];

/// Objects of the API server that are no steps.
const ASIDE: [&str; 3] = ["/leases", "/events", "/understudy-nodes"];

/// Counts, and kills. Clones are the same gate.
#[derive(Clone, Default)]
pub struct Gate {
    counting: Arc<Mutex<Counting>>,
    /// Held for reading by each change on its way.
    passing: Arc<RwLock<()>>,
}

/// No change is on its way, and none begins, while this lives.
pub struct Closed(#[allow(dead_code, reason = "what counts is its end")] OwnedRwLockWriteGuard<()>);

#[derive(Default)]
struct Counting {
    /// What was changed since it was armed.
    changes: Vec<String>,
    /// Whom to kill after how many.
    armed: Option<(usize, u32)>,
    /// After which it did.
    struck: Option<String>,
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, Counting> {
        self.counting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes it to changes.
    pub async fn close(&self) -> Closed {
        Closed(self.passing.clone().write_owned().await)
    }

    /// From now on it counts anew, and kills `pid` after the `n`-th change, from 1.
    pub fn arm(&self, n: usize, pid: u32) {
        *self.state() = Counting { armed: Some((n, pid)), ..Counting::default() };
    }

    /// After which change it killed.
    pub fn struck(&self) -> Option<String> {
        self.state().struck.clone()
    }

    /// Kills no more; all changes since it was armed.
    pub fn disarm(&self) -> Vec<String> {
        let mut state = self.state();
        state.armed = None;
        std::mem::take(&mut state.changes)
    }

    /// A change was carried out, and nobody knows yet.
    fn changed(&self, change: String) {
        let mut state = self.state();
        state.changes.push(change.clone());
        if let Some((n, pid)) = state.armed
            && state.changes.len() == n
        {
            state.armed = None;
            state.struck = Some(change);
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            // One that has ended by itself fails the test elsewhere.
            let _ended = pid.map(|pid| kill_process(pid, Signal::KILL));
        }
    }

    /// Serves the API server to whoever connects to `listener`, as `client`.
    pub async fn serve_api(self, listener: TcpListener, client: kube::Client) {
        while let Ok((stream, _)) = listener.accept().await {
            let (gate, client) = (self.clone(), client.clone());
            let service = service_fn(move |request| gate.clone().ask_api(client.clone(), request));
            let builder = hyper::server::conn::http1::Builder::new();
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    }

    async fn ask_api(
        self,
        client: kube::Client,
        request: Request<Incoming>,
    ) -> Result<Relayed, Error> {
        let change = api_change(request.method(), request.uri().path());
        let _passing = match &change {
            Some(_) => Some(self.passing.read().await),
            None => None,
        };
        let (mut parts, body) = request.into_parts();
        parts.headers.remove(header::HOST);
        let body = body.collect().await?.to_bytes();
        let answer =
            client.send(Request::from_parts(parts, kube::client::Body::from(body))).await?;
        if answer.status().is_success()
            && let Some(change) = change
        {
            // Carried out when it was answered in full.
            let (parts, body) = answer.into_parts();
            let body = body.collect().await?.to_bytes();
            self.changed(change);
            return Ok(relayed(Response::from_parts(parts, http_body_util::Full::from(body))));
        }
        Ok(relayed(answer))
    }

    /// Serves the engine at `engine` to whoever connects to `listener`; both in plaintext.
    pub async fn serve_engine(self, listener: TcpListener, engine: SocketAddr) {
        while let Ok((stream, _)) = listener.accept().await {
            let gate = self.clone();
            tokio::spawn(async move {
                // Where there is no engine, there is no connection.
                let _closed = gate.relay_engine(stream, engine).await;
            });
        }
    }

    async fn relay_engine(self, stream: TcpStream, engine: SocketAddr) -> Result<()> {
        let upstream = TcpStream::connect(engine).await.context("no engine")?;
        let (sender, upstream) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(upstream)).await?;
        let service =
            service_fn(move |request| self.clone().ask_engine(sender.clone(), engine, request));
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        tokio::select! {
            served = builder.serve_connection(TokioIo::new(stream), service) => served?,
            ended = upstream => ended?,
        }
        Ok(())
    }

    async fn ask_engine(
        self,
        mut sender: http2::SendRequest<Incoming>,
        engine: SocketAddr,
        mut request: Request<Incoming>,
    ) -> Result<Relayed, Error> {
        let path = request.uri().path().to_owned();
        let call = path.rsplit('/').next().unwrap_or_default().to_owned();
        *request.uri_mut() = format!("http://{engine}{path}").parse()?;
        if LOOKS.contains(&call.as_str()) {
            return Ok(relayed(sender.send_request(request).await?));
        }
        let _passing = self.passing.read().await;
        let answer = sender.send_request(request).await?;
        let (parts, body) = answer.into_parts();
        let collected = body.collect().await?;
        let done = HeaderValue::from_static("0");
        let trailers = collected.trailers().unwrap_or(&parts.headers);
        if trailers.get("grpc-status") == Some(&done) {
            self.changed(format!("{call} at {}", engine.ip()));
        }
        let body = collected.map_err(|never| match never {});
        Ok(relayed(Response::from_parts(parts, body)))
    }
}

fn relayed<B>(answer: Response<B>) -> Relayed
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Error>,
{
    answer.map(|body| body.map_err(Into::into).boxed_unsync())
}

/// What a request to the API server changes, in words; `None`: nothing that counts.
fn api_change(method: &Method, path: &str) -> Option<String> {
    let looks = [Method::GET, Method::HEAD, Method::OPTIONS].contains(method);
    let aside = ASIDE.iter().any(|aside| path.contains(aside));
    let short = path.rsplit("/v1alpha1/").next().unwrap_or(path);
    (!looks && !aside).then(|| format!("{method} {short}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_step_is_not_counted() {
        let put = "/apis/understudy.dev/v1alpha1/replicationgroups/shop.web";
        assert_eq!(api_change(&Method::PUT, put).unwrap(), "PUT replicationgroups/shop.web");
        assert_eq!(api_change(&Method::GET, put), None);
        for aside in [
            "/apis/coordination.k8s.io/v1/namespaces/understudy/leases/understudy-operator",
            "/apis/events.k8s.io/v1/namespaces/shop/events",
            "/api/v1/namespaces/understudy/configmaps/understudy-nodes",
        ] {
            assert_eq!(api_change(&Method::PATCH, aside), None);
        }
    }

    #[test]
    fn the_nth_change_kills() {
        let directory = tempfile::tempdir().unwrap();
        let sleep = crate::harness::tools::find("sleep").unwrap();
        let child =
            crate::harness::process::Child::start("sleep", &sleep, ["60"], directory.path());
        let mut child = child.unwrap();
        let gate = Gate::default();
        gate.arm(2, child.pid());
        gate.changed("one".to_owned());
        assert!(child.is_running() && gate.struck().is_none());
        gate.changed("two".to_owned());
        child.wait(std::time::Duration::from_secs(10)).unwrap();
        assert_eq!(gate.struck().unwrap(), "two");
        assert_eq!(gate.disarm(), ["one", "two"]);
    }
}
