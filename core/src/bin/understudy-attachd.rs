//! Volumes as block devices of a node; see `understudy-attachd --help`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use understudy_core::attach::{Network, StateDirectory, hold};
use understudy_core::engine::attach::api::Device;
use understudy_core::engine::attach::client::AttachClient;
use understudy_core::engine::attach::daemon;
use understudy_core::engine::config::Log;
use understudy_core::engine::telemetry;
use understudy_core::units::VolumeId;

/// Shown below the commands.
const EXAMPLE: &str = "\
EXAMPLE, beside the engine of `understudyd --help`:
    understudy-attachd serve --socket /tmp/a/attach.sock --state /tmp/a/attach
    understudy-attachd list --socket /tmp/a/attach.sock

Each device has a process of its own (`hold`), which goes on when this daemon is killed or replaced;
started again, the daemon finds them. A device whose engine is away waits for it, without limit and
without an error; one whose generation was replaced fails every request, for good.
To remove a device, unmount or close it and have it detached: ending its process breaks it.
";

/// Makes block devices of volumes: each a loop device over a file of FUSE, whose bytes an engine serves.
#[derive(Parser, Debug)]
#[command(name = "understudy-attachd", version, after_help = EXAMPLE)]
struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Take calls at a Unix socket, and keep the devices. SIGTERM ends it; the devices stay.
    Serve {
        #[command(flatten)]
        socket: Socket,
        #[command(flatten)]
        state: State,
        #[command(flatten)]
        reach: Reach,
    },
    /// Whether the daemon serves: exit status 0 or 1.
    Health {
        #[command(flatten)]
        socket: Socket,
    },
    /// The devices of this node.
    List {
        #[command(flatten)]
        socket: Socket,
    },
    /// Hold one device; the daemon starts it.
    #[command(hide = true)]
    Hold {
        #[command(flatten)]
        state: State,
        #[command(flatten)]
        reach: Reach,
        /// The volume.
        #[arg(long)]
        volume: VolumeId,
        /// Which device of it.
        #[arg(long)]
        id: String,
    },
}

#[derive(Args, Debug)]
struct Socket {
    /// The daemon's socket.
    #[arg(long, value_name = "PATH", default_value = "/run/understudy/attach.sock")]
    socket: PathBuf,
}

#[derive(Args, Debug)]
struct State {
    /// The directory that remembers devices; made if missing. Best on a tmpfs: no device outlives the
    /// machine's start.
    #[arg(long, value_name = "DIRECTORY", default_value = "/run/understudy/attach")]
    state: PathBuf,
}

#[derive(Args, Debug)]
struct Reach {
    /// The directory of ca.crt, tls.crt and tls.key, in PEM, for engines on other nodes (tls:NODE@HOST:PORT);
    /// read again when they change.
    #[arg(long, value_name = "DIRECTORY")]
    tls: Option<PathBuf>,
    /// The node's name: the certificate must be that of its engine.
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Allows tcp: addresses of engines: whoever is on the way reads and changes volumes, unseen.
    #[arg(long)]
    insecure_plaintext: bool,
}

impl From<Reach> for Network {
    fn from(reach: Reach) -> Self {
        Self { tls: reach.tls, node: reach.node, plaintext: reach.insecure_plaintext }
    }
}

fn main() -> ExitCode {
    match run(Flags::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("understudy-attachd: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve { socket: Socket { socket }, state: State { state }, reach } => {
            telemetry::init(&Log::default())?;
            daemon::run(&daemon::Options { socket, state, network: reach.into() })?;
        }
        Command::Hold { state: State { state }, reach, volume, id } => {
            telemetry::init(&Log::default())?;
            hold(&StateDirectory::open(&state)?, &reach.into(), &volume, &id)?;
        }
        Command::Health { socket } => {
            client(&socket, async |client| Ok(client.health().await?))?;
        }
        Command::List { socket } => {
            let devices = client(&socket, async |client| Ok(client.list().await?))?;
            print(&devices);
        }
    }
    Ok(())
}

fn client<T>(
    socket: &Socket,
    ask: impl AsyncFnOnce(AttachClient) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let deadline = std::time::Duration::from_secs(5);
        ask(AttachClient::lazy(&socket.socket).with_deadline(deadline)).await
    })
}

fn print(devices: &[Device]) {
    if devices.is_empty() {
        println!("no devices");
    }
    for d in devices {
        let access = if d.read_only { " read-only" } else { "" };
        println!("{}  {}  {} bytes{access}  {}", d.volume, d.path.display(), d.size.0, d.state);
        println!("    generation {}  engine {}", d.generation, d.engine.nbd);
        println!(
            "    {} reads, {} writes, {} flushes, {} discards, {} errors, {} under way",
            d.io.reads, d.io.writes, d.io.flushes, d.io.discards, d.io.errors, d.io.in_flight
        );
        println!("    {} reconnects, longest stall {:?}", d.reconnects, d.longest_stall);
        if let Some(error) = &d.error {
            println!("    {error}");
        }
    }
}
