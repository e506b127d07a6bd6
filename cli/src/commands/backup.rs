//! `millpool backup`: the alliance's whole state, into a file.

use super::Desk;
use crate::client::{Client, ClientError, ErrorKind};
use crate::failure::Failure;
use crate::shown;
use clap::Args;
use millpool_proto::v1::{BackupRequest, Consistency, Header};
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Coordinators may die under a backup so often.
const TRIES: usize = 3;

/// Writes a backup of everything that the alliance knows, to be kept elsewhere.
#[derive(Args, Debug)]
#[command(after_help = "\
The file holds all members' data and the hashes of tokens: it is written for your eyes only. It is restored on
the machine of a new cluster's first coordinator:
  millpool-scheduler restore FILE --reason TEXT --config /etc/millpool/scheduler.toml

Example:
  millpool backup /backups/millpool-$(date +%F).backup")]
pub struct BackupArgs {
    /// The file to write; it must not be there yet
    file: PathBuf,
    /// Public address of the node to ask, for what that node has, majority or not [default: any, and all that was
    /// acknowledged]
    #[arg(long, value_name = "HOST:PORT")]
    at: Option<String>,
}

/// Runs it.
pub async fn run(args: &BackupArgs, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let client = desk.client()?;
    let (client, consistency) = match &args.at {
        Some(at) => (client.at(at)?, Some(Consistency { serializable: true, min_revision: 0 })),
        None => (client, None),
    };
    let file = args.file.display().to_string();
    let unusable = |error: std::io::Error| Failure::Usage(format!("{file}: {error}"));
    let unfinished = unfinished(&args.file);
    let mut to = new_file(&args.file, &unfinished).map_err(unusable)?;
    let outcome = receive(&client, consistency, &mut to, desk).await;
    let kept = outcome.and_then(|told| {
        to.sync_all().and_then(|()| std::fs::rename(&unfinished, &args.file)).map_err(unusable)?;
        Ok(told)
    });
    if kept.is_err() {
        // Half a backup is worse than none.
        let _ = std::fs::remove_file(&unfinished);
    }
    let (header, bytes) = kept?;
    if desk.output.json {
        let told = json!({
            "file": file, "bytes": bytes, "cluster_id": header.cluster_id, "revision": header.revision.to_string(),
        });
        return Ok(desk.output.value(&told)?);
    }
    Ok(desk.output.line(format!(
        "{file}: cluster {} at revision {}, {} bytes.",
        header.cluster_id,
        shown::grouped(header.revision),
        shown::grouped(bytes)
    ))?)
}

fn unfinished(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".unfinished");
    name.into()
}

/// A file for its owner's eyes only, on its way to become `file`, which must not be there.
fn new_file(file: &Path, unfinished: &Path) -> std::io::Result<File> {
    if file.exists() {
        return Err(std::io::ErrorKind::AlreadyExists.into());
    }
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(unfinished)
}

/// Receives a whole backup, from another coordinator where one dies in the middle of it.
async fn receive(
    client: &Client,
    consistency: Option<Consistency>,
    to: &mut File,
    desk: &mut Desk<'_>,
) -> Result<(Header, u64), Failure> {
    let mut tries = 1;
    loop {
        match receive_once(client, consistency, to).await {
            Err(Failure::Client(error)) if is_cut(&error) && tries < TRIES => {
                desk.output.notice(format!("begun anew: {error}"))?;
                tries += 1;
            }
            done => return done,
        }
    }
}

fn is_cut(error: &ClientError) -> bool {
    error.kind == ErrorKind::Unavailable
}

async fn receive_once(
    client: &Client,
    consistency: Option<Consistency>,
    mut to: &File,
) -> Result<(Header, u64), Failure> {
    use std::io::Seek as _;
    let unusable = |error: std::io::Error| Failure::Usage(format!("the backup's file: {error}"));
    to.set_len(0).and_then(|()| to.rewind()).map_err(unusable)?;
    let mut backup = client.backup(BackupRequest { consistency }).await?;
    while let Some(bytes) = backup.next().await? {
        to.write_all(&bytes).map_err(unusable)?;
    }
    Ok((backup.start().header.clone().unwrap_or_default(), backup.start().bytes))
}

/// A restore is not asked of a running cluster, since it makes one.
pub fn elsewhere(file: Option<&Path>) -> Failure {
    let file = file.map_or("FILE".to_owned(), |file| file.display().to_string());
    Failure::Usage(format!(
        "a backup begins a new cluster, and is restored on the machine of its first coordinator, into an empty data \
         folder: millpool-scheduler restore {file} --reason TEXT --config /etc/millpool/scheduler.toml"
    ))
}
