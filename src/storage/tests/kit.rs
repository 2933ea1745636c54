//! What the tests share: opening, appending, real commands.

use std::path::Path;

use crate::storage::{Disk, SimDisk, SimOptions, Storage, StorageOptions};

/// Storage in a real directory, with small log files so that several come to be.
pub(super) async fn open_dir(dir: &Path) -> Storage {
    Storage::open(dir_options(dir)).await.expect("a healthy directory opens")
}

pub(super) fn dir_options(dir: &Path) -> StorageOptions {
    let mut options = StorageOptions::new(Disk::Dir(dir.to_owned()));
    options.wal.chunk_bytes = 16 << 10;
    options.wal.cache_bytes = 4 << 10;
    options.home_cache_bytes = 1 << 20;
    options
}

pub(super) async fn open_sim(disk: &SimDisk) -> Storage {
    Storage::open(StorageOptions::new(Disk::Simulated(disk.clone())))
        .await
        .expect("a simulated disk opens")
}

pub(super) fn sim(seed: u64) -> SimDisk {
    SimDisk::new(SimOptions { seed, ..SimOptions::default() })
}
