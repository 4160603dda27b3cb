//! Who a certificate says that its holder is.
//!
//! ```text
//!   X.509 subjectAltName, exactly one URI of ours:
//!     spiffe://understudy.dev/engine/NODE       the engine of a node, and what attaches on it
//!     spiffe://understudy.dev/operator
//!     spiffe://understudy.dev/csi-controller
//!     spiffe://understudy.dev/metrics           who may read metrics, and nothing else
//! ```
//!
//! Names of hosts and common names mean nothing here: addresses change owners.

use std::fmt;
use std::str::FromStr;

use rustls::pki_types::CertificateDer;

use crate::units::ParseError;

/// What all our identities begin with.
pub const TRUST_DOMAIN: &str = "spiffe://understudy.dev/";

/// The longest name of a node: Kubernetes' own limit.
pub const NODE_MAX: usize = 253;

/// Whether a text can be the name of a node: it stands in addresses and in certificates.
///
/// 1 to 253 of `a-z A-Z 0-9 . _ -`, starting with a letter or digit.
pub fn is_node(text: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !text.is_empty()
        && text.len() <= NODE_MAX
        && text.chars().all(good)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// Who somebody is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Identity {
    /// The data plane of a node.
    Engine(String),
    /// The operator.
    Operator,
    /// The CSI controller.
    CsiController,
    /// Who reads metrics.
    Metrics,
}

impl Identity {
    /// As it stands in a certificate.
    pub fn uri(&self) -> String {
        format!("{TRUST_DOMAIN}{self}")
    }

    /// The identity that a certificate names. Says nothing of whether the certificate is any good.
    pub fn named_in(certificate: &CertificateDer<'_>) -> Result<Self, ParseError> {
        let unreadable = |e| ParseError(format!("its certificate can't be read: {e}"));
        let parsed = webpki::EndEntityCert::try_from(certificate).map_err(unreadable)?;
        let mut uris = parsed.valid_uri_names();
        match (uris.next(), uris.next()) {
            (Some(uri), None) => uri.parse(),
            (None, _) => Err(ParseError(format!(
                "its certificate names nobody: it needs a subjectAltName URI:{TRUST_DOMAIN}engine/NODE \
                 or the like"
            ))),
            (Some(_), Some(_)) => Err(ParseError(
                "its certificate names several URIs: it must be of one identity".to_owned(),
            )),
        }
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

/// Reads the short form (`engine/NODE`) and the whole URI.
impl FromStr for Identity {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let short = text.strip_prefix(TRUST_DOMAIN).unwrap_or(text);
        match short.split_once('/') {
            None if short == "operator" => Ok(Self::Operator),
            None if short == "csi-controller" => Ok(Self::CsiController),
            None if short == "metrics" => Ok(Self::Metrics),
            Some(("engine", node)) if is_node(node) => Ok(Self::Engine(node.to_owned())),
            _ => Err(ParseError(format!(
                "'{}' is no identity: use engine/NODE, operator, csi-controller or metrics",
                text.escape_debug().take(300).collect::<String>()
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_identity_reads_back_in_both_forms() {
        let all = [
            Identity::Engine("node-a.example".into()),
            Identity::Operator,
            Identity::CsiController,
            Identity::Metrics,
        ];
        for identity in all {
            assert_eq!(identity.to_string().parse::<Identity>().unwrap(), identity);
            assert_eq!(identity.uri().parse::<Identity>().unwrap(), identity);
        }
    }

    #[test]
    fn what_is_no_identity_is_refused_by_name() {
        for text in [
            "",
            "engine",
            "engine/",
            "engine/a/b",
            "engine/../x",
            "operator/",
            "Operator",
            "spiffe://elsewhere.dev/operator",
            "https://understudy.dev/operator",
            "engine/a b",
        ] {
            let error = text.parse::<Identity>().unwrap_err();
            assert!(error.0.contains("is no identity"), "{error}");
        }
    }
}
