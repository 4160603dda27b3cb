//! One set of files, loaded: who we are, whom we trust, and how we speak.
//!
//! ```text
//!   Set ─┬─ server(door)        asks for a certificate, lets in whom the door admits
//!        └─ client(door, node)  shows ours, and wants engine/NODE
//! ```

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, VerifierBuilderError};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::verify::{ByDoor, OfEngine};
use super::{Door, Identity};

/// A set of certificates that fit together.
#[derive(Debug)]
pub struct Set {
    identity: Identity,
    roots: Arc<RootCertStore>,
    key: Arc<CertifiedKey>,
    servers: [Arc<ServerConfig>; 4],
}

impl Set {
    pub(super) fn new(
        identity: Identity,
        roots: Arc<RootCertStore>,
        key: Arc<CertifiedKey>,
    ) -> Result<Self, VerifierBuilderError> {
        let [link, nbd, api, metrics] = Door::ALL.map(|door| server(&roots, &key, door));
        let servers = [link?, nbd?, api?, metrics?];
        Ok(Self { identity, roots, key, servers })
    }

    /// Who we are.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// How to serve at a door.
    pub fn server(&self, door: Door) -> Arc<ServerConfig> {
        let [link, nbd, api, metrics] = &self.servers;
        match door {
            Door::Link => link,
            Door::Nbd => nbd,
            Door::Api => api,
            Door::Metrics => metrics,
        }
        .clone()
    }

    /// How to call at a door of the engine of `node`; of any engine if none is named.
    pub fn client(
        &self,
        door: Door,
        node: Option<&str>,
    ) -> Result<Arc<ClientConfig>, VerifierBuilderError> {
        self.client_with(provider(), door, node)
    }

    pub(crate) fn client_with(
        &self,
        provider: Arc<CryptoProvider>,
        door: Door,
        node: Option<&str>,
    ) -> Result<Arc<ClientConfig>, VerifierBuilderError> {
        let verifier = OfEngine::new(self.roots.clone(), node)?;
        // What the provider lacks would be an error here; ours has TLS 1.3.
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|_| VerifierBuilderError::NoRootAnchors)?;
        let mut config = builder
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(self.key.clone())));
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        config.alpn_protocols = door.protocol().map(<[u8]>::to_vec).into_iter().collect();
        Ok(Arc::new(config))
    }
}

fn server(
    roots: &Arc<RootCertStore>,
    key: &Arc<CertifiedKey>,
    door: Door,
) -> Result<Arc<ServerConfig>, VerifierBuilderError> {
    let verifier = ByDoor::new(roots.clone(), door)?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|_| VerifierBuilderError::NoRootAnchors)?;
    let mut config = builder
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key.clone())));
    // A resumed session would not show its certificate again.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = door.protocol().map(<[u8]>::to_vec).into_iter().collect();
    Ok(Arc::new(config))
}

/// The cryptography: ring's, with AES-128 before AES-256. Both are out of reach of anybody, and the
/// former costs a fifth less per byte of a link.
pub(super) fn provider() -> Arc<CryptoProvider> {
    use rustls::crypto::ring::cipher_suite::{
        TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    };
    static PROVIDER: std::sync::OnceLock<Arc<CryptoProvider>> = std::sync::OnceLock::new();
    PROVIDER
        .get_or_init(|| {
            Arc::new(CryptoProvider {
                cipher_suites: vec![
                    TLS13_AES_128_GCM_SHA256,
                    TLS13_AES_256_GCM_SHA384,
                    TLS13_CHACHA20_POLY1305_SHA256,
                ],
                ..rustls::crypto::ring::default_provider()
            })
        })
        .clone()
}
