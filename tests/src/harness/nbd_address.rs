//! Where an NBD export is: a socket and a name, written as a URI.
//!
//! ```text
//!   nbd+unix:///NAME?socket=/run/engine.sock      nbd://HOST:PORT/NAME
//! ```

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Result, bail};

/// The port of `nbd://HOST/NAME` without one.
const DEFAULT_PORT: u16 = 10809;

/// The socket of an NBD server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Socket {
    /// A Unix socket.
    Unix(PathBuf),
    /// `HOST:PORT`.
    Tcp(String),
}

/// A socket and the name of an export behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// The server.
    pub socket: Socket,
    /// The export's name.
    pub name: String,
}

impl Export {
    /// An export behind a Unix socket.
    pub fn unix(socket: impl Into<PathBuf>, name: &str) -> Self {
        Self { socket: Socket::Unix(socket.into()), name: name.to_owned() }
    }

    /// An export behind a TCP port of this machine.
    pub fn local(port: u16, name: &str) -> Self {
        Self { socket: Socket::Tcp(format!("127.0.0.1:{port}")), name: name.to_owned() }
    }
}

impl FromStr for Export {
    type Err = anyhow::Error;

    fn from_str(uri: &str) -> Result<Self> {
        if let Some(rest) = uri.strip_prefix("nbd+unix://") {
            let (name, query) = rest.split_once('?').unwrap_or((rest, ""));
            let Some(socket) = query.split('&').find_map(|pair| pair.strip_prefix("socket="))
            else {
                bail!("{uri}: names no socket; write nbd+unix:///NAME?socket=PATH");
            };
            let name = decode(name.strip_prefix('/').unwrap_or(name))?;
            return Ok(Self { socket: Socket::Unix(decode(socket)?.into()), name });
        }
        let Some(rest) = uri.strip_prefix("nbd://") else {
            bail!(
                "{uri}: not an NBD URI; write nbd+unix:///NAME?socket=PATH or nbd://HOST:PORT/NAME"
            );
        };
        let (host, name) = rest.split_once('/').unwrap_or((rest, ""));
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let host = if has_port { host.to_owned() } else { format!("{host}:{DEFAULT_PORT}") };
        Ok(Self { socket: Socket::Tcp(host), name: decode(name)? })
    }
}

impl fmt::Display for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = encode(&self.name);
        match &self.socket {
            Socket::Unix(path) => {
                write!(f, "nbd+unix:///{name}?socket={}", encode(&path.to_string_lossy()))
            }
            Socket::Tcp(host) => write!(f, "nbd://{host}/{name}"),
        }
    }
}

fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/@".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn decode(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        if *first != b'%' {
            bytes.push(*first);
            rest = after;
            continue;
        }
        let digits = after.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        let Some(byte) = digits.and_then(|pair| u8::from_str_radix(pair, 16).ok()) else {
            bail!("{text}: a % is not followed by two hexadecimal digits");
        };
        bytes.push(byte);
        rest = &after[2..];
    }
    Ok(String::from_utf8(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_reads_back_as_it_was_written() {
        for export in [
            Export::unix("/tmp/a b.sock", "disk0/primary@2-00ff00ff00ff00ff"),
            Export::local(10_809, "top"),
        ] {
            assert_eq!(export.to_string().parse::<Export>().unwrap(), export);
        }
    }

    #[test]
    fn a_host_without_a_port_gets_the_registered_one() {
        let export: Export = "nbd://example/disk".parse().unwrap();
        assert_eq!(export.socket, Socket::Tcp("example:10809".into()));
    }

    #[test]
    fn what_is_no_uri_is_refused_with_the_form_that_is() {
        for (bad, said) in [
            ("disk0", "write nbd+unix:///NAME"),
            ("nbd+unix:///disk0", "names no socket"),
            ("nbd://h:1/%zz", "hexadecimal"),
        ] {
            let error = bad.parse::<Export>().unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
