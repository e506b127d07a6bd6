//! The dispatch list on disk: what the plant works through, also when the line is cut.
//!
//! One file, replaced whole: temporary file, fsync, rename, fsync of the folder; only then is the list
//! shown to the machines and the coordinator told that it is kept. What a machine has begun is not here:
//! that stands in its mark in the outbox, so a new list never makes anyone forget what is running.

use crate::ground::Ground;
use millpool_proto::v1::{DispatchItem, DispatchList};
use prost::Message;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;

/// Most items of a list that is accepted.
pub const ITEMS_MAX: usize = 20_000;
/// Latest time on a list that is accepted: the end of the year 9999.
pub const TIME_S_MAX: i64 = 253_402_300_799;
/// Largest file that is read back.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Why a list cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum DispatchError {
    /// The operating system refused.
    #[error("dispatch list: cannot {doing} {path}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// More items than [`ITEMS_MAX`].
    #[error("dispatch list: {items} items, at most {max} are accepted", max = ITEMS_MAX)]
    TooLong {
        /// How many.
        items: usize,
    },
    /// An item's times make no sense.
    #[error("dispatch list: operation {operation} of booking {booking_id:?} is from {start_s} to {end_s} s")]
    Times {
        /// The booking.
        booking_id: String,
        /// Index in the route.
        operation: u32,
        /// Its start.
        start_s: i64,
        /// Its end.
        end_s: i64,
    },
    /// The list is another plant's.
    #[error("dispatch list: it is for plant {theirs:?}, this agent serves {ours:?}")]
    OtherPlant {
        /// On the list.
        theirs: String,
        /// The agent's.
        ours: String,
    },
}

/// A list, and when the plant got it.
#[derive(Clone, PartialEq, Message)]
pub struct Kept {
    /// CRC-32C of `list`, encoded.
    #[prost(uint32, tag = "1")]
    checksum: u32,
    /// Plant time at which it was kept, ms since the Unix epoch.
    #[prost(int64, tag = "2")]
    pub since_ms: i64,
    /// The list.
    #[prost(message, optional, tag = "3")]
    pub list: Option<DispatchList>,
}

impl Kept {
    /// The list's revision; 0 for none.
    pub fn revision(&self) -> u64 {
        self.list.as_ref().map_or(0, |list| list.revision)
    }

    /// One machine's items, as they stand on the list.
    pub fn items_of(&self, machine_id: &str) -> Vec<DispatchItem> {
        let items = self.list.iter().flat_map(|list| &list.items);
        items.filter(|item| item.machine_id == machine_id).cloned().collect()
    }
}

/// The keeper of the list. Cheap to clone.
#[derive(Clone)]
pub struct Dispatch {
    plant_id: Arc<str>,
    path: Arc<Path>,
    ground: Ground,
    kept: Arc<watch::Sender<Arc<Kept>>>,
}

impl Dispatch {
    /// Reads the list that `dir` holds, if any. A file that cannot be understood is put aside, loudly: the
    /// coordinator sends the list again.
    pub fn open(dir: &Path, plant_id: &str, ground: &Ground) -> Result<Self, DispatchError> {
        std::fs::create_dir_all(dir).map_err(io("create", dir))?;
        let path = dir.join("dispatch-list");
        let kept = match read(&path)? {
            Found::Nothing => Kept::default(),
            Found::Kept(kept) => kept,
            Found::Damaged(what) => {
                let aside = dir.join("dispatch-list.damaged");
                tracing::error!(path = %path.display(), aside = %aside.display(), what,
                    "the dispatch list on disk is damaged; put aside, waiting for the coordinator's");
                std::fs::rename(&path, &aside).map_err(io("rename", &path))?;
                Kept::default()
            }
        };
        Ok(Self {
            plant_id: plant_id.into(),
            path: path.into(),
            ground: ground.clone(),
            kept: Arc::new(watch::Sender::new(Arc::new(kept))),
        })
    }

    /// The list as it is on disk, and a wake-up when another is.
    pub fn watch(&self) -> watch::Receiver<Arc<Kept>> {
        self.kept.subscribe()
    }

    /// The revision on disk.
    pub fn revision(&self) -> u64 {
        self.kept.borrow().revision()
    }

    /// Puts a list on disk, then shows it to the machines. `now_ms` is plant time.
    pub async fn keep(&self, list: DispatchList, now_ms: i64) -> Result<(), DispatchError> {
        if list.plant_id != *self.plant_id {
            return Err(DispatchError::OtherPlant { theirs: list.plant_id, ours: self.plant_id.to_string() });
        }
        if list.items.len() > ITEMS_MAX {
            return Err(DispatchError::TooLong { items: list.items.len() });
        }
        if let Some(item) = list.items.iter().find(|item| !plausible(item)) {
            let DispatchItem { booking_id, operation, start_s, end_s, .. } = item.clone();
            return Err(DispatchError::Times { booking_id, operation, start_s, end_s });
        }
        let checksum = crc32c::crc32c(&list.encode_to_vec());
        let kept = Arc::new(Kept { checksum, since_ms: now_ms, list: Some(list) });
        let (path, bytes) = (self.path.clone(), kept.encode_to_vec());
        let written = self.ground.run(move || replace(&path, &bytes)).await;
        written.map_err(io("write", &self.path))??;
        self.kept.send_replace(kept);
        Ok(())
    }
}

fn plausible(item: &DispatchItem) -> bool {
    0 <= item.start_s && item.start_s <= item.end_s && item.end_s <= TIME_S_MAX
}

enum Found {
    Nothing,
    Kept(Kept),
    Damaged(&'static str),
}

fn read(path: &Path) -> Result<Found, DispatchError> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(io("read", path)(error)),
        Ok(metadata) if metadata.len() > FILE_BYTES_MAX => return Ok(Found::Damaged("it is too large")),
        Ok(_) => {}
    }
    let bytes = std::fs::read(path).map_err(io("read", path))?;
    let Ok(kept) = Kept::decode(bytes.as_slice()) else {
        return Ok(Found::Damaged("it cannot be decoded"));
    };
    let sum = kept.list.as_ref().map(|list| crc32c::crc32c(&list.encode_to_vec()));
    Ok(if sum == Some(kept.checksum) {
        Found::Kept(kept)
    } else {
        Found::Damaged("its checksum does not match")
    })
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), DispatchError> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary).map_err(io("create", &temporary))?;
    file.write_all(bytes).map_err(io("write to", &temporary))?;
    file.sync_all().map_err(io("sync", &temporary))?;
    std::fs::rename(&temporary, path).map_err(io("rename", &temporary))?;
    let dir = path.parent().unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io("sync", dir))
}

fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> DispatchError {
    let path = path.to_owned();
    move |source| DispatchError::Io { doing, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(revision: u64) -> DispatchList {
        let item = DispatchItem { machine_id: "m".into(), booking_id: "b".into(), ..Default::default() };
        DispatchList { plant_id: "p".into(), revision, items: vec![item] }
    }

    #[tokio::test]
    async fn a_list_survives_a_restart_with_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let dispatch = Dispatch::open(dir.path(), "p", &Ground::Machine).unwrap();
        assert_eq!(dispatch.revision(), 0);
        dispatch.keep(list(7), 1234).await.unwrap();
        dispatch.keep(list(9), 1300).await.unwrap();
        let again = Dispatch::open(dir.path(), "p", &Ground::Machine).unwrap();
        let kept = again.watch().borrow().clone();
        assert_eq!((kept.revision(), kept.since_ms), (9, 1300));
        assert_eq!(kept.items_of("m").len(), 1);
        assert!(kept.items_of("n").is_empty());
    }

    #[tokio::test]
    async fn another_plants_list_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let dispatch = Dispatch::open(dir.path(), "q", &Ground::Machine).unwrap();
        assert!(matches!(dispatch.keep(list(1), 0).await, Err(DispatchError::OtherPlant { .. })));
        assert_eq!(dispatch.revision(), 0);
    }

    #[tokio::test]
    async fn a_damaged_file_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        Dispatch::open(dir.path(), "p", &Ground::Machine).unwrap().keep(list(7), 0).await.unwrap();
        let path = dir.path().join("dispatch-list");
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let again = Dispatch::open(dir.path(), "p", &Ground::Machine).unwrap();
        assert_eq!(again.revision(), 0);
        assert!(dir.path().join("dispatch-list.damaged").exists());
    }
}
