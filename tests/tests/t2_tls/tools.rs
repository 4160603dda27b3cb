//! Tools of others over TLS: they begin it by STARTTLS and check the name of a host, which our
//! certificates for tests have too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use understudy_core::engine::api::ExportKind;
use understudy_tests::harness::engines::Engines;
use understudy_tests::harness::tools;

use super::{export, pair};

/// The files under the names that libnbd and QEMU look for.
fn renamed(from: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (ours, theirs) in
        [("ca.crt", "ca-cert.pem"), ("tls.crt", "client-cert.pem"), ("tls.key", "client-key.pem")]
    {
        fs::copy(from.join(ours), dir.path().join(theirs)).unwrap();
    }
    dir
}

fn run(program: &PathBuf, arguments: &[&str]) -> (bool, String) {
    let out = Command::new(program).args(arguments).output().unwrap();
    (out.status.success(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
}

/// A pair, its primary's NBD port, the export's name, and certificates of a client.
fn stage(directory: &Path) -> (Engines, String, String, tempfile::TempDir) {
    let pair = pair(directory, &["--shards", "2"]);
    let own = directory.join("client");
    pair.authority().unwrap().issue(&own, "engine/client").unwrap();
    let at = pair.primary.secure_nbd().unwrap().host_port().unwrap().to_owned();
    let name = export(&pair, &pair.primary, ExportKind::Primary);
    (pair, at, name, renamed(&own))
}

#[test]
fn nbdinfo_opens_an_export_by_nbds_and_is_refused_without_a_certificate() {
    let Some([nbdinfo]) = tools::require("nbdinfo over TLS", ["nbdinfo"]) else { return };
    let directory = tempfile::tempdir().unwrap();
    let (_pair, at, name, certificates) = stage(directory.path());
    let certificates = certificates.path().display();
    let uri = format!("nbds://{at}/{name}?tls-certificates={certificates}");
    let (ok, text) = run(&nbdinfo, &[&uri]);
    assert!(ok && text.contains("4194304"), "{text}");
    assert!(text.contains("with TLS"), "{text}");
    let (ok, text) =
        run(&nbdinfo, &["--list", &format!("nbds://{at}?tls-certificates={certificates}")]);
    assert!(ok && text.contains(&name), "{text}");
    let (ok, text) = run(&nbdinfo, &[&format!("nbd://{at}/{name}")]);
    assert!(!ok && text.contains("TLS"), "{text}");
}

#[test]
fn qemu_img_copies_an_export_over_tls() {
    let Some([qemu_img]) = tools::require("qemu-img over TLS", ["qemu-img"]) else { return };
    let directory = tempfile::tempdir().unwrap();
    let (_pair, at, name, certificates) = stage(directory.path());
    let (host, port) = at.rsplit_once(':').unwrap();
    let object =
        format!("tls-creds-x509,id=tls,endpoint=client,dir={}", certificates.path().display());
    let image = format!("driver=nbd,host={host},port={port},export={name},tls-creds=tls");
    let out = directory.path().join("copy.raw");
    let (ok, text) = run(
        &qemu_img,
        &[
            "convert",
            "--object",
            &object,
            "--image-opts",
            &image,
            "-O",
            "raw",
            out.to_str().unwrap(),
        ],
    );
    assert!(ok, "{text}");
    let copy = fs::read(&out).unwrap();
    assert!(copy.len() == 4 << 20 && copy.iter().all(|b| *b == 0x11));
    let without = format!("driver=nbd,host={host},port={port},export={name}");
    let (ok, text) = run(&qemu_img, &["info", "--image-opts", &without]);
    assert!(!ok && text.contains("TLS"), "{text}");
}
