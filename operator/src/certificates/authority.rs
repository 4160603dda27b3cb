//! The certificate authority of an installation: what is in its Secret, and when it is renewed.
//!
//! ```text
//!   tls.crt, tls.key     the authority that signs
//!   next.crt, next.key   the one that will, once everybody trusts it
//!   ca.crt               all that are to be trusted
//!
//!   2/3 of its life ─► next is made and trusted ─► ANNOUNCE later ─► next signs; the old one is
//!                                                                    trusted until its end
//! ```
//!
//! A Secret that somebody else made (cert-manager) is used as it is, and never written.

use std::collections::BTreeMap;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use time::OffsetDateTime;

use super::identity::Identity;

/// How long everybody has to take up a new authority before it signs.
pub const ANNOUNCE: Duration = Duration::from_hours(1);

/// Certificates are good from this long ago: clocks differ.
const BACKDATE: Duration = Duration::from_mins(5);

/// Its parts, by their keys in the Secret.
pub type Parts = BTreeMap<String, Vec<u8>>;

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// Something in the Secret can't be used.
    #[error("the Secret {secret}: {part}: {problem}", secret = understudy_crds::names::CA_SECRET)]
    Unusable {
        /// Its key.
        part: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// A key or certificate could not be made.
    #[error("a certificate could not be made: {0}")]
    Failed(#[from] rcgen::Error),
}

/// From when to when something is good, in seconds of Unix time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Validity {
    /// From here on.
    pub from: i64,
    /// Up to here.
    pub until: i64,
}

impl Validity {
    /// Of the first certificate in a text.
    pub fn of(pem: &[u8]) -> Result<Self, String> {
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem).map_err(|e| e.to_string())?;
        let certificate = pem.parse_x509().map_err(|e| e.to_string())?;
        let validity = certificate.validity();
        Ok(Self { from: validity.not_before.timestamp(), until: validity.not_after.timestamp() })
    }

    /// Whether two thirds of it are over.
    pub fn is_due(self, now: i64) -> bool {
        now.saturating_sub(self.from) >= self.until.saturating_sub(self.from) / 3 * 2
    }
}

/// Makes a new authority.
pub fn create(now: i64, lifetime: Duration) -> Result<Parts, AuthorityError> {
    let (certificate, key) = generate(now, lifetime)?;
    Ok(Parts::from([
        ("tls.crt".to_owned(), certificate.clone().into_bytes()),
        ("tls.key".to_owned(), key.into_bytes()),
        ("ca.crt".to_owned(), certificate.into_bytes()),
    ]))
}

fn generate(now: i64, lifetime: Duration) -> Result<(String, String), AuthorityError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::OrganizationName, "understudy.dev");
    // Two authorities must not share a name: which one signed could not be told.
    params.distinguished_name.push(DnType::CommonName, format!("understudy {now}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = dates(now, lifetime)?;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

fn dates(now: i64, lifetime: Duration) -> Result<(OffsetDateTime, OffsetDateTime), AuthorityError> {
    let seconds = |d: Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
    let at = |t: i64| {
        OffsetDateTime::from_unix_timestamp(t).map_err(|e| AuthorityError::Unusable {
            part: "tls.crt",
            problem: format!("no date: {e}"),
        })
    };
    Ok((at(now.saturating_sub(seconds(BACKDATE)))?, at(now.saturating_add(seconds(lifetime)))?))
}

/// What is to become of the Secret now; `None`: it is right.
pub fn turn(parts: &Parts, now: i64, lifetime: Duration) -> Result<Option<Parts>, AuthorityError> {
    let active = validity(parts, "tls.crt")?;
    if !active.is_due(now) {
        return Ok(None);
    }
    let mut parts = parts.clone();
    if !parts.contains_key("next.crt") {
        let (certificate, key) = generate(now, lifetime)?;
        let trusted = parts.entry("ca.crt".to_owned()).or_default();
        trusted.extend(certificate.as_bytes());
        parts.insert("next.crt".to_owned(), certificate.into_bytes());
        parts.insert("next.key".to_owned(), key.into_bytes());
        return Ok(Some(parts));
    }
    let announced =
        validity(&parts, "next.crt")?.from.saturating_add(BACKDATE.as_secs().cast_signed());
    if now.saturating_sub(announced) < ANNOUNCE.as_secs().cast_signed() {
        return Ok(None);
    }
    let old = parts.get("tls.crt").cloned().unwrap_or_default();
    for (from, to) in [("next.crt", "tls.crt"), ("next.key", "tls.key")] {
        if let Some(part) = parts.remove(from) {
            parts.insert(to.to_owned(), part);
        }
    }
    // Trusted: the one that signs now, and the one that has signed what is still in use.
    let mut trusted = parts.get("tls.crt").cloned().unwrap_or_default();
    trusted.extend(old);
    parts.insert("ca.crt".to_owned(), trusted);
    Ok(Some(parts))
}

fn validity(parts: &Parts, part: &'static str) -> Result<Validity, AuthorityError> {
    let unusable = |problem: String| AuthorityError::Unusable { part, problem };
    let text = parts.get(part).ok_or_else(|| unusable("it is missing".to_owned()))?;
    Validity::of(text).map_err(unusable)
}

/// What everybody is to trust.
pub fn bundle(parts: &Parts) -> String {
    let mut all = String::new();
    for part in ["ca.crt", "tls.crt"] {
        let text = parts.get(part).map(|p| String::from_utf8_lossy(p).into_owned());
        // An issuer's Secret may leave out one or the other.
        for certificate in text.unwrap_or_default().split_inclusive("-----END CERTIFICATE-----") {
            let certificate = certificate.trim();
            if !certificate.is_empty() && !all.contains(certificate) {
                all.push_str(certificate);
                all.push('\n');
            }
        }
    }
    all
}

/// Signs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    until: i64,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("until", &self.until).finish_non_exhaustive()
    }
}

impl Authority {
    /// The one that signs now.
    pub fn open(parts: &Parts) -> Result<Self, AuthorityError> {
        let text = |part: &'static str| {
            let unusable =
                |problem: &str| AuthorityError::Unusable { part, problem: problem.into() };
            let bytes = parts.get(part).ok_or_else(|| unusable("it is missing"))?;
            String::from_utf8(bytes.clone()).map_err(|_| unusable("it is no PEM"))
        };
        let unusable =
            |part| move |e: rcgen::Error| AuthorityError::Unusable { part, problem: e.to_string() };
        let key = KeyPair::from_pem(&text("tls.key")?).map_err(unusable("tls.key"))?;
        let issuer =
            Issuer::from_ca_cert_pem(&text("tls.crt")?, key).map_err(unusable("tls.crt"))?;
        Ok(Self { issuer, until: validity(parts, "tls.crt")?.until })
    }

    /// Signs a request for an identity that was checked.
    pub fn sign(
        &self,
        identity: &Identity,
        request: &CertificateSigningRequestParams,
        now: i64,
        lifetime: Duration,
    ) -> Result<String, AuthorityError> {
        self.issue(identity, &request.public_key, now, lifetime)
    }

    /// A key and a certificate of it.
    pub fn make(
        &self,
        identity: &Identity,
        now: i64,
        lifetime: Duration,
    ) -> Result<(String, String), AuthorityError> {
        let key = KeyPair::generate()?;
        Ok((self.issue(identity, &key, now, lifetime)?, key.serialize_pem()))
    }

    fn issue(
        &self,
        identity: &Identity,
        key: &impl PublicKeyData,
        now: i64,
        lifetime: Duration,
    ) -> Result<String, AuthorityError> {
        // Nothing of a request but its key and its identity goes into the certificate.
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(identity.uri().try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let left = u64::try_from(self.until.saturating_sub(now)).unwrap_or(0);
        let lifetime = lifetime.min(Duration::from_secs(left));
        (params.not_before, params.not_after) = dates(now, lifetime)?;
        Ok(params.signed_by(key, &self.issuer)?.pem())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: Duration = Duration::from_hours(365 * 24);
    const NOW: i64 = 1_800_000_000;

    fn count(parts: &Parts) -> usize {
        bundle(parts).matches("BEGIN CERTIFICATE").count()
    }

    #[test]
    fn a_new_authority_is_trusted_before_it_signs_and_the_old_one_afterwards() {
        let year = YEAR.as_secs().cast_signed();
        let first = create(NOW, YEAR).unwrap();
        assert_eq!(count(&first), 1);
        assert_eq!(turn(&first, NOW + year / 3 * 2 - 1000, YEAR).unwrap(), None);
        let due = NOW + year / 3 * 2 + 1000;
        let announced = turn(&first, due, YEAR).unwrap().unwrap();
        assert_eq!(announced["tls.crt"], first["tls.crt"], "the old one signs yet");
        assert_eq!(count(&announced), 2);
        assert_eq!(turn(&announced, due + 3500, YEAR).unwrap(), None, "not everybody has it");
        let switched = turn(&announced, due + 3601, YEAR).unwrap().unwrap();
        assert_eq!(switched["tls.crt"], announced["next.crt"]);
        assert_eq!(count(&switched), 2, "what the old one signed is still in use");
        assert!(!switched.contains_key("next.crt"));
        assert_eq!(turn(&switched, due + 3602, YEAR).unwrap(), None);
        // The third life: the first one is not trusted any more.
        let later = due + year / 3 * 2 + 5000;
        let third = turn(&switched, later, YEAR).unwrap().unwrap();
        let third = turn(&third, later + 3601, YEAR).unwrap().unwrap();
        assert_eq!(count(&third), 2);
        Authority::open(&third).unwrap();
    }

    #[test]
    fn a_certificate_names_one_identity_and_ends_with_its_authority() {
        let parts = create(NOW, YEAR).unwrap();
        let authority = Authority::open(&parts).unwrap();
        let day = Duration::from_hours(24);
        let (pem, _) = authority.make(&Identity::Engine("node-a".into()), NOW, day).unwrap();
        let validity = Validity::of(pem.as_bytes()).unwrap();
        assert_eq!(validity, Validity { from: NOW - 300, until: NOW + 86400 });
        assert!(validity.is_due(NOW + 60000) && !validity.is_due(NOW + 50000));
        let late = NOW + YEAR.as_secs().cast_signed() - 100;
        let (pem, _) = authority.make(&Identity::Operator, late, day).unwrap();
        assert_eq!(Validity::of(pem.as_bytes()).unwrap().until, late + 100);
    }

    #[test]
    fn a_secret_that_can_not_be_used_names_its_part() {
        let mut parts = create(NOW, YEAR).unwrap();
        parts.insert("tls.key".to_owned(), b"no key".to_vec());
        assert!(Authority::open(&parts).unwrap_err().to_string().contains("tls.key"));
        parts.remove("tls.crt");
        assert!(
            turn(&parts, NOW, YEAR).unwrap_err().to_string().contains("tls.crt: it is missing")
        );
    }
}
