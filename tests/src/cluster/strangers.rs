//! What a port says to someone without a certificate: nothing but a refusal.
//!
//! NBD is greeted in the clear, because its TLS begins by an option. So it is asked further: for its exports,
//! for one of them, and for TLS without a certificate.

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
    let http = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    for opening in
        [&b""[..], http, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", b"NBDMAGIC"]
    {
        let said = in_the_clear(target, opening)?;
        if said.starts_with(GREETING) {
            return nbd_is_refused(target);
        }
        // A TLS alert is no service.
        if !(said.is_empty() || said[0] == 0x15) {
            bail!("{target} answers in the clear: {:?}", String::from_utf8_lossy(&said));
        }
    }
    match without_certificate(connect(target)?) {
        Ok(said) => bail!("{target} serves without a certificate: {said:?}"),
        Err(_refusal) => Ok(()),
    }
}

/// What an NBD server says first.
const GREETING: &[u8] = b"NBDMAGICIHAVEOPT";
/// Of the client's flags: fixed newstyle, and nothing behind an export's size.
const CLIENT_FLAGS: u32 = 3;
/// Options of the protocol.
mod option {
    pub(super) const EXPORT_NAME: u32 = 1;
    pub(super) const LIST: u32 = 3;
    pub(super) const STARTTLS: u32 = 5;
    pub(super) const INFO: u32 = 6;
    pub(super) const GO: u32 = 7;
}
/// Replies of the protocol.
const ACK: u32 = 1;
const TLS_REQUIRED: u32 = (1 << 31) | 5;

/// Whether an NBD server tells a stranger nothing before TLS, and lets nobody in by TLS without a certificate.
fn nbd_is_refused(target: &str) -> Result<()> {
    let name = b"no-such/primary@1";
    let wanted = [&u32::try_from(name.len())?.to_be_bytes()[..], name, &[0, 0]].concat();
    for (asked, data) in [(option::LIST, &[][..]), (option::INFO, &wanted), (option::GO, &wanted)] {
        let reply = ask(&mut greeted(target)?, asked, data)?;
        if reply != TLS_REQUIRED {
            bail!("{target} answers option {asked} in the clear with {reply:#x}");
        }
    }
    // This one has no reply but the export itself.
    if let Ok(reply) = ask(&mut greeted(target)?, option::EXPORT_NAME, name) {
        bail!("{target} answers the name of an export in the clear with {reply:#x}");
    }
    let mut stream = greeted(target)?;
    let reply = ask(&mut stream, option::STARTTLS, &[])?;
    if reply != ACK {
        bail!("{target} refuses to begin TLS: {reply:#x}");
    }
    match without_certificate(stream) {
        Ok(said) => bail!("{target} serves NBD without a certificate: {said:?}"),
        Err(_refusal) => Ok(()),
    }
}

/// A connection on which both have greeted.
fn greeted(target: &str) -> Result<TcpStream> {
    let mut stream = connect(target)?;
    stream.read_exact(&mut [0; 18])?;
    stream.write_all(&CLIENT_FLAGS.to_be_bytes())?;
    Ok(stream)
}

/// Sends an option; the type of the reply.
fn ask(stream: &mut TcpStream, option: u32, data: &[u8]) -> Result<u32> {
    let length = u32::try_from(data.len())?.to_be_bytes();
    stream.write_all(&[b"IHAVEOPT", &option.to_be_bytes()[..], &length, data].concat())?;
    let mut reply = [0; 20];
    stream.read_exact(&mut reply)?;
    let [.., a, b, c, d, l0, l1, l2, l3] = reply;
    let length = u32::from_be_bytes([l0, l1, l2, l3]);
    std::io::copy(&mut stream.take(length.into()), &mut std::io::sink())?;
    Ok(u32::from_be_bytes([a, b, c, d]))
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
fn without_certificate(stream: TcpStream) -> Result<Vec<u8>> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    let name = ServerName::try_from("anybody")?;
    let client = ClientConnection::new(Arc::new(config), name)?;
    let mut stream = StreamOwned::new(client, stream);
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
        assert!(are_refused(&target).is_err());
    }

    /// An NBD server that answers whatever it is asked with one reply.
    fn nbd(reply: u32) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _said = stream.write_all(&[GREETING, &[0, 3]].concat());
                // Flags, then an option with its data; some only listen to the greeting.
                let mut asked = [0; 20];
                if stream.read_exact(&mut asked).is_err() {
                    continue;
                }
                let mut data = vec![0; usize::from(asked[19])];
                let _heard = stream.read_exact(&mut data);
                let magic = 0x0003_e889_0455_65a9_u64.to_be_bytes();
                let words = [&magic[..], &[0; 4], &reply.to_be_bytes(), &[0; 4]].concat();
                let _said = stream.write_all(&words);
            }
        });
        target
    }

    #[test]
    fn an_nbd_server_that_tells_its_exports_in_the_clear_is_found_out() {
        let error = are_refused(&nbd(ACK)).unwrap_err().to_string();
        assert!(error.contains("answers option 3 in the clear"), "{error}");
    }

    #[test]
    fn an_nbd_server_that_answers_an_export_s_name_in_the_clear_is_found_out() {
        let error = are_refused(&nbd(TLS_REQUIRED)).unwrap_err().to_string();
        assert!(error.contains("answers the name of an export"), "{error}");
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
