//! The images of the test cluster.
//!
//! ```text
//!   localhost/pause        the process of a pod's sandbox
//!   docker.io/…/busybox    a shell, under the name that the examples use
//!   localhost/understudy   the product: every binary of ours, and e2fsprogs
//!   localhost/tests        understudy-tests, fio, a shell
//!   registry.k8s.io/…      the sidecars, under the names that charts use
//! ```

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Image;
use crate::cluster::programs;
use crate::harness::tools::{self, workspace};

/// The sandbox's image.
pub const PAUSE: &str = "localhost/pause:1";
/// A shell.
pub const BUSYBOX: &str = "docker.io/library/busybox:1.36";
/// The product.
pub const PRODUCT: &str = "localhost/understudy:e2e";
/// The test programs.
pub const TESTS: &str = "localhost/tests:e2e";

/// The product's binaries.
const BINARIES: [&str; 5] = [
    "understudyd",
    "understudy-attachd",
    "understudy-csi",
    "understudy-operator",
    "kubectl-understudy",
];
/// What makes and mends file systems on volumes.
const FILE_SYSTEM_TOOLS: [&str; 3] = ["mkfs.ext4", "resize2fs", "e2fsck"];
/// The target whose programs need no libraries.
const STATIC: &str = "x86_64-unknown-linux-musl";
/// Where that one is missing: the C library of this machine, linked statically.
const GLIBC: &str = "x86_64-unknown-linux-gnu";

/// Builds the binaries and puts all images below `directory`; returns the archives.
pub fn build_all(directory: &Path) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(directory)?;
    let binaries = build_binaries()?;
    let mut written = Vec::new();
    let mut write = |image: Image, name: &str| -> Result<()> {
        let path = directory.join(format!("{name}.tar"));
        image.write(&path)?;
        written.push(path);
        Ok(())
    };
    write(shell(PAUSE)?.entrypoint(&["/bin/busybox", "sleep", "2147483647"]), "pause")?;
    write(shell(BUSYBOX)?.command(&["sh"]), "busybox")?;
    write(product(&binaries)?, "understudy")?;
    write(tests(&binaries)?, "tests")?;
    for (program, version) in [("csi-provisioner", "v6.3.0"), ("csi-resizer", "v2.2.0")] {
        let name = format!("registry.k8s.io/sig-storage/{program}:{version}");
        let mut image = Image::new(&name).entrypoint(&[&format!("/{program}")]);
        image.add(&programs::find(program)?, &format!("/{program}"))?;
        image.directory("/tmp")?;
        write(image, program)?;
    }
    Ok(written)
}

/// busybox with all its names.
fn shell(name: &str) -> Result<Image> {
    let busybox = tools::find("busybox")?;
    let listed = Command::new(&busybox).arg("--list").output().context("cannot run busybox")?;
    let mut image = Image::new(name);
    image.add(&busybox, "/bin/busybox")?;
    for applet in String::from_utf8(listed.stdout)?.lines().filter(|name| *name != "busybox") {
        image.link(&format!("/bin/{applet}"), "/bin/busybox")?;
    }
    for directory in ["/tmp", "/etc", "/proc", "/sys", "/dev", "/mnt"] {
        image.directory(directory)?;
    }
    Ok(image)
}

fn product(binaries: &Path) -> Result<Image> {
    let mut image = Image::new(PRODUCT).command(&["understudyd", "--help"]);
    for binary in BINARIES {
        image.add(&binaries.join(binary), &format!("/usr/bin/{binary}"))?;
    }
    for tool in FILE_SYSTEM_TOOLS {
        image.add_program(&tools::find(tool)?, &format!("/usr/sbin/{tool}"))?;
    }
    image.put("/etc/mke2fs.conf", 0o644, &std::fs::read("/etc/mke2fs.conf")?)?;
    image.directory("/tmp")?;
    Ok(image)
}

fn tests(binaries: &Path) -> Result<Image> {
    let mut image = shell(TESTS)?.command(&["sh"]);
    image.add(&binaries.join("understudy-tests"), "/usr/bin/understudy-tests")?;
    image.add_program(&tools::find("fio")?, "/usr/bin/fio")?;
    Ok(image)
}

/// Builds every binary of ours statically; returns where they are.
fn build_binaries() -> Result<PathBuf> {
    let target = if has_target(STATIC) { STATIC } else { GLIBC };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--locked", "--quiet", "--workspace", "--bins", "--profile", "image"])
        .args(["--target", target])
        .current_dir(workspace());
    if target == STATIC {
        // ring has parts in C.
        command.env("CC_x86_64_unknown_linux_musl", tools::find("musl-gcc")?);
    } else {
        // Names are not looked up then, which nothing in a cluster of ours needs: peers have addresses.
        command.env("RUSTFLAGS", "-C target-feature=+crt-static");
    }
    if !command.status().context("cannot run cargo")?.success() {
        bail!("the static binaries do not build (target {target})");
    }
    let directory = std::env::var_os("CARGO_TARGET_DIR");
    let directory = directory.map_or_else(|| workspace().join("target"), PathBuf::from);
    Ok(directory.join(target).join("image"))
}

/// Whether the toolchain has the standard library of a target.
fn has_target(target: &str) -> bool {
    let words = ["--print", "target-libdir", "--target", target];
    let output = Command::new("rustc").args(words).current_dir(workspace()).output();
    output.is_ok_and(|output| Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir())
}
