//! What went wrong with TLS, in words that say what to do.
//!
//! ```text
//!   rustls::Error (inside an io::Error) ──► Fault ──► "refused our certificate: it has expired ..."
//! ```

use std::io;

use rustls::{AlertDescription, CertificateError, Error};

use super::verify::NotWelcome;

/// What went wrong, from where we stand.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The far end does not want us; why, as far as it says.
    RefusedUs(String),
    /// We do not want the far end; why.
    RefusedThem(String),
    /// It is no TLS, or none that fits.
    Protocol(String),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::RefusedUs(why) => write!(f, "it refused our certificate: {why}"),
            Self::RefusedThem(why) | Self::Protocol(why) => f.write_str(why),
        }
    }
}

/// rustls' error, in our words.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) Error);

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        fault(&self.0).fmt(f)
    }
}

impl std::error::Error for Failure {}

/// What an error of a stream says of TLS; `None` if it says nothing of it.
pub fn explain(error: &io::Error) -> Option<Fault> {
    let mut inner: &(dyn std::error::Error + 'static) = error.get_ref()?;
    loop {
        if let Some(Failure(e)) = inner.downcast_ref::<Failure>() {
            return Some(fault(e));
        }
        if let Some(e) = inner.downcast_ref::<Error>() {
            return Some(fault(e));
        }
        if let Some(e) = inner.downcast_ref::<io::Error>()
            && let Some(fault) = explain(e)
        {
            return Some(fault);
        }
        inner = inner.source()?;
    }
}

/// The same of rustls' own error.
pub(crate) fn fault(error: &Error) -> Fault {
    match error {
        Error::AlertReceived(alert) => refused_us(*alert),
        Error::InvalidCertificate(e) => Fault::RefusedThem(bad_certificate(e)),
        Error::NoCertificatesPresented => {
            Fault::RefusedThem("it showed no certificate: it needs one of this installation".into())
        }
        Error::InvalidMessage(_) => {
            Fault::Protocol("it does not speak TLS: is this port plaintext?".into())
        }
        Error::PeerIncompatible(e) => {
            Fault::Protocol(format!("it speaks another TLS, 1.3 is needed here: {e:?}"))
        }
        Error::NoApplicationProtocol => {
            Fault::Protocol("it speaks another protocol: is this the right port?".into())
        }
        other => Fault::Protocol(format!("the TLS handshake failed: {other}")),
    }
}

fn refused_us(alert: AlertDescription) -> Fault {
    Fault::RefusedUs(match alert {
        AlertDescription::CertificateExpired => {
            "it has expired or is not valid yet (are both clocks right?)".into()
        }
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "it is of an authority that the far end does not know (is ca.crt the same on both?)"
                .into()
        }
        AlertDescription::CertificateRequired => "there was none".into(),
        AlertDescription::CertificateUnknown | AlertDescription::AccessDenied => {
            "our identity may not do this there; its log says more".into()
        }
        AlertDescription::UnsupportedCertificate => {
            "it is not made for this end of a connection (extended key usage)".into()
        }
        AlertDescription::ProtocolVersion => {
            return Fault::Protocol("it speaks another TLS, 1.3 is needed here".into());
        }
        AlertDescription::NoApplicationProtocol => {
            return Fault::Protocol("it speaks another protocol: is this the right port?".into());
        }
        other => return Fault::Protocol(format!("it ended the TLS connection: {other:?}")),
    })
}

fn bad_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired: renew it (are both clocks right?)".into()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet: are both clocks right?".into()
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is of an authority that is not in our ca.crt".into()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its certificate is not made for this end of a connection (extended key usage)".into()
        }
        CertificateError::Other(other) => match other.0.downcast_ref::<NotWelcome>() {
            Some(why) => why.0.clone(),
            None => format!("its certificate is refused: {other}"),
        },
        other => format!("its certificate is refused: {other}"),
    }
}
