//! Certificates for tests: an authority, and what it says of others.
//!
//! ```text
//!   Authority ──issue(dir, identity)──► dir/ca.crt   the authority's
//!                                           tls.crt  URI:spiffe://understudy.dev/IDENTITY
//!                                           tls.key  also DNS:NODE, DNS:localhost, IP:127.0.0.1: tools that
//!                                                    know no identities look for a host there
//! ```
//!
//! Each file is replaced as a whole, the key last.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};

/// How long a certificate is good that nobody says more of.
const DAY: Duration = Duration::from_hours(24);

/// Who may say who is who.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority")
    }
}

impl Authority {
    /// A new one: nobody knows it yet, and it knows of no other.
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "understudy test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// The authority's own certificate, in PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Writes a set for `identity` (`engine/NODE`, `operator`, `csi-controller`) that is good for a day.
    pub fn issue(&self, dir: &Path, identity: &str) -> Result<()> {
        self.issue_between(dir, identity, now().saturating_sub(DAY), now() + DAY)
    }

    /// The same, of which the time has passed.
    pub fn issue_expired(&self, dir: &Path, identity: &str) -> Result<()> {
        let hour = Duration::from_hours(1);
        self.issue_between(dir, identity, now().saturating_sub(DAY), now().saturating_sub(hour))
    }

    /// The same, good from one time to another, both since the Unix epoch.
    pub fn issue_between(
        &self,
        dir: &Path,
        identity: &str,
        from: Duration,
        until: Duration,
    ) -> Result<()> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, identity);
        let uri = format!("spiffe://understudy.dev/{identity}");
        params.subject_alt_names.push(SanType::URI(uri.try_into()?));
        params.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        if let Some(node) = identity.strip_prefix("engine/") {
            params.subject_alt_names.push(SanType::DnsName(node.to_owned().try_into()?));
        }
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        (params.not_before, params.not_after) =
            (date_time_ymd(1970, 1, 1) + from, date_time_ymd(1970, 1, 1) + until);
        let certificate = params.signed_by(&key, &self.0)?;
        fs::create_dir_all(dir)?;
        for (name, text) in [
            ("ca.crt", self.pem()),
            ("tls.crt", certificate.pem()),
            ("tls.key", key.serialize_pem()),
        ] {
            let draft = dir.join(format!(".{name}"));
            fs::write(&draft, text)?;
            fs::rename(draft, dir.join(name))?;
        }
        Ok(())
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
