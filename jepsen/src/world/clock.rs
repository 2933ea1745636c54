//! The wall clock of one member, by libfaketime: steps and rates, changed while it runs. The
//! monotonic clock stays true: faked, it would hang every timer of the runtime.

use std::fs;
use std::path::{Path, PathBuf};

/// Where Debian and others put the library.
const LIBRARIES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

/// The setting of a clock that is right. The rate is named: without it an earlier one would stay.
pub(crate) const TRUE_TIME: &str = "+0 x1";

/// A clock that can be set.
#[derive(Debug)]
pub(crate) struct Clock {
    library: &'static str,
    file: PathBuf,
}

impl Clock {
    /// None where libfaketime is not installed.
    pub(crate) fn new(file: PathBuf) -> Option<Self> {
        let library = LIBRARIES.into_iter().find(|path| Path::new(path).exists())?;
        let clock = Self { library, file };
        clock.set(TRUE_TIME).ok()?;
        Some(clock)
    }

    /// What a process needs to live by this clock.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        [
            ("LD_PRELOAD", self.library.to_owned()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            // How long, in seconds, an old setting may be believed.
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            ("NO_FAKE_STAT", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    /// `+3600`, `-60`, `+0 x1.5`: seconds off, and how fast it goes.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn set(&self, setting: &str) -> std::io::Result<()> {
        // Read by the member at any moment: it must never see half a setting.
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{setting}\n"))?;
        fs::rename(&new, &self.file)
    }
}
