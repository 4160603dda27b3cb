//! What a port says to someone without a certificate: nothing but a refusal.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

/// How long a port may take to refuse.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether whoever comes in the clear, or by TLS without a certificate, is served nothing.
pub fn are_refused(target: &str) -> Result<()> {
    for opening in [&b""[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", b"NBDMAGIC"]
    {
        let said = in_the_clear(target, opening)?;
        // A TLS alert is no service.
        if !(said.is_empty() || said[0] == 0x15) {
            bail!("{target} answers in the clear: {:?}", String::from_utf8_lossy(&said));
        }
    }
    match without_certificate(target) {
        Ok(said) => bail!("{target} serves without a certificate: {said:?}"),
        Err(_refusal) => Ok(()),
    }
}

fn connect(target: &str) -> Result<TcpStream> {
    let address = target.to_socket_addrs()?.next().context("no address")?;
    let stream = TcpStream::connect_timeout(&address, PATIENCE);
    let stream = stream.with_context(|| format!("cannot connect to {target}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    Ok(stream)
}

/// What it says to this opening before it hangs up or falls silent.
fn in_the_clear(target: &str, opening: &[u8]) -> Result<Vec<u8>> {
    let mut stream = connect(target)?;
    let mut said = vec![0; 256];
    // To be hung up on is what is wanted.
    let _cut = stream.write_all(opening);
    let count = stream.read(&mut said).unwrap_or(0);
    said.truncate(count);
    Ok(said)
}

/// A TLS client that trusts whoever answers and shows no certificate. In TLS 1.3 the handshake ends
/// for the client before the server has looked: only what comes then tells.
fn without_certificate(target: &str) -> Result<Vec<u8>> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    let name = ServerName::try_from("anybody")?;
    let client = ClientConnection::new(Arc::new(config), name)?;
    let mut stream = StreamOwned::new(client, connect(target)?);
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")?;
    stream.flush()?;
    let mut said = vec![0; 256];
    let count = stream.read(&mut said)?;
    if count == 0 {
        bail!("hung up");
    }
    said.truncate(count);
    Ok(said)
}

/// Believes everybody.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end: &CertificateDer<'_>,
        _between: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_port_that_greets_in_the_clear_is_found_out() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let _gone = stream.unwrap().write_all(b"NBDMAGICIHAVEOPT");
            }
        });
        let error = are_refused(&target).unwrap_err().to_string();
        assert!(error.contains("answers in the clear"), "{error}");
    }

    #[test]
    fn a_port_that_hangs_up_is_fine() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                drop(stream.unwrap());
            }
        });
        are_refused(&target).unwrap();
    }
}
