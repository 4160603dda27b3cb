//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// The CSI driver of Understudy: csi.understudy.dev.
#[derive(Debug, Parser)]
#[command(version, long_about = ABOUT, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Which messages are logged, as in info or understudy_csi=debug.
    #[arg(long, global = true, env = "UNDERSTUDY_LOG", default_value = "info")]
    pub(crate) log: String,
    /// How they are written.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
}

const ABOUT: &str = "\
The CSI driver of Understudy: csi.understudy.dev.

One process in a cluster runs `controller`, beside external-provisioner and external-resizer: it makes,
grows and deletes volumes, each first as one replica on the node that the scheduler chose. On every
node one runs `node`: it makes devices and directories of volumes for pods, and registers itself with
the kubelet. A BlockReplication then adds the second replica; neither process takes part in that.";

const EXIT_CODES: &str = "Exit codes: 0 ended by a signal (probe: it answers), 1 could not work (probe: no answer), 2 wrong arguments.";

/// How messages are written.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Makes, grows and deletes volumes; once in a cluster, beside the CSI sidecars.
    #[command(long_about = CONTROLLER)]
    Controller(ControllerFlags),
    /// Makes devices and directories of volumes; on every node.
    #[command(long_about = NODE)]
    Node(NodeFlags),
    /// Asks a running controller or node plugin whether it is there; for exec probes.
    Probe(ProbeFlags),
}

const CONTROLLER: &str = "\
Makes, grows and deletes volumes; once in a cluster, beside the CSI sidecars.

What it makes is written down as ReplicatedVolume objects (kubectl get rvol). It finds the API server
by its service account, or by KUBECONFIG, and engines by the nodes that carry the label
csi.understudy.dev/installation, at their InternalIP.

A volume can't be deleted while it is replicated or in use. If the node of its only replica never comes
back: kubectl annotate rvol NAME understudy.dev/abandon-replica=true";

const NODE: &str = "\
Makes devices and directories of volumes; on every node.

Needs understudyd and understudy-attachd on the same node (Unix sockets), the node's /dev and the
kubelet's directory with mounts propagated both ways, and mkfs.ext4 and resize2fs. It finds the API server
by its service account, or by KUBECONFIG. Restarting it harms no pod.";

/// How engines on other nodes are reached.
#[derive(Debug, Args)]
pub(crate) struct NetworkFlags {
    /// The port of the engine API on every node.
    #[arg(long, default_value_t = 7460)]
    pub(crate) engine_port: u16,
    /// The port of NBD on every node.
    #[arg(long, default_value_t = 7461)]
    pub(crate) nbd_port: u16,
    /// Reach engines without TLS: whoever is on the way reads and changes what passes.
    #[arg(long)]
    pub(crate) insecure_plaintext: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ControllerFlags {
    /// Where the sidecars find it.
    #[arg(long, env = "CSI_SOCKET", default_value = "/run/csi/csi.sock")]
    pub(crate) socket: PathBuf,
    /// The installation that it serves: nodes of another are not looked at.
    #[arg(long, env = "UNDERSTUDY_INSTALLATION", default_value = "understudy", value_parser = label)]
    pub(crate) installation: String,
    #[command(flatten)]
    pub(crate) network: NetworkFlags,
}

#[derive(Debug, Args)]
pub(crate) struct NodeFlags {
    /// Where the kubelet finds it.
    #[arg(
        long,
        env = "CSI_SOCKET",
        default_value = "/var/lib/kubelet/plugins/csi.understudy.dev/csi.sock"
    )]
    pub(crate) socket: PathBuf,
    /// The same socket as the kubelet sees it, if it is mounted elsewhere here.
    #[arg(long)]
    pub(crate) kubelet_socket: Option<PathBuf>,
    /// The kubelet's directory of plugins; without it the driver is not registered.
    #[arg(long)]
    pub(crate) registration_dir: Option<PathBuf>,
    /// The name of this node, as Kubernetes has it.
    #[arg(long, env = "NODE_NAME", value_parser = label)]
    pub(crate) node: String,
    /// The installation that this node belongs to.
    #[arg(long, env = "UNDERSTUDY_INSTALLATION", default_value = "understudy", value_parser = label)]
    pub(crate) installation: String,
    /// The most volumes that pods of this node may use at once; 0: no limit.
    #[arg(long, default_value_t = 256)]
    pub(crate) max_volumes: u32,
    /// Where understudy-attachd listens.
    #[arg(long, default_value = "/run/understudy/attach.sock")]
    pub(crate) attach_socket: PathBuf,
    /// Where this node's understudyd takes calls.
    #[arg(long, default_value = "/run/understudy/engine.sock")]
    pub(crate) engine_socket: PathBuf,
    /// Where this node's understudyd serves NBD.
    #[arg(long, default_value = "/run/understudy/nbd.sock")]
    pub(crate) nbd_socket: PathBuf,
    #[command(flatten)]
    pub(crate) network: NetworkFlags,
}

#[derive(Debug, Args)]
pub(crate) struct ProbeFlags {
    /// The socket to ask.
    #[arg(long, env = "CSI_SOCKET")]
    pub(crate) socket: PathBuf,
    /// How many seconds it may take.
    #[arg(long, default_value_t = 5)]
    pub(crate) timeout: u64,
}

/// What can be the value of a label, and so of a topology segment.
fn label(text: &str) -> Result<String, String> {
    let is_end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let good = text.len() <= 63
        && is_end(text.chars().next())
        && is_end(text.chars().last())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if good {
        return Ok(text.to_owned());
    }
    Err("write 1 to 63 of a-z A-Z 0-9 - _ ., with a letter or digit at both ends".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_name_that_no_label_can_have_is_refused() {
        for bad in ["", "a b", "-a", "a-", &"x".repeat(64)] {
            assert!(label(bad).is_err(), "{bad}");
        }
        assert!(label("node-1.example").is_ok());
    }
}
