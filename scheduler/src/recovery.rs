//! Beginning again: what is done to data folders while no coordinator runs on them.
//!
//! - [`salvage`] writes a backup of what a lost cluster's node still has;
//! - [`restore`] makes the first node of a new cluster from a backup.
//!
//! Both say what they did, what may be missing, and what to do next.

use crate::config::Config;
use crate::consensus::{self, Addresses, DecodeError, StartError, Storage};
use crate::replica::Replica;
use crate::serve;
use futures::future::BoxFuture;
use millpool_alliance::Format;
use millpool_alliance::restoration::{BOOKINGS_SKIPPED, RESTORATION_REASON_LENGTH_MAX, REVISIONS_SKIPPED};
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The backup's file cannot be read or written.
    #[error("backup {file}: {source}")]
    File {
        /// Which.
        file: String,
        /// Why not.
        source: io::Error,
    },
    /// The file is not a whole backup.
    #[error("backup {file}: {source}")]
    Backup {
        /// Which.
        file: String,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// The data folder cannot be used.
    #[error("data folder {folder}: {source}")]
    Data {
        /// Which.
        folder: String,
        /// Why not.
        source: StartError,
    },
    /// What was asked for cannot be.
    #[error("{0}")]
    Asked(String),
}

/// Writes what a node's data folder has to a backup. No entry, vote or snapshot in it is changed. Answers with what to
/// tell.
pub fn salvage<'a>(config: &'a Config, to: &'a Path) -> BoxFuture<'a, Result<String, Failed>> {
    Box::pin(async move {
        let folder = config.data_dir.display().to_string();
        let data = |source| Failed::Data { folder: folder.clone(), source };
        // Opening one that is not there would make it.
        if !Storage::is_in(&config.data_dir) {
            return Err(data(StartError::Storage(io::Error::new(io::ErrorKind::NotFound, "it has no log"))));
        }
        let storage = Storage::open(&config.data_dir).map_err(|e| data(StartError::Storage(e)))?;
        let found = consensus::salvage(&storage, Replica::default()).await.map_err(data)?;
        write_new(to, &consensus::backup_file(&found.taken))
            .map_err(|source| Failed::File { file: to.display().to_string(), source })?;
        let (taken, state) = (&found.taken, &found.taken.state.0);
        let doubt = match found.in_doubt {
            0 => "Everything in it is known to have been committed.".to_owned(),
            n => format!("Its last {n} entries may have been acknowledged, or not: both can be."),
        };
        Ok(format!(
            "{} has the state of cluster {:?} at term {}, revision {}, with {} bookings. {doubt}\n\
         What this node had not heard of is not in it: salvage every node that is left, and restore the one with \
         the highest term, and among those the highest revision.",
            to.display(),
            taken.cluster_id,
            taken.term,
            taken.revision,
            state.bookings().len(),
        ))
    })
}

/// Makes this node, whose data folder must be empty, the first of a new cluster. Answers with what to tell.
pub fn restore<'a>(
    config: &'a Config,
    from: &'a Path,
    reason: &'a str,
    now_s: i64,
) -> BoxFuture<'a, Result<String, Failed>> {
    Box::pin(async move {
        let file = || from.display().to_string();
        if reason.trim().is_empty() || reason.chars().count() > RESTORATION_REASON_LENGTH_MAX {
            let accepted =
                format!("1 to {RESTORATION_REASON_LENGTH_MAX} characters, for those who ask later");
            return Err(Failed::Asked(format!("--reason is {reason:?}; accepted: {accepted}")));
        }
        if config.format_max < Format::NEWEST {
            return Err(Failed::Asked(format!(
                "format_max is {}; accepted: {}, in which a restored cluster begins",
                config.format_max,
                Format::NEWEST
            )));
        }
        let bytes = std::fs::read(from).map_err(|source| Failed::File { file: file(), source })?;
        let taken = consensus::read_backup(bytes.into(), &Replica::default())
            .map_err(|source| Failed::Backup { file: file(), source })?;
        if taken.cluster_id == config.cluster_id {
            return Err(Failed::Asked(format!(
                "cluster_id is {:?}; accepted: another name than that of the cluster that the backup is of, so that none \
             of its nodes can come back into this one",
                config.cluster_id
            )));
        }
        let data = |source| Failed::Data { folder: config.data_dir.display().to_string(), source };
        let storage = Storage::open(&config.data_dir).map_err(|e| data(StartError::Storage(e)))?;
        let options = serve::options(config).map_err(data)?;
        let (cluster, revision) = (taken.cluster_id, taken.revision);
        let Replica(state, reads) = taken.state;
        let (bookings, state) = (state.bookings().len(), state.restored(&cluster, now_s, reason.trim()));
        let begins = revision + REVISIONS_SKIPPED;
        let taken = consensus::Taken {
            cluster_id: config.cluster_id.clone(),
            revision: begins,
            term: taken.term,
            state: Replica(state, reads),
        };
        let addresses =
            Addresses { peers: config.peer_address.clone(), public: config.public_address.clone() };
        consensus::restore(&storage, &options, addresses, &taken).await.map_err(data)?;
        Ok(format!(
            "Node {} begins cluster {:?} with {bookings} bookings, as cluster {cluster:?} stood at revision {revision}. \
         Whatever that acknowledged later is gone.\n\
         Revisions go on from {begins}; {BOOKINGS_SKIPPED} booking ids are left out.\n\
         Next: start this node, then two more with empty data folders and the same cluster_id, without \
         initial_cluster, and add each: millpool nodes add ID --peer HOST:PORT --public HOST:PORT",
            config.node_id, config.cluster_id,
        ))
    })
}

/// Writes a file that must not be there yet, durably, for its owner's eyes only.
fn write_new(path: &Path, parts: &[bytes::Bytes]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let written = parts.iter().try_for_each(|part| file.write_all(part)).and_then(|()| file.sync_all());
    if written.is_err() {
        // Half a backup is worse than none.
        let _ = std::fs::remove_file(path);
    }
    written
}
