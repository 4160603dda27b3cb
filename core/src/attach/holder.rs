//! A device's process, from its start to its end.
//!
//! ```text
//!   stand alone, protect ─► socket ─► connect (within FIRST) ─► device ─► ready ─► questions ─► released: exit
//!      record, lock: from the daemon                              │
//!                                                                 └─ an error: told, and exit
//! ```
//!
//! Standard input is the volume's lock, taken by the daemon: it is held until this process is dead,
//! however it dies. Standard output takes one line, [`Ready`].

use std::io;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::executor::block_on;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::control::{self, Answer, Ask, Refused};
use super::counters::Counters;
use super::device::{self, Device, Plan};
use super::line::{self, Line, Target};
use super::loop_device::Release;
use super::probe::probe;
use super::record::{Record, StateDirectory};
use super::request::Requests;
use super::status::{DeviceState, Status};
use super::{protect, steps};
use crate::disk::Disk;
use crate::nbd::client::is_final;
use crate::runtime::{Address, Env, Shard, ShardConfig, ShardGone, ShardHandle};
use crate::tls::{Identity, Tls};
use crate::units::{ParseError, SECTOR, VolumeId};

/// How long the first connection may take to come: an attach that can't have one is tried again by
/// who asked for it.
const FIRST: Duration = Duration::from_secs(8);

/// How long the last flush may take.
const LAST_FLUSH: Duration = Duration::from_secs(5);

/// How long a resize may wait for the engine.
const RESIZE: Duration = Duration::from_secs(10);

/// The first and only line of a holder.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Ready {
    /// The device is there.
    Device(Status),
    /// There will be none.
    Failed {
        /// What kind of refusal.
        why: Refused,
        /// For people.
        message: String,
    },
}

/// How a holder may reach engines on other nodes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Network {
    /// The directory of its certificates.
    pub tls: Option<PathBuf>,
    /// Whose they must be: this node's engine's.
    pub node: Option<String>,
    /// Whether `tcp:` addresses are allowed.
    pub plaintext: bool,
}

impl Network {
    /// The certificates, if this address needs them.
    pub fn certificates(&self, address: &Address) -> Result<Option<Tls>, String> {
        match (address, &self.tls) {
            (Address::Tls { .. }, None) => Err(format!(
                "{address} needs certificates: start the attach daemon with --tls DIRECTORY"
            )),
            (Address::Tls { .. }, Some(directory)) => {
                let expected = self.node.clone().map(Identity::Engine);
                Tls::open(directory, expected).map(Some).map_err(|e| e.to_string())
            }
            (Address::Tcp(_), _) if !self.plaintext => Err(format!(
                "{address} is plaintext: use tls:NODE@HOST:PORT, or start the attach daemon with \
                 --insecure-plaintext"
            )),
            (Address::Tcp(_) | Address::Unix(_), _) => Ok(None),
        }
    }
}

/// Holds the device of `volume` until it is released. Returns only then, or when there is none.
pub fn hold(
    state: &StateDirectory,
    network: &Network,
    volume: &VolumeId,
    id: &str,
) -> io::Result<()> {
    protect::stand_alone();
    protect::protect();
    steps::reached("hold.begun");
    let record = state.read(volume)?.filter(|r| r.id == id).ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, format!("no device {id} of {volume} is wanted"))
    })?;
    let listener = UnixListener::bind(state.socket(id))?;
    let mut held = match Held::make(&record, network) {
        Ok(held) => held,
        Err((why, message)) => {
            warn!("can't attach {volume}: {message}");
            return tell(&Ready::Failed { why, message });
        }
    };
    info!(device = %held.device.path().display(), export = record.export(), "attached");
    // Nobody may be there to hear it: a daemon that died finds us by the socket.
    let _ = tell(&Ready::Device(held.status()));
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        let Ok(ask) = control::question(&stream) else { continue };
        let answer = held.answer(&ask);
        if answer == Answer::Released {
            steps::reached("hold.released");
        }
        let _ = control::write_line(&mut stream, &answer);
        if answer == Answer::Released {
            info!("detached");
            break;
        }
    }
    Ok(())
}

fn tell(ready: &Ready) -> io::Result<()> {
    control::write_line(&mut io::stdout(), ready)
}

/// A device and its line.
struct Held {
    shard: ShardHandle,
    counters: Arc<Counters>,
    device: Box<dyn Device>,
}

/// Why there is none.
type Failed = (Refused, String);

impl Held {
    fn make(record: &Record, network: &Network) -> Result<Self, Failed> {
        let system = |e: &dyn std::fmt::Display| (Refused::System, e.to_string());
        let backend = probe().map_err(|e| system(&e))?;
        let address: Address = record.engine_nbd.parse().map_err(|e: ParseError| system(&e))?;
        let tls = network.certificates(&address).map_err(|e| system(&e))?;
        let config = ShardConfig { tls, plaintext: network.plaintext, ..ShardConfig::default() };
        let shard = Shard::start("attach", config).map_err(|e| system(&e))?;
        let counters = Arc::new(Counters::new());
        let target = Target { address, export: record.export() };
        let (size, block) = connect(&shard, target, record.read_only, counters.clone())?;
        steps::reached("hold.connected");
        let plan = Plan {
            id: record.id.clone(),
            name: record.volume.clone(),
            size,
            block_size: u32::try_from(block).unwrap_or_default(),
            read_only: record.read_only,
        };
        let requests = Requests::new(shard.clone(), counters.clone());
        let device = device::make(backend, &plan, requests).map_err(|e| system(&e))?;
        Ok(Self { shard, counters, device })
    }

    fn status(&self) -> Status {
        let path = self.device.path();
        let (state, error) = if self.device.is_there() {
            self.counters.state()
        } else {
            let error =
                format!("{} was taken away, by losetup --detach or the like", path.display());
            (DeviceState::Gone, Some(error))
        };
        Status {
            path,
            size: self.device.size(),
            state,
            error,
            reconnects: self.counters.reconnects(),
            longest_stall: self.counters.longest_stall(),
            io: self.counters.io(),
        }
    }

    fn answer(&mut self, ask: &Ask) -> Answer {
        let done = match ask {
            Ask::Status => Ok(()),
            Ask::Resize => self.resize(),
            Ask::Release => return self.release(),
            Ask::Fail { reason } => self.fail(reason),
        };
        match done {
            Ok(()) => Answer::Status(self.status()),
            Err((why, message)) => Answer::Refused { why, message },
        }
    }

    fn resize(&mut self) -> Result<(), Failed> {
        let renewed = self.shard.run(|env| async move {
            let line = line::installed()?;
            let renewed = crate::runtime::timeout(&env, RESIZE, Box::pin(line.renew())).await;
            Some(renewed.map(|r| r.map_err(|e| (is_final(&e), e.to_string()))))
        });
        let size = match block_on(renewed) {
            Ok(Some(Some(Ok(size)))) => size,
            Ok(Some(Some(Err((true, message))))) => return Err((Refused::Gone, message)),
            Ok(Some(Some(Err((false, message))))) => return Err((Refused::Away, message)),
            Ok(Some(None)) => {
                return Err((
                    Refused::Away,
                    format!("the engine did not answer within {RESIZE:?}"),
                ));
            }
            Ok(None) | Err(ShardGone) => return Err((Refused::System, ShardGone.to_string())),
        };
        if size > self.device.size() {
            self.device.grow(size).map_err(|e| (Refused::System, e.to_string()))?;
            info!(size, "grown");
        }
        Ok(())
    }

    fn fail(&mut self, reason: &str) -> Result<(), Failed> {
        let reason = reason.to_owned();
        let failed = self.shard.run(|_| async move {
            if let Some(line) = line::installed() {
                line.fail(&reason).await;
            }
        });
        block_on(failed).map_err(|e| (Refused::System, e.to_string()))
    }

    fn release(&mut self) -> Answer {
        let path = self.device.path();
        let in_use = |message: String| Answer::Refused { why: Refused::InUse, message };
        // Who has requests under way has it open. Asking the kernel would wait for them, and for the
        // engine with them.
        if self.counters.in_flight() > 0 {
            return in_use(format!("{} is in use: requests are under way", path.display()));
        }
        match self.device.release() {
            Ok(Release::InUse) => in_use(format!("{} is in use", path.display())),
            Err(e) => Answer::Refused { why: Refused::System, message: e.to_string() },
            Ok(Release::Done) => {
                // What was acknowledged is the engine's; the flush makes a clean end durable as well.
                let closed = self.shard.run(|_| async move {
                    if let Some(line) = line::installed() {
                        line.close(LAST_FLUSH).await;
                    }
                });
                let _ = block_on(closed);
                Answer::Released
            }
        }
    }
}

/// The first connection: becomes the shard's line. The volume's length and block.
fn connect(
    shard: &ShardHandle,
    target: Target,
    read_only: bool,
    counters: Arc<Counters>,
) -> Result<(u64, u64), Failed> {
    let connected = shard.run(move |env| async move {
        let until = env.now().after(FIRST);
        let client = loop {
            match line::connect(&env, &target).await {
                Ok(client) => break client,
                Err(e) if is_final(&e) => return Err((Refused::Gone, e.to_string())),
                Err(e) if env.now() >= until => return Err((Refused::Away, e.to_string())),
                Err(_) => env.sleep(Duration::from_millis(50)).await,
            }
        };
        if client.is_read_only() && !read_only {
            let message = "the engine serves it read-only: attach it read-only".to_owned();
            return Err((Refused::System, message));
        }
        let shape = (client.len(), client.alignment().max(SECTOR));
        line::install(Line::new(&env, target, counters, client));
        Ok(shape)
    });
    block_on(connected).unwrap_or_else(|e| Err((Refused::System, e.to_string())))
}
