//! What rustls asks of a certificate, here: the chain and its dates first, then who it is of.
//!
//! ```text
//!   server's certificate ─► chain to ca.crt, dates, purpose ─► engine/NODE?  (any engine, if no node is named)
//!   client's certificate ─► chain to ca.crt, dates, purpose ─► let in at this door?
//! ```

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};

use super::set::provider;
use super::{Door, Identity};

/// Why somebody whose certificate is good is not let in, or is not whom we want.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NotWelcome(pub(super) String);

fn not_welcome(text: String) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(NotWelcome(text)))))
}

fn identity(certificate: &CertificateDer<'_>) -> Result<Identity, Error> {
    Identity::named_in(certificate).map_err(|e| not_welcome(e.0))
}

/// The client's look at a server.
#[derive(Debug)]
pub(super) struct OfEngine {
    roots: Arc<RootCertStore>,
    /// Checks signatures.
    inner: Arc<WebPkiServerVerifier>,
    node: Option<String>,
}

impl OfEngine {
    pub(super) fn new(
        roots: Arc<RootCertStore>,
        node: Option<&str>,
    ) -> Result<Arc<Self>, rustls::server::VerifierBuilderError> {
        let inner =
            WebPkiServerVerifier::builder_with_provider(roots.clone(), provider()).build()?;
        Ok(Arc::new(Self { roots, inner, node: node.map(str::to_owned) }))
    }
}

impl ServerCertVerifier for OfEngine {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &self.roots,
            intermediates,
            now,
            provider().signature_verification_algorithms.all,
        )?;
        let who = identity(end_entity)?;
        match (&who, &self.node) {
            (Identity::Engine(node), Some(wanted)) if node != wanted => {
                Err(not_welcome(format!("its certificate is of {who}, not of engine/{wanted}")))
            }
            (Identity::Engine(_), _) => Ok(ServerCertVerified::assertion()),
            (Identity::Operator | Identity::CsiController | Identity::Metrics, _) => {
                Err(not_welcome(format!("its certificate is of {who}, which is no engine")))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// The server's look at a client.
#[derive(Debug)]
pub(super) struct ByDoor {
    inner: Arc<dyn ClientCertVerifier>,
    door: Door,
}

impl ByDoor {
    pub(super) fn new(
        roots: Arc<RootCertStore>,
        door: Door,
    ) -> Result<Arc<Self>, rustls::server::VerifierBuilderError> {
        let inner = WebPkiClientVerifier::builder_with_provider(roots, provider()).build()?;
        Ok(Arc::new(Self { inner, door }))
    }
}

impl ClientCertVerifier for ByDoor {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        let who = identity(end_entity)?;
        if !self.door.admits(&who) {
            return Err(not_welcome(format!("{who} may not use {}", self.door)));
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
