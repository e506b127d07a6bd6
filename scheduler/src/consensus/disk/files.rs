//! The snapshots' disk: a folder of files.
//!
//! A file is written under a temporary name, fsynced, renamed, and the folder is fsynced. What
//! has a temporary name at start-up was never finished, and goes.

use super::SnapshotDisk;
use bytes::Bytes;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

const TEMPORARY: &str = ".unfinished";

pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().ends_with(TEMPORARY) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(Self(path.to_owned()))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }
}

impl SnapshotDisk for Folder {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if !name.ends_with(TEMPORARY) {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<Bytes> {
        Ok(fs::read(self.0.join(name))?.into())
    }

    fn write(&self, name: &str, parts: &[Bytes]) -> io::Result<()> {
        let unfinished = self.0.join(format!("{name}{TEMPORARY}"));
        let mut file = File::create(&unfinished)?;
        for part in parts {
            file.write_all(part)?;
        }
        file.sync_all()?;
        drop(file);
        fs::rename(&unfinished, self.0.join(name))?;
        self.sync()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.0.join(name))?;
        self.sync()
    }

    fn place(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}
