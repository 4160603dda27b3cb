//! etcd and kube-apiserver as plain processes: the part that a bench and a whole cluster share.
//!
//! ```text
//!   kube-apiserver (TLS, client certificates) ──► etcd (plain, this machine only, no fsync: a test's data)
//! ```

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use super::kubectl::Kubectl;
use super::pki::{Authority, Use};
use super::programs;
use crate::harness::process::Child;

/// How long a first start may take on a busy machine.
const READY: Duration = Duration::from_mins(2);

/// The first address of the services' range: the API server, as pods know it.
const SERVICE_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1));
/// Where services live.
pub const SERVICE_RANGE: &str = "10.96.0.0/16";

/// How the API server is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens.
    pub address: IpAddr,
    /// Whether every request is written down, for comparing with what the roles allow.
    pub audit: bool,
}

/// An API server and its store.
pub struct ControlPlane {
    directory: PathBuf,
    authority: Authority,
    server: String,
    api_arguments: Vec<String>,
    etcd: Child,
    api: Option<Child>,
}

impl ControlPlane {
    /// Starts both in `directory` and waits until the API server is ready.
    pub fn start(directory: &Path, options: &Options) -> Result<Self> {
        let authority = Authority::new(&directory.join("pki"))?;
        let [client_port, peer_port] =
            [free_port(Ipv4Addr::LOCALHOST.into())?, free_port(Ipv4Addr::LOCALHOST.into())?];
        let store = format!("http://127.0.0.1:{client_port}");
        let etcd = start_etcd(directory, &store, &format!("http://127.0.0.1:{peer_port}"))?;
        let port = free_port(options.address)?;
        let server = format!("https://{}:{port}", options.address);
        authority.issue(
            "apiserver",
            "kube-apiserver",
            None,
            Use::Server,
            &[options.address, Ipv4Addr::LOCALHOST.into(), SERVICE_ADDRESS],
            &["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"],
        )?;
        authority.user(
            "kubelet-client",
            "apiserver-kubelet-client",
            Some("system:masters"),
            &server,
        )?;
        authority.user("admin", "admin", Some("system:masters"), &server)?;
        let api_arguments = api_arguments(directory, &authority, options, port, &store)?;
        let mut own = Self {
            directory: directory.to_owned(),
            authority,
            server,
            api_arguments,
            etcd,
            api: None,
        };
        own.start_api()?;
        Ok(own)
    }

    /// Starts the API server again, on the same port.
    pub fn start_api(&mut self) -> Result<()> {
        let program = programs::find("kube-apiserver")?;
        let mut api =
            Child::start("kube-apiserver", &program, &self.api_arguments, &self.directory)?;
        let kubectl = self.kubectl()?;
        api.wait_until("the API server was ready", READY, || {
            let ready = kubectl.run(["get", "--raw", "/readyz"]).is_ok();
            if !ready {
                std::thread::sleep(Duration::from_millis(100));
            }
            ready.then_some(())
        })?;
        self.api = Some(api);
        Ok(())
    }

    /// SIGKILL to the API server; its graceful end takes minutes. The store stays.
    pub fn stop_api(&mut self) {
        self.api = None;
    }

    /// The process id of the API server while it is up.
    pub fn api_pid(&self) -> Option<u32> {
        self.api.as_ref().map(Child::pid)
    }

    /// The URL of the API server.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Who issues certificates here.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The kubeconfig of an administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.authority.path("admin.kubeconfig")
    }

    /// kubectl as an administrator.
    pub fn kubectl(&self) -> Result<Kubectl> {
        Kubectl::new(&self.kubeconfig())
    }

    /// Where every request is written down, if that was asked for.
    pub fn audit_log(&self) -> PathBuf {
        self.directory.join("audit.log")
    }

    /// The process id of the store, for tests of what is left over.
    pub fn store_pid(&self) -> u32 {
        self.etcd.pid()
    }
}

fn start_etcd(directory: &Path, client: &str, peer: &str) -> Result<Child> {
    let data = directory.join("etcd");
    let arguments = [
        format!("--data-dir={}", data.display()),
        "--name=store".to_owned(),
        "--unsafe-no-fsync".to_owned(),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=store={peer}"),
        "--log-level=warn".to_owned(),
    ];
    Child::start("etcd", &programs::find("etcd")?, arguments, directory)
}

fn api_arguments(
    directory: &Path,
    authority: &Authority,
    options: &Options,
    port: u16,
    store: &str,
) -> Result<Vec<String>> {
    let file = |name: &str| authority.path(name).display().to_string();
    let mut arguments = vec![
        format!("--etcd-servers={store}"),
        format!("--bind-address={}", options.address),
        format!("--secure-port={port}"),
        format!("--advertise-address={}", advertised(options.address)),
        format!("--tls-cert-file={}", file("apiserver.crt")),
        format!("--tls-private-key-file={}", file("apiserver.key")),
        format!("--client-ca-file={}", file("ca.crt")),
        format!("--kubelet-client-certificate={}", file("kubelet-client.crt")),
        format!("--kubelet-client-key={}", file("kubelet-client.key")),
        format!("--kubelet-certificate-authority={}", file("ca.crt")),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        format!("--service-account-key-file={}", file("service-accounts.pub")),
        format!("--service-account-signing-key-file={}", file("service-accounts.key")),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-cluster-ip-range={SERVICE_RANGE}"),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--allow-privileged=true".to_owned(),
        "--profiling=false".to_owned(),
    ];
    if options.audit {
        let policy = directory.join("audit-policy.yaml");
        std::fs::write(&policy, AUDIT_POLICY)?;
        arguments.push(format!("--audit-policy-file={}", policy.display()));
        arguments.push(format!("--audit-log-path={}", directory.join("audit.log").display()));
    }
    Ok(arguments)
}

/// Who asked for what, once per request; a watch, which may never end, when it begins.
const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  userGroups: ['system:serviceaccounts']
- level: None
";

/// The API server refuses to advertise a loopback address: nobody but this machine could use it.
/// On a bench nobody else is there, so any other address will do.
fn advertised(address: IpAddr) -> IpAddr {
    if address.is_loopback() { Ipv4Addr::new(192, 0, 2, 1).into() } else { address }
}

/// A port that was free a moment ago.
fn free_port(address: IpAddr) -> Result<u16> {
    Ok(TcpListener::bind((address, 0))?.local_addr()?.port())
}
