//! A disk on its own, to try what a power cut does.

use std::path::Path;

use super::disk::Disk;
use super::scratch::Scratch;

/// A loop disk that goes when it is dropped.
#[derive(Debug)]
pub(crate) struct TrialDisk {
    disk: Disk,
    _scratch: Scratch,
}

impl TrialDisk {
    /// # Errors
    /// Without root, or without loop devices.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let scratch = Scratch::new(false)?;
        let disk = Disk::looped(&scratch.dir, "trial")?;
        Ok(Self { disk, _scratch: scratch })
    }

    pub(crate) fn mount(&self) -> &Path {
        self.disk.mount_point()
    }

    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn cut_power(&self) -> anyhow::Result<()> {
        self.disk.cut_power()
    }

    /// # Errors
    /// When it is still in use, or damaged.
    pub(crate) fn remount(&self) -> anyhow::Result<()> {
        self.disk.remount()
    }
}
