//! Every listening port of ours refuses whoever has no certificate.
//!
//! ```text
//!   each process of ours on each node: its sockets ∩ what listens in its network namespace
//!     ─► tried from here: in the clear, and by TLS without a certificate
//! ```

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result, ensure};

use super::world::World;
use crate::cluster::strangers;

/// For each process of ours and our sidecars: `process NAME`, its namespace's address, its sockets, and
/// all that listens beside it. The kernel cuts names after 15 characters.
const SCRIPT: &str = r#"
for process in /proc/[0-9]*; do
    name=$(cat $process/comm 2>/dev/null) || continue
    case $name in understudyd|understudy-*|csi-provisioner|csi-resizer) ;; *) continue ;; esac
    echo "process $name"
    nsenter --target ${process#/proc/} --net ip -o -4 addr show scope global | awk '{ print "address", $4 }'
    ls -l $process/fd 2>/dev/null | sed -n 's/.*socket:\[\([0-9]*\)\].*/socket \1/p'
    for table in tcp tcp6; do
        awk '$4 == "0A" { print "listens", $2, $10 }' $process/net/$table 2>/dev/null
    done
done
true"#;

pub(super) fn play(world: &World) -> Result<()> {
    let mut tried = BTreeSet::new();
    for (node, _) in world.nodes()? {
        let text = world.provider.exec(&node, &["sh", "-c", SCRIPT])?;
        for (program, target) in listeners(&text) {
            strangers::are_refused(&target.to_string())
                .with_context(|| format!("{program} on {node}"))?;
            tried.insert(format!("{program}:{}", target.port()));
        }
    }
    // The engine API, NBD and the link at least: or nothing was looked at.
    ensure!(tried.len() >= 3, "only these ports were found: {tried:?}");
    let tried: Vec<String> = tried.into_iter().collect();
    world.step(&format!("no stranger is served: {}", tried.join(", ")));
    Ok(())
}

/// Program and address of every listening socket in the script's output.
fn listeners(text: &str) -> BTreeSet<(String, SocketAddr)> {
    let mut found = BTreeSet::new();
    for process in text.split("process ").skip(1) {
        let mut lines = process.lines();
        let program = lines.next().unwrap_or_default().trim().to_owned();
        let words: Vec<Vec<&str>> = lines.map(|line| line.split(' ').collect()).collect();
        let mut own = BTreeSet::new();
        let mut address = IpAddr::from(Ipv4Addr::LOCALHOST);
        for line in &words {
            match line.as_slice() {
                ["socket", inode] => drop(own.insert(*inode)),
                ["address", network] => {
                    let ip = network.split('/').next().and_then(|ip| ip.parse().ok());
                    address = ip.unwrap_or(address);
                }
                ["listens", socket, inode] if own.contains(inode) => {
                    let Some(socket) = socket_address(socket) else { continue };
                    let ip = if socket.ip().is_unspecified() { address } else { socket.ip() };
                    found.insert((program.clone(), SocketAddr::new(ip, socket.port())));
                }
                _ => {}
            }
        }
    }
    found
}

/// The kernel's form: the address in 32-bit words of this machine's byte order, the port in hex.
fn socket_address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let word = |at: usize| {
        let word = ip.get(at..at + 8)?;
        Some(u32::from_str_radix(word, 16).ok()?.swap_bytes())
    };
    let ip = if ip.len() == 8 {
        IpAddr::from(Ipv4Addr::from(word(0)?))
    } else {
        let words = [word(0)?, word(8)?, word(16)?, word(24)?].map(u128::from);
        let [a, b, c, d] = words;
        IpAddr::from(Ipv6Addr::from(a << 96 | b << 64 | c << 32 | d)).to_canonical()
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sockets_of_the_process_itself_count() {
        let text = "process understudyd\naddress 10.213.0.11/24\nsocket 5\nsocket 7\n\
            listens 0B00D50A:1D24 5\nlistens 0100007F:1F90 6\n\
            listens 00000000000000000000000000000000:1D25 7\n";
        let found: Vec<String> =
            listeners(text).into_iter().map(|(name, at)| format!("{name} {at}")).collect();
        assert_eq!(found, ["understudyd 10.213.0.11:7460", "understudyd 10.213.0.11:7461"]);
    }
}
