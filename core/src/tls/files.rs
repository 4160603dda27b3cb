//! The files of a set, read and checked as a whole.
//!
//! ```text
//!   DIR/ca.crt    PEM, one certificate or more: whom we trust
//!       tls.crt   PEM, ours first, then what leads to ca.crt
//!       tls.key   PEM, its private key
//!
//!   read ─► parse ─► key fits certificate ─► ours leads to ca.crt, in its dates ─► who we are ─► Set
//! ```

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;

use super::explain::fault;
use super::set::provider;
use super::{Identity, Set};

/// The names of the files.
pub(super) const FILES: [&str; 3] = ["ca.crt", "tls.crt", "tls.key"];

/// The largest file read, in bytes: some hundred certificates.
const FILE_MAX: u64 = 256 << 10;

/// Why a set is refused: the file, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct LoadError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it, and the remedy.
    pub problem: String,
    /// The file is not there: it may come.
    pub is_absent: bool,
}

/// What tells one state of the files from another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Stamp([(i64, i64, u64, u64); 3]);

impl Stamp {
    /// Of the files as they are now; those that are absent count as empty.
    pub(super) fn of(dir: &Path) -> Self {
        Self(FILES.map(|name| {
            let seen = |m: fs::Metadata| (m.mtime(), m.mtime_nsec(), m.ino(), m.size());
            fs::metadata(dir.join(name)).map(seen).unwrap_or_default()
        }))
    }
}

/// Reads the set in a directory. `expected`: whose it must be.
pub(super) fn load(dir: &Path, expected: Option<&Identity>) -> Result<Set, LoadError> {
    let [ca, certificate, key] = FILES.map(|name| dir.join(name));
    let at = |path: &Path, problem: String| LoadError {
        path: path.to_owned(),
        problem,
        is_absent: false,
    };
    let mut roots = RootCertStore::empty();
    for root in certificates(&ca)? {
        roots.add(root).map_err(|e| at(&ca, format!("it holds what can be no authority: {e}")))?;
    }
    let roots = Arc::new(roots);
    let chain = certificates(&certificate)?;
    let text = read(&key)?;
    let private = PrivateKeyDer::from_pem_slice(&text)
        .map_err(|e| at(&key, format!("it holds no private key in PEM: {e}")))?;
    let certified = CertifiedKey::from_der(chain, private, &provider())
        .map_err(|e| at(&key, format!("it does not fit {}: {e}", certificate.display())))?;
    let ours = certified
        .end_entity_cert()
        .map_err(|e| at(&certificate, format!("it holds no certificate: {e}")))?;
    let unproven = |e: &rustls::Error| {
        let why = fault(e).to_string();
        at(&certificate, format!("nobody who trusts {} would take it: {why}", ca.display()))
    };
    rustls::client::verify_server_cert_signed_by_trust_anchor(
        &ParsedCertificate::try_from(ours).map_err(|e| unproven(&e))?,
        &roots,
        certified.cert.get(1..).unwrap_or_default(),
        UnixTime::now(),
        provider().signature_verification_algorithms.all,
    )
    .or_else(|e| if is_purpose(&e) { Ok(()) } else { Err(unproven(&e)) })?;
    let identity = Identity::named_in(ours).map_err(|e| at(&certificate, e.0))?;
    if let Some(wanted) = expected
        && *wanted != identity
    {
        let problem = format!("it is of {identity}, not of {wanted}: is the node's name right?");
        return Err(at(&certificate, problem));
    }
    Set::new(identity, roots, Arc::new(certified))
        .map_err(|e| at(&ca, format!("it can't be trusted in: {e}")))
}

/// Only a server needs to be allowed to be one; the far end checks that.
fn is_purpose(error: &rustls::Error) -> bool {
    use rustls::CertificateError::{InvalidPurpose, InvalidPurposeContext};
    matches!(
        error,
        rustls::Error::InvalidCertificate(InvalidPurpose | InvalidPurposeContext { .. })
    )
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let bad = |problem: String| LoadError { path: path.to_owned(), problem, is_absent: false };
    let text = read(path)?;
    let all: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|e| bad(format!("it is no PEM: {e}")))?;
    if all.is_empty() {
        return Err(bad("it holds no certificate in PEM".to_owned()));
    }
    Ok(all)
}

fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let bad = |e: io::Error| LoadError {
        path: path.to_owned(),
        problem: format!("it can't be read: {e}"),
        is_absent: e.kind() == io::ErrorKind::NotFound,
    };
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(bad)?;
    let n = file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(bad)?;
    if crate::units::u64_of(n) > FILE_MAX {
        return Err(bad(io::Error::other(format!("it is longer than {FILE_MAX} bytes"))));
    }
    Ok(bytes)
}
