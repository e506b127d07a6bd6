//! A small filesystem on a file, which can be full and can turn read-only.
//!
//! It is ext4 on a loop device, so that a coordinator meets what it would meet on a disk of its own: "no space left"
//! when it writes, and a filesystem that its kernel makes read-only after an error.

use crate::machine::{self, Need};
use anyhow::{Context as _, bail};
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a volume needs.
pub(crate) const NEEDS: &[Need] = &[
    Need::Root,
    Need::Program("mkfs.ext4", "e2fsprogs"),
    Need::Program("fsck.ext4", "e2fsprogs"),
    Need::Program("mount", "mount"),
    Need::Program("umount", "mount"),
];

/// Room for a node's log and snapshots, and not for much more.
const BYTES: u64 = 192 << 20;
/// The file that takes all the room that there is.
const FILLER: &str = "filler";
/// Tries to unmount while a process that has been killed still has files open.
const UNMOUNT_TRIES: usize = 40;

/// A mounted filesystem. It goes when it is dropped.
pub(crate) struct Volume {
    image: PathBuf,
    mount: PathBuf,
    mounted: bool,
}

impl Volume {
    /// Makes one and mounts it in a new folder.
    pub(crate) fn create(mount: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(mount).with_context(|| format!("making {}", mount.display()))?;
        let image = mount.with_extension("ext4");
        File::create(&image)?.set_len(BYTES)?;
        // An error makes it read-only; no room is set aside for root.
        let options = ["-q", "-F", "-m", "0", "-e", "remount-ro"].map(Path::new);
        machine::run("mkfs.ext4", options.into_iter().chain([image.as_path()]))?;
        let mut volume = Self { image, mount: mount.to_owned(), mounted: false };
        volume.attach()?;
        Ok(volume)
    }

    fn attach(&mut self) -> anyhow::Result<()> {
        machine::run("mount", [Path::new("-o"), Path::new("loop"), &self.image, &self.mount])?;
        self.mounted = true;
        Ok(())
    }

    /// Takes all the room that is left, also what is freed meanwhile.
    pub(crate) fn fill(&self) -> anyhow::Result<()> {
        let mut filler = File::options().create(true).append(true).open(self.mount.join(FILLER))?;
        for size in [1 << 20, 1 << 12, 1] {
            let block = vec![0x55; size];
            loop {
                match filler.write_all(&block) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error).context("filling the volume"),
                }
            }
        }
        Ok(())
    }

    /// Gives the room back.
    pub(crate) fn free(&self) -> anyhow::Result<()> {
        fs::remove_file(self.mount.join(FILLER)).context("freeing the volume")
    }

    /// Reports an error of the filesystem to the kernel, which then makes it read-only under whoever uses it.
    pub(crate) fn turn_read_only(&self) -> anyhow::Result<()> {
        let device = self.device()?;
        let trigger = PathBuf::from(format!("/sys/fs/ext4/{device}/trigger_fs_error"));
        fs::write(&trigger, "by millpool-faults").with_context(|| format!("writing {}", trigger.display()))
    }

    /// The name of the loop device, as the list of mounts has it.
    fn device(&self) -> anyhow::Result<String> {
        let mounts = fs::read_to_string("/proc/self/mounts").context("reading the mounts")?;
        let place = self.mount.display().to_string();
        let line = mounts.lines().find(|line| line.split(' ').nth(1) == Some(&place));
        let device = line.and_then(|line| line.split(' ').next()).and_then(|path| path.rsplit('/').next());
        device.map(str::to_owned).with_context(|| format!("{place} is not mounted"))
    }

    /// Checks the filesystem and mounts it again, as somebody does who has replaced the cable.
    pub(crate) fn repair(&mut self) -> anyhow::Result<()> {
        self.detach()?;
        // It has something to repair, and says so with exit code 1.
        let checked = std::process::Command::new("fsck.ext4").args(["-f", "-y"]).arg(&self.image).output()?;
        if checked.status.code().is_none_or(|code| code > 1) {
            bail!("fsck.ext4 failed: {}", String::from_utf8_lossy(&checked.stdout));
        }
        self.attach()
    }

    fn detach(&mut self) -> anyhow::Result<()> {
        for _ in 0..UNMOUNT_TRIES {
            if machine::run("umount", [&self.mount]).is_ok() {
                self.mounted = false;
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("{} cannot be unmounted: something still uses it", self.mount.display())
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if self.mounted && self.detach().is_err() {
            // Whoever still has a file open loses it later; the name is free at once.
            if let Err(error) = machine::run("umount", [Path::new("--lazy"), &self.mount]) {
                eprintln!("millpool-faults: {error:#}");
            }
        }
    }
}
