//! The disk of one member: ext4 in a file where loop devices may be used, a plain directory where
//! not.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use super::command::run;
use super::sys;

/// Sparse: only what is written takes room.
const IMAGE_BYTES: u64 = 512 << 20;
const BALLAST: &str = "ballast";

/// Where a member keeps its data.
#[derive(Debug)]
pub(crate) struct Disk {
    image: Option<PathBuf>,
    mount: PathBuf,
}

impl Disk {
    /// ext4 on a loop device. The device goes when it is unmounted, the mount when this process
    /// and its namespaces end.
    ///
    /// # Errors
    /// Without root, or without loop devices.
    pub(crate) fn looped(dir: &Path, name: &str) -> anyhow::Result<Self> {
        let (image, mount) = (dir.join(format!("{name}.img")), dir.join(name));
        File::create(&image)?.set_len(IMAGE_BYTES)?;
        fs::create_dir_all(&mount)?;
        run(&["mkfs.ext4", "-q", "-F", "-m", "0", text(&image)?])?;
        let disk = Self { image: Some(image), mount };
        disk.mount()?;
        Ok(disk)
    }

    /// # Errors
    /// When the directory cannot be made.
    pub(crate) fn plain(dir: &Path, name: &str) -> anyhow::Result<Self> {
        let mount = dir.join(name);
        fs::create_dir_all(&mount)?;
        Ok(Self { image: None, mount })
    }

    pub(crate) fn is_looped(&self) -> bool {
        self.image.is_some()
    }

    pub(crate) fn mount_point(&self) -> &Path {
        &self.mount
    }

    /// The data directory of the member.
    pub(crate) fn data(&self) -> PathBuf {
        self.mount.join("data")
    }

    fn mount(&self) -> anyhow::Result<()> {
        let image = self.image.as_deref().context("a plain directory has no image")?;
        run(&["mount", "-o", "loop", text(image)?, text(&self.mount)?]).map(drop)
    }

    /// Nothing that was not flushed by now reaches the disk.
    ///
    /// # Errors
    /// On a plain directory, or when the kernel refuses.
    pub(crate) fn cut_power(&self) -> anyhow::Result<()> {
        ensure!(self.is_looped(), "a plain directory has no power to cut");
        sys::cut_power(&self.mount).context("cut the power")
    }

    /// Mounts again what a power cut left; whoever used it must be gone.
    ///
    /// # Errors
    /// When it is still in use, or damaged.
    pub(crate) fn remount(&self) -> anyhow::Result<()> {
        run(&["umount", text(&self.mount)?])?;
        self.mount()
    }

    /// Leaves not one byte free.
    ///
    /// # Errors
    /// On a plain directory.
    pub(crate) fn fill(&self) -> anyhow::Result<u64> {
        ensure!(self.is_looped(), "only a disk of its own is filled");
        let mut ballast = File::create(self.mount.join(BALLAST))?;
        let free = rustix::fs::statvfs(&self.mount)?;
        let bytes = free.f_bavail.saturating_sub(64) * free.f_bsize;
        rustix::fs::fallocate(&ballast, rustix::fs::FallocateFlags::empty(), 0, bytes)?;
        let mut file = File::options().append(true).open(self.mount.join(BALLAST))?;
        let mut rest = 0;
        while file.write_all(&[1; 4096]).is_ok() {
            rest += 4096;
        }
        // What was allocated late must really be taken.
        let _ = ballast.flush().and_then(|()| file.sync_all());
        Ok(bytes + rest)
    }

    /// Gives the room back.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub(crate) fn free(&self) -> anyhow::Result<()> {
        match fs::remove_file(self.mount.join(BALLAST)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            Err(_) | Ok(()) => Ok(()),
        }
    }

    /// Writers hang from now on.
    ///
    /// # Errors
    /// On a plain directory.
    pub(crate) fn freeze(&self) -> anyhow::Result<()> {
        ensure!(self.is_looped(), "only a disk of its own is frozen");
        run(&["fsfreeze", "-f", text(&self.mount)?]).map(drop)
    }

    /// Writers go on. Without effect when nothing was frozen.
    pub(crate) fn thaw(&self) {
        if self.is_looped() {
            // Fails when it is not frozen, which is what is wanted.
            let _ = text(&self.mount).and_then(|mount| run(&["fsfreeze", "-u", mount]));
        }
    }

    /// Forgets everything the member had.
    ///
    /// # Errors
    /// When files cannot be removed.
    pub(crate) fn wipe(&self) -> anyhow::Result<()> {
        match fs::remove_dir_all(self.data()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            Err(_) | Ok(()) => Ok(()),
        }
    }

    /// The largest file below a directory of the data directory.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn largest_file(&self, below: &str) -> anyhow::Result<PathBuf> {
        let mut found: Vec<(u64, PathBuf)> = Vec::new();
        let mut directories = vec![self.data().join(below)];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(&directory)?.flatten() {
                let about = entry.metadata()?;
                if about.is_dir() {
                    directories.push(entry.path());
                } else {
                    found.push((about.len(), entry.path()));
                }
            }
        }
        let largest = found.into_iter().max();
        Ok(largest.with_context(|| format!("no file below {below}"))?.1)
    }
}

/// Flips one bit of the byte at this part of a file (0 the first, 1 the last).
///
/// # Errors
/// When the file is empty or cannot be written.
pub(crate) fn flip_byte(path: &Path, part: f64) -> anyhow::Result<u64> {
    use std::os::unix::fs::FileExt;
    let file = File::options().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    ensure!(length > 0, "{} is empty", path.display());
    let place = ((length - 1) as f64 * part) as u64;
    let mut byte = [0];
    file.read_exact_at(&mut byte, place)?;
    byte[0] ^= 0x40;
    file.write_all_at(&byte, place)?;
    file.sync_all()?;
    Ok(place)
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is not text", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_byte_differs_in_one_bit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, [0; 101]).unwrap();
        assert_eq!(flip_byte(&path, 0.5).unwrap(), 50);
        let after = fs::read(&path).unwrap();
        assert_eq!(after.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
        assert_eq!(after[50], 0x40);
    }

    #[test]
    fn a_plain_directory_refuses_what_needs_a_disk_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::plain(dir.path(), "m1").unwrap();
        assert!(disk.cut_power().is_err() && disk.fill().is_err() && disk.freeze().is_err());
        fs::create_dir_all(disk.data().join("wal")).unwrap();
        fs::write(disk.data().join("wal/small"), "1").unwrap();
        fs::write(disk.data().join("wal/large"), "123").unwrap();
        assert!(disk.largest_file("wal").unwrap().ends_with("large"));
        disk.wipe().unwrap();
        disk.wipe().unwrap();
        assert!(!disk.data().exists());
    }
}
