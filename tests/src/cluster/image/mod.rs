//! Container images without a container engine: one layer, as an OCI layout in a tar archive.
//!
//! ```text
//!   oci-layout
//!   index.json ──► blobs/sha256/MANIFEST ──► CONFIG   (entry point, environment)
//!                                        └─► LAYER    (the files, a tar archive)
//! ```
//!
//! The same files give the same bytes, so that an image that did not change is not loaded again.

mod closure;
mod set;
mod tar;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use understudy_core::units::u64_of;

pub use closure::closure;
pub use set::{BUSYBOX, PAUSE, PRODUCT, TESTS, build_all};
use tar::Tar;

/// An image that is being put together.
pub struct Image {
    name: String,
    entrypoint: Vec<String>,
    command: Vec<String>,
    layer: Tar,
    directories: BTreeSet<String>,
    files: BTreeSet<String>,
}

impl Image {
    /// Begins an image; `name` is what pods call it, with its tag.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            entrypoint: Vec::new(),
            command: Vec::new(),
            layer: Tar::default(),
            directories: BTreeSet::new(),
            files: BTreeSet::new(),
        }
    }

    /// What always runs.
    pub fn entrypoint(mut self, words: &[&str]) -> Self {
        self.entrypoint = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// What runs unless the pod says otherwise.
    pub fn command(mut self, words: &[&str]) -> Self {
        self.command = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Adds a file of this machine. The second of the same name is left out.
    pub fn add(&mut self, source: &Path, place: &str) -> Result<()> {
        let content = std::fs::read(source);
        self.put(
            place,
            0o755,
            &content.with_context(|| format!("cannot read {}", source.display()))?,
        )
    }

    /// Adds a program of this machine with the libraries that it loads.
    pub fn add_program(&mut self, source: &Path, place: &str) -> Result<()> {
        for library in closure(source)? {
            self.add(&library, &library.to_string_lossy())?;
        }
        self.add(source, place)
    }

    /// Adds a file.
    pub fn put(&mut self, place: &str, mode: u32, content: &[u8]) -> Result<()> {
        if self.files.insert(place.to_owned()) {
            self.parents(place)?;
            self.layer.file(place, mode, content)?;
        }
        Ok(())
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, place: &str, target: &str) -> Result<()> {
        if self.files.insert(place.to_owned()) {
            self.parents(place)?;
            self.layer.link(place, target)?;
        }
        Ok(())
    }

    /// Adds an empty directory.
    pub fn directory(&mut self, place: &str) -> Result<()> {
        self.parents(&format!("{place}/x"))
    }

    fn parents(&mut self, place: &str) -> Result<()> {
        for (at, _) in place.match_indices('/').filter(|(at, _)| *at > 0) {
            let directory = &place[..at];
            if self.directories.insert(directory.to_owned()) {
                let mode = if directory == "/tmp" { 0o1777 } else { 0o755 };
                self.layer.directory(directory, mode)?;
            }
        }
        Ok(())
    }

    /// Writes the archive; says whether it is another one than before.
    pub fn write(self, path: &Path) -> Result<bool> {
        let mut blobs = Vec::new();
        let mut blob = |content: Vec<u8>, kind: &str| {
            let description = json!({
                "mediaType": kind, "digest": format!("sha256:{}", hex(&content)),
                "size": u64_of(content.len()),
            });
            blobs.push(content);
            description
        };
        let layer = blob(self.layer.finish(), "application/vnd.oci.image.layer.v1.tar");
        let config = json!({
            "architecture": "amd64", "os": "linux", "created": "1970-01-01T00:00:00Z",
            "config": {
                "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
                "Entrypoint": self.entrypoint, "Cmd": self.command,
            },
            "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
            "history": [{ "created": "1970-01-01T00:00:00Z" }],
        });
        let config = blob(serde_json::to_vec(&config)?, "application/vnd.oci.image.config.v1+json");
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer],
        });
        let mut manifest = blob(serde_json::to_vec(&manifest)?, kind);
        manifest["annotations"] = json!({ "io.containerd.image.name": self.name });
        manifest["platform"] = json!({ "architecture": "amd64", "os": "linux" });
        let index = index(&manifest);

        let mut archive = Tar::default();
        archive.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        archive.file("index.json", 0o644, &serde_json::to_vec(&index)?)?;
        for content in blobs {
            archive.file(&format!("blobs/sha256/{}", hex(&content)), 0o644, &content)?;
        }
        let bytes = archive.finish();
        if std::fs::read(path).is_ok_and(|old| old == bytes) {
            return Ok(false);
        }
        std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(true)
    }
}

fn index(manifest: &Value) -> Value {
    json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [manifest],
    })
}

fn hex(content: &[u8]) -> String {
    digest(&SHA256, content).as_ref().iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _written = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::tools;

    #[test]
    fn the_same_files_give_the_same_bytes_and_tar_reads_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image.tar");
        let make = |text: &[u8]| {
            let mut image = Image::new("localhost/sample:1").command(&["sh"]);
            image.put("/etc/deep/sample", 0o644, text).unwrap();
            image.link("/bin/sh", "/bin/busybox").unwrap();
            image.directory("/tmp").unwrap();
            image.write(&path).unwrap()
        };
        assert!(make(b"one"));
        assert!(!make(b"one"), "nothing changed, but another archive was written");
        assert!(make(b"two"));
        let mut tar = std::process::Command::new(tools::find("tar").unwrap());
        let output = tar.arg("-xvf").arg(&path).arg("-C").arg(directory.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let index = std::fs::read(directory.path().join("index.json")).unwrap();
        let index: Value = serde_json::from_slice(&index).unwrap();
        let manifest = &index["manifests"][0];
        assert_eq!(manifest["annotations"]["io.containerd.image.name"], "localhost/sample:1");
        let digest = manifest["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        let manifest = std::fs::read(directory.path().join("blobs/sha256").join(digest)).unwrap();
        assert_eq!(hex(&manifest), digest);
    }
}
