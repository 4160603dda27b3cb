//! A scrape of an engine's metrics, as Prometheus makes it.
//!
//! ```text
//!   unix:PATH │ tcp:HOST:PORT │ tls:[NODE@]HOST:PORT with a certificate ─► GET PATH ─► status, text
//! ```

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use understudy_core::engine::client::Tls;
use understudy_core::runtime::Address;
use understudy_core::tls::Door;

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Asks for a path; the status and the body.
pub fn get(address: &Address, path: &str, tls: Option<&Tls>) -> Result<(u16, String)> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n");
    let mut answer = Vec::new();
    match address {
        Address::Unix(socket) => {
            let mut stream = UnixStream::connect(socket)?;
            stream.set_read_timeout(Some(LIMIT))?;
            stream.write_all(request.as_bytes())?;
            stream.read_to_end(&mut answer)?;
        }
        Address::Tcp(at) => {
            let mut stream = tcp(at)?;
            stream.write_all(request.as_bytes())?;
            stream.read_to_end(&mut answer)?;
        }
        Address::Tls { node, host_port } => {
            let tls = tls.context("this address needs a certificate")?;
            let config = tls.current().client(Door::Metrics, node.as_deref())?;
            let name = "engine.understudy.dev".try_into()?;
            let mut session = rustls::ClientConnection::new(config, name)?;
            let mut socket = tcp(host_port)?;
            let mut stream = rustls::Stream::new(&mut session, &mut socket);
            stream.write_all(request.as_bytes())?;
            match stream.read_to_end(&mut answer) {
                // The far end need not say goodbye: the length of what it says is in its head.
                Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {}
                read => drop(read?),
            }
        }
    }
    let text = String::from_utf8(answer)?;
    let (head, body) = text.split_once("\r\n\r\n").context("no answer")?;
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
    let length = head.to_ascii_lowercase();
    let length = length.lines().find_map(|l| l.strip_prefix("content-length: "));
    let length: usize = length.context("no length")?.trim().parse()?;
    ensure!(body.len() == length, "{} bytes of {length}", body.len());
    Ok((status.context("no status")?, body.to_owned()))
}

fn tcp(at: &str) -> Result<TcpStream> {
    let stream = TcpStream::connect(at)?;
    stream.set_read_timeout(Some(LIMIT))?;
    Ok(stream)
}

/// A scrape: each series with its value.
pub fn scrape(address: &Address, tls: Option<&Tls>) -> Result<BTreeMap<String, f64>> {
    let (status, text) = get(address, "/metrics", tls)?;
    if status != 200 {
        bail!("status {status}: {text}");
    }
    ensure!(text.ends_with("# EOF\n"), "the text is not whole:\n{text}");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').context(line.to_owned())?;
            Ok((series.to_owned(), value.parse()?))
        })
        .collect()
}
