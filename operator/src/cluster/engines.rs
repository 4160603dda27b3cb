//! The engines of all nodes: each is asked once a second, whatever the number of groups.
//!
//! ```text
//!   poll ─► last answer ─► every group's pass
//!   a call to the engine ─► the last answer is stale ─► the next look asks anew, and waits for it
//! ```
//!
//! An answer counts if it was asked for after the last call had ended: then it shows what the call
//! did. An engine that is silent costs the passes nothing: its last answer is an error.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use understudy_core::engine::api::{Address, ByteLen, Capacity, EngineStatus, Epoch};
use understudy_core::engine::client::{ClientError, EngineClient};

use crate::engines::{Call, Engines, STATUS_DEADLINE};

/// How often an engine is asked.
const POLL: Duration = Duration::from_secs(1);
/// How often its pool's space is, in polls.
const CAPACITY_POLLS: u32 = 10;

/// Connects to an engine when it is first asked.
pub type Connect = Arc<dyn Fn(&Address) -> Result<EngineClient, ClientError> + Send + Sync>;

/// Every node's engine.
pub struct ClusterEngines {
    connect: Connect,
    nodes: Mutex<BTreeMap<String, Watched>>,
}

impl std::fmt::Debug for ClusterEngines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(lock(&self.nodes).keys()).finish()
    }
}

struct Watched {
    engine: Arc<Engine>,
    poll: JoinHandle<()>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.poll.abort();
    }
}

struct Engine {
    client: EngineClient,
    /// One question at a time.
    asking: tokio::sync::Mutex<()>,
    known: Mutex<Known>,
}

struct Known {
    /// When the question was put, and the answer.
    answer: Option<(Instant, Result<EngineStatus, ClientError>)>,
    /// When the last call ended, or may have.
    called: Option<Instant>,
    capacity: Option<Capacity>,
}

/// Nothing panics while one is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClusterEngines {
    /// Knows none yet.
    pub fn new(connect: Connect) -> Self {
        Self { connect, nodes: Mutex::default() }
    }

    /// Takes up what has changed among the nodes.
    pub fn renew(&self, addresses: &BTreeMap<String, Address>) {
        let mut nodes = lock(&self.nodes);
        nodes.retain(|name, w| addresses.get(name) == Some(w.engine.client.address()));
        for (name, address) in addresses {
            if nodes.contains_key(name) {
                continue;
            }
            match (self.connect)(address) {
                Ok(client) => {
                    let known = Known { answer: None, called: None, capacity: None };
                    let (asking, known) = (tokio::sync::Mutex::new(()), Mutex::new(known));
                    let engine = Arc::new(Engine { client, asking, known });
                    let poll = tokio::spawn(poll(engine.clone()));
                    nodes.insert(name.clone(), Watched { engine, poll });
                }
                Err(error) => tracing::warn!(node = name, "{error}"),
            }
        }
    }

    /// The space of a node's pool, as it was last heard.
    pub fn capacity(&self, node: &str) -> Option<Capacity> {
        lock(&self.engine(node).ok()?.known).capacity
    }

    fn engine(&self, node: &str) -> Result<Arc<Engine>, ClientError> {
        let nodes = lock(&self.nodes);
        nodes.get(node).map(|w| w.engine.clone()).ok_or_else(|| ClientError::Unreachable {
            address: Address::Tcp(format!("{node}:0")),
            reason: format!("node {node} has no InternalIP, or does not run the driver"),
        })
    }
}

async fn poll(engine: Arc<Engine>) {
    let mut polls = 0;
    loop {
        engine.ask().await;
        if polls % CAPACITY_POLLS == 0 {
            let asked = engine.client.with_deadline(STATUS_DEADLINE).capacity().await;
            lock(&engine.known).capacity = asked.ok();
        }
        polls = polls.wrapping_add(1);
        tokio::time::sleep(POLL).await;
    }
}

impl Engine {
    /// Asks now. The deadline of a call does not bound the wait for a connection.
    async fn ask(&self) {
        let _turn = self.asking.lock().await;
        let asked = Instant::now();
        let client = self.client.with_deadline(STATUS_DEADLINE);
        let late = || ClientError::Deadline {
            address: self.client.address().clone(),
            after: STATUS_DEADLINE,
        };
        let answer = tokio::time::timeout(STATUS_DEADLINE, client.status()).await;
        let answer = answer.unwrap_or_else(|_| Err(late()));
        lock(&self.known).answer = Some((asked, answer));
    }

    /// The last answer, if it shows everything that was done.
    fn current(&self) -> Option<Result<EngineStatus, ClientError>> {
        let known = lock(&self.known);
        let (asked, answer) = known.answer.as_ref()?;
        known.called.is_none_or(|called| called <= *asked).then(|| answer.clone())
    }
}

/// Notes the end of a call even if its caller stops waiting.
struct Calling<'a>(&'a Engine);

impl Drop for Calling<'_> {
    fn drop(&mut self) {
        lock(&self.0.known).called = Some(Instant::now());
    }
}

impl Engines for ClusterEngines {
    async fn status(&self, node: &str) -> Result<EngineStatus, ClientError> {
        let engine = self.engine(node)?;
        if let Some(answer) = engine.current() {
            return answer;
        }
        engine.ask().await;
        let known = lock(&engine.known);
        match &known.answer {
            Some((_, answer)) => answer.clone(),
            None => Err(ClientError::Unreachable {
                address: engine.client.address().clone(),
                reason: "it was not asked yet".to_owned(),
            }),
        }
    }

    fn available(&self, node: &str) -> Option<ByteLen> {
        self.capacity(node).map(|c| c.available)
    }

    async fn run(&self, node: &str, call: &Call) -> Result<Option<Epoch>, ClientError> {
        let engine = self.engine(node)?;
        let _calling = Calling(&engine);
        call.make(&engine.client.with_deadline(call.deadline())).await
    }
}
