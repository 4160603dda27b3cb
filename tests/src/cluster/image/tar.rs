//! A tar archive, the same bytes for the same content: no times, no owners but root.
//!
//! ```text
//!   0    name[100]  mode[8]  uid[8]  gid[8]  size[12]  mtime[12]  checksum[8]  type[1]  link[100]
//!   257  "ustar\0" "00"  owner[32]  group[32]  …  up to 512; then the content, padded to 512
//! ```

use anyhow::{Result, ensure};
use understudy_core::units::{u64_of, usize_of};

const BLOCK: usize = 512;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A file.
    File,
    /// A symbolic link.
    Link,
    /// A directory.
    Directory,
}

/// An archive that is being written, in memory.
#[derive(Default)]
pub(super) struct Tar(Vec<u8>);

impl Tar {
    /// Adds a file.
    pub(super) fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.header(name, Kind::File, mode, u64_of(content.len()), "")?;
        self.0.extend_from_slice(content);
        self.pad();
        Ok(())
    }

    /// Adds a symbolic link.
    pub(super) fn link(&mut self, name: &str, target: &str) -> Result<()> {
        self.header(name, Kind::Link, 0o777, 0, target)
    }

    /// Adds a directory.
    pub(super) fn directory(&mut self, name: &str, mode: u32) -> Result<()> {
        self.header(&format!("{}/", name.trim_end_matches('/')), Kind::Directory, mode, 0, "")
    }

    /// The whole archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 2 * BLOCK, 0);
        self.0
    }

    fn header(&mut self, name: &str, kind: Kind, mode: u32, size: u64, link: &str) -> Result<()> {
        let name = name.trim_start_matches('/');
        ensure!(name.len() < 100 && link.len() < 100, "{name}: longer than this archive takes");
        let mut block = [0_u8; BLOCK];
        let mut put = |at: usize, text: &str| {
            block[at..at + text.len()].copy_from_slice(text.as_bytes());
        };
        put(0, name);
        put(100, &format!("{mode:07o}"));
        put(108, "0000000");
        put(116, "0000000");
        put(124, &format!("{size:011o}"));
        put(136, "00000000000");
        put(148, "        ");
        put(
            156,
            match kind {
                Kind::File => "0",
                Kind::Link => "2",
                Kind::Directory => "5",
            },
        );
        put(157, link);
        put(257, "ustar");
        put(263, "00");
        put(265, "root");
        put(297, "root");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&block);
        Ok(())
    }

    fn pad(&mut self) {
        let over = usize_of(u64_of(self.0.len())) % BLOCK;
        if over != 0 {
            self.0.resize(self.0.len() + BLOCK - over, 0);
        }
    }
}
