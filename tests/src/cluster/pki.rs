//! The certificates of a test cluster: one CA, and client certificates that carry an identity.
//!
//! ```text
//!   ca.crt ─┬─ apiserver.{crt,key}      serves the API
//!           ├─ NAME.{crt,key,kubeconfig} CN = user, O = group
//!           └─ node.{crt,key,kubeconfig} CN = system:node:NAME, serves the kubelet's API too
//!   service-accounts.{key,pub}          signs the tokens of service accounts
//! ```

use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::json;

/// The authority of one cluster; everything it issues goes into one directory.
pub struct Authority {
    directory: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Asking.
    Client,
    /// Answering.
    Server,
    /// Both: a kubelet.
    Both,
}

impl Authority {
    /// Makes a CA and writes its certificate, and a key for service accounts' tokens.
    pub fn new(directory: &Path) -> Result<Self> {
        std::fs::create_dir_all(directory)?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = name("cluster-ca", None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        write(&directory.join("ca.crt"), &issuer.pem())?;
        write(&directory.join("ca.key"), &issuer.key().serialize_pem())?;
        let tokens = KeyPair::generate()?;
        write(&directory.join("service-accounts.key"), &tokens.serialize_pem())?;
        write(&directory.join("service-accounts.pub"), &tokens.public_key_pem())?;
        Ok(Self { directory: directory.to_owned(), issuer })
    }

    /// Where a file of the authority is.
    pub fn path(&self, file: &str) -> PathBuf {
        self.directory.join(file)
    }

    /// Issues `file.crt` and `file.key`.
    pub fn issue(
        &self,
        file: &str,
        user: &str,
        group: Option<&str>,
        purpose: Use,
        addresses: &[IpAddr],
        names: &[&str],
    ) -> Result<()> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        params.subject_alt_names.extend(addresses.iter().map(|ip| SanType::IpAddress(*ip)));
        params.distinguished_name = name(user, group);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match purpose {
            Use::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Use::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Use::Both => {
                vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth]
            }
        };
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        write(&self.path(&format!("{file}.crt")), &certificate.pem())?;
        write(&self.path(&format!("{file}.key")), &key.serialize_pem())
    }

    /// Issues a client certificate and writes `file.kubeconfig` for it.
    pub fn user(
        &self,
        file: &str,
        user: &str,
        group: Option<&str>,
        server: &str,
    ) -> Result<PathBuf> {
        self.issue(file, user, group, Use::Client, &[], &[])?;
        self.kubeconfig(file, server)
    }

    /// Writes `file.kubeconfig` around `file.crt` and `file.key`.
    pub fn kubeconfig(&self, file: &str, server: &str) -> Result<PathBuf> {
        let at = |suffix: &str| self.path(&format!("{file}.{suffix}"));
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "understudy", "cluster": {
                "server": server, "certificate-authority": self.path("ca.crt"),
            }}],
            "users": [{ "name": file, "user": {
                "client-certificate": at("crt"), "client-key": at("key"),
            }}],
            "contexts": [{ "name": "understudy", "context": { "cluster": "understudy", "user": file } }],
            "current-context": "understudy",
        });
        let path = at("kubeconfig");
        write(&path, &serde_yaml::to_string(&config)?)?;
        Ok(path)
    }
}

fn name(user: &str, group: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, user);
    if let Some(group) = group {
        name.push(DnType::OrganizationName, group);
    }
    name
}

fn write(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    let file =
        std::fs::File::options().create(true).write(true).truncate(true).mode(0o600).open(path);
    let mut file = file.with_context(|| format!("cannot write {}", path.display()))?;
    Ok(file.write_all(text.as_bytes())?)
}
