//! kubectl as a child process: for what people type, and for manifests as they stand.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::programs;

/// kubectl with one identity.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// With the identity of this kubeconfig.
    pub fn new(kubeconfig: &Path) -> Result<Self> {
        Ok(Self { program: programs::find("kubectl")?, kubeconfig: kubeconfig.to_owned() })
    }

    /// Runs it and returns what it printed; a failure carries what it said.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<String> {
        self.run_with("", arguments)
    }

    /// The same with a text on its standard input, for `-f -`.
    pub fn run_with<A: AsRef<OsStr>>(
        &self,
        input: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(arguments);
        let what = format!("{:?}", command.get_args().skip(2).collect::<Vec<_>>());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot run kubectl")?;
        if let Some(mut pipe) = child.stdin.take() {
            // It may leave without reading to the end; its own words say why.
            let _early_end = pipe.write_all(input.as_bytes());
        }
        let output = child.wait_with_output()?;
        let [out, err] =
            [&output.stdout, &output.stderr].map(|b| String::from_utf8_lossy(b).into_owned());
        if !output.status.success() {
            bail!("kubectl {what}: {}", err.trim());
        }
        Ok(out)
    }
}
