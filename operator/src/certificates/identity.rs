//! Identities as certificates name them.

use std::fmt;
use std::str::FromStr;

/// What all our identities begin with.
pub const TRUST_DOMAIN: &str = "spiffe://understudy.dev/";

/// Who somebody is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Identity {
    /// The engine of a node.
    Engine(String),
    /// The operator.
    Operator,
    /// The controller of the CSI driver.
    CsiController,
    /// Who reads metrics.
    Metrics,
}

impl Identity {
    /// As it stands in a certificate.
    pub fn uri(&self) -> String {
        format!("{TRUST_DOMAIN}{self}")
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine(node) => write!(f, "engine/{node}"),
            Self::Operator => f.write_str("operator"),
            Self::CsiController => f.write_str("csi-controller"),
            Self::Metrics => f.write_str("metrics"),
        }
    }
}

impl FromStr for Identity {
    type Err = String;

    fn from_str(uri: &str) -> Result<Self, String> {
        let path = uri.strip_prefix(TRUST_DOMAIN).unwrap_or_default();
        match path.split_once('/') {
            Some(("engine", node)) if understudy_crds::strict::is_dns_name(node) => {
                Ok(Self::Engine(node.to_owned()))
            }
            None if path == "operator" => Ok(Self::Operator),
            None if path == "csi-controller" => Ok(Self::CsiController),
            None if path == "metrics" => Ok(Self::Metrics),
            _ => Err(format!(
                "'{}' is no identity: there are {TRUST_DOMAIN}engine/NODE, operator, \
                 csi-controller and metrics",
                uri.escape_debug().take(300).collect::<String>()
            )),
        }
    }
}
