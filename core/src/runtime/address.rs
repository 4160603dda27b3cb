//! Where the far end of a stream is, as text.
//!
//! ```text
//!   unix:PATH               another process of this machine; who may open the file may connect
//!   tls:NODE@HOST:PORT      another machine, which must prove to be the engine of NODE
//!   tls:HOST:PORT           where to listen; to connect, any engine of this installation will do
//!   tcp:HOST:PORT           plaintext: whoever is on the way reads and changes what passes
//! ```

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::tls::is_node;
use crate::units::ParseError;

/// Where the far end of a stream is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Address {
    /// `tcp:HOST:PORT`: plaintext.
    Tcp(String),
    /// `unix:PATH`.
    Unix(PathBuf),
    /// `tls:NODE@HOST:PORT` or `tls:HOST:PORT`.
    Tls {
        /// The node that the far end must prove to be the engine of; a listener has none.
        node: Option<String>,
        /// `HOST:PORT`.
        host_port: String,
    },
}

impl Address {
    /// `HOST:PORT`, unless it is a Unix socket.
    pub fn host_port(&self) -> Option<&str> {
        match self {
            Self::Tcp(host_port) | Self::Tls { host_port, .. } => Some(host_port),
            Self::Unix(_) => None,
        }
    }

    /// The node that the far end must prove to be the engine of, if one is named.
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::Tls { node, .. } => node.as_deref(),
            Self::Tcp(_) | Self::Unix(_) => None,
        }
    }

    /// The same address with another `HOST:PORT`; a Unix socket stays what it is.
    #[must_use]
    pub fn with_host_port(&self, host_port: String) -> Self {
        match self {
            Self::Tcp(_) => Self::Tcp(host_port),
            Self::Tls { node, .. } => Self::Tls { node: node.clone(), host_port },
            Self::Unix(path) => Self::Unix(path.clone()),
        }
    }
}

fn is_host_port(text: &str) -> bool {
    text.rsplit_once(':')
        .is_some_and(|(h, p)| !h.is_empty() && !h.contains('@') && p.parse::<u16>().is_ok())
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(hp) => write!(f, "tcp:{hp}"),
            Self::Unix(p) => write!(f, "unix:{}", p.display()),
            Self::Tls { node: Some(node), host_port } => write!(f, "tls:{node}@{host_port}"),
            Self::Tls { node: None, host_port } => write!(f, "tls:{host_port}"),
        }
    }
}

impl FromStr for Address {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let parsed = match s.split_once(':') {
            Some(("unix", path)) if !path.is_empty() => Some(Self::Unix(path.into())),
            Some(("tcp", hp)) if is_host_port(hp) => Some(Self::Tcp(hp.to_owned())),
            Some(("tls", rest)) => {
                let (node, hp) = match rest.split_once('@') {
                    Some((node, hp)) => (Some(node), hp),
                    None => (None, rest),
                };
                let good = node.is_none_or(is_node) && is_host_port(hp);
                good.then(|| Self::Tls { node: node.map(str::to_owned), host_port: hp.to_owned() })
            }
            _ => None,
        };
        parsed.ok_or_else(|| {
            ParseError(format!(
                "'{}' is no address: write unix:PATH, tls:NODE@HOST:PORT (to listen tls:HOST:PORT) \
                 or tcp:HOST:PORT",
                s.escape_debug().take(200).collect::<String>()
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_reads_back_as_it_was_written() {
        for text in
            ["unix:/run/a b@c.sock", "tcp:[::1]:7001", "tls:10.0.0.2:7462", "tls:node-a.x@[::1]:1"]
        {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        let named: Address = "tls:node-a@10.0.0.2:7462".parse().unwrap();
        assert_eq!((named.node(), named.host_port()), (Some("node-a"), Some("10.0.0.2:7462")));
    }

    #[test]
    fn a_text_that_is_no_address_is_refused_with_the_forms() {
        let long = format!("tls:{}@h:1", "n".repeat(254));
        for text in [
            "",
            "tcp:",
            "tcp:host",
            "tcp::1",
            "unix:",
            "tls:@h:1",
            "tls:a/b@h:1",
            "tls:a@b@h:1",
            "tls:a@h",
            "tls:h:70000",
            "http://h:1",
            "tcp:a@h:1",
            long.as_str(),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains("tls:NODE@HOST:PORT"), "{text}: {error}");
        }
    }
}
