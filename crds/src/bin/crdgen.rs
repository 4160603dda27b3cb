//! Writes the CRDs' YAML below the folder given, the repository's root by default.

#![forbid(unsafe_code)]

use std::path::PathBuf;

use understudy_crds::generate::{FOLDERS, files};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("."), PathBuf::from);
    for folder in FOLDERS {
        let folder = root.join(folder);
        std::fs::create_dir_all(&folder)?;
        for (name, text) in files()? {
            std::fs::write(folder.join(&name), text)?;
            println!("{}", folder.join(name).display());
        }
    }
    Ok(())
}
