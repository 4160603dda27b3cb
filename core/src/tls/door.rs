//! Where somebody may come in, and who.
//!
//! ```text
//!              engine/*   operator   csi-controller   metrics
//!   Link          yes        -            -             -      the engine of the peer, if one is named
//!   Nbd           yes        -            -             -
//!   Api           yes       yes          yes            -      and then per call: `engine`'s own table
//!   Metrics        -        yes           -            yes
//! ```

use super::Identity;

/// What a listener is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Door {
    /// Links of primaries.
    Link,
    /// NBD clients.
    Nbd,
    /// The engine API.
    Api,
    /// What Prometheus reads.
    Metrics,
}

impl Door {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Link, Self::Nbd, Self::Api, Self::Metrics];

    /// Whether somebody may come in here.
    pub fn admits(self, who: &Identity) -> bool {
        match (self, who) {
            (Self::Link | Self::Nbd | Self::Api, Identity::Engine(_))
            | (Self::Api, Identity::Operator | Identity::CsiController)
            | (Self::Metrics, Identity::Operator | Identity::Metrics) => true,
            (Self::Link | Self::Nbd, Identity::Operator | Identity::CsiController)
            | (Self::Link | Self::Nbd | Self::Api, Identity::Metrics)
            | (Self::Metrics, Identity::Engine(_) | Identity::CsiController) => false,
        }
    }

    /// The protocol behind it (ALPN): who was sent to another of our doors on the way notices. NBD
    /// has none, since its clients don't name one.
    pub(super) fn protocol(self) -> Option<&'static [u8]> {
        match self {
            Self::Link => Some(b"understudy-link"),
            Self::Nbd => None,
            Self::Api => Some(b"h2"),
            Self::Metrics => Some(b"http/1.1"),
        }
    }
}

impl std::fmt::Display for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Link => "links",
            Self::Nbd => "NBD",
            Self::Api => "the engine API",
            Self::Metrics => "metrics",
        })
    }
}
