//! Writes the CRDs' YAML below the folder given, the repository's root by default.

#![forbid(unsafe_code)]

use std::path::PathBuf;

use understudy_crds::generate::{FOLDERS, files};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let root = match &arguments[..] {
        [] => PathBuf::from("."),
        [folder] if !folder.to_string_lossy().starts_with('-') => PathBuf::from(folder),
        _ => {
            println!(
                "Usage: crdgen [FOLDER]\n\nWrites the CRDs' YAML below FOLDER, the repository's root (.) by default."
            );
            return Ok(());
        }
    };
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
