//! What scenarios ask of the machine that they run on: root, and commands.

use anyhow::{Context as _, bail, ensure};
use std::ffi::OsStr;
use std::process::Command;

/// Something that a scenario cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// The rights to make namespaces, devices and mounts.
    Root,
    /// A command, and the Debian package that has it.
    Program(&'static str, &'static str),
}

/// Fails, with all that is missing, unless everything is there.
pub(crate) fn require(needs: &[Need]) -> anyhow::Result<()> {
    let missing: Vec<String> = needs.iter().filter_map(|need| need.missing()).collect();
    ensure!(missing.is_empty(), "missing on this machine: {}", missing.join(", "));
    Ok(())
}

impl Need {
    fn missing(self) -> Option<String> {
        match self {
            Self::Root if rustix::process::geteuid().is_root() => None,
            Self::Root => Some("root (run it with sudo)".to_owned()),
            Self::Program(name, package) => {
                let found = std::env::var_os("PATH").is_some_and(|path| {
                    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
                });
                (!found).then(|| format!("the command {name} (Debian package {package})"))
            }
        }
    }
}

/// Runs a command of the machine, and fails with what it said.
pub(crate) fn run<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> anyhow::Result<()> {
    let mut command = Command::new(program);
    command.args(args);
    let output = command.output().with_context(|| format!("starting {program}"))?;
    if !output.status.success() {
        bail!("{command:?} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let told = require(&[Need::Program("sh", "dash"), Need::Program("no-such-thing", "nothing")]);
        let told = told.expect_err("it is not there").to_string();
        assert!(told.contains("no-such-thing (Debian package nothing)") && !told.contains("dash"), "{told}");
    }

    #[test]
    fn a_command_that_fails_says_why() {
        let told = run("ls", ["/no/such/folder"]).expect_err("it is not there").to_string();
        assert!(told.contains("/no/such/folder"), "{told}");
    }
}
