//! Small files that must survive a power cut: identity and snapshots.
//!
//! Every file is made the same way: written under a temporary name, fsynced, renamed, and its
//! directory fsynced. There is no other way to write a file here, so none can be half there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::error::StorageError;
use super::sim::SimHandle;

/// Ends the names of files that are not finished; they are deleted at start.
const UNFINISHED: &str = ".tmp";
/// A file is synced every so often while it is written: the log shares the disk, and its flushes would
/// wait for all of a large file at once.
const SYNC_EVERY_BYTES: u64 = 2 << 20;

/// One flat directory.
#[derive(Debug, Clone)]
pub(super) enum Files {
    Dir(PathBuf),
    Simulated { disk: SimHandle, prefix: String },
}

/// fsyncs a directory, so that names made in it or removed from it stay so.
pub(super) fn sync_dir(dir: &Path) -> Result<(), StorageError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|error| StorageError::io("cannot sync the directory", dir, error))
}

/// Makes a directory if it is not there, and its name durable.
pub(super) fn make_dir(dir: &Path) -> Result<(), StorageError> {
    if dir.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(dir).map_err(|error| StorageError::io("cannot create", dir, error))?;
    sync_dir(dir)?;
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        Some(_) | None => sync_dir(Path::new(".")),
    }
}

impl Files {
    /// The files of `dir`, which is made if needed. What a crash left unfinished is deleted.
    pub(super) fn open(dir: PathBuf) -> Result<Self, StorageError> {
        make_dir(&dir)?;
        let files = Self::Dir(dir);
        files.remove_unfinished("")?;
        Ok(files)
    }

    /// Deletes what a crash left unfinished of files whose names start with `prefix`.
    pub(super) fn remove_unfinished(&self, prefix: &str) -> Result<(), StorageError> {
        let names = self.all_names()?;
        let ours = |name: &&String| name.starts_with(prefix) && name.ends_with(UNFINISHED);
        names.iter().filter(ours).try_for_each(|name| self.remove(name))
    }

    /// The files of `dir` as they are: a directory that others may use too, or that is only read.
    pub(super) fn plain(dir: PathBuf) -> Self {
        Self::Dir(dir)
    }

    /// The simulated files whose names start with `prefix`.
    pub(super) fn simulated(disk: SimHandle, prefix: &str) -> Self {
        Self::Simulated { disk, prefix: prefix.to_owned() }
    }

    fn path(&self, name: &str) -> PathBuf {
        match self {
            Self::Dir(dir) => dir.join(name),
            Self::Simulated { prefix, .. } => PathBuf::from(format!("{prefix}{name}")),
        }
    }

    /// Sets the whole content of a file.
    pub(super) fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
        let mut file = self.create(name)?;
        file.write(bytes)?;
        file.finish()?.publish(name)?;
        Ok(())
    }

    /// Starts a file under a temporary name derived from `name`.
    pub(super) fn create(&self, name: &str) -> Result<FileWriter, StorageError> {
        let name = format!("{name}{UNFINISHED}");
        let sink = match self {
            Self::Dir(_) => {
                let path = self.path(&name);
                let file = OpenOptions::new()
                    .read(true)
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .open(&path)
                    .map_err(|error| StorageError::io("cannot create", &path, error))?;
                Sink::File(file)
            }
            Self::Simulated { .. } => Sink::Memory(Vec::new()),
        };
        let name = Unfinished { files: self.clone(), name: Some(name) };
        Ok(FileWriter { sink, len: 0, unsynced: 0, name })
    }

    /// The whole content of a file, if it is there.
    pub(super) fn read(&self, name: &str) -> Result<Option<Bytes>, StorageError> {
        match self.open_file(name)? {
            Some(file) => file.read_at(0, file.len).map(Some),
            None => Ok(None),
        }
    }

    /// Opens a finished file for reading. It stays readable when it is deleted meanwhile.
    pub(super) fn open_file(&self, name: &str) -> Result<Option<FileReader>, StorageError> {
        let path = self.path(name);
        let fail = |error| StorageError::io("cannot open", &path, error);
        match self {
            Self::Dir(_) => match File::open(&path) {
                Ok(file) => {
                    let len = file.metadata().map_err(fail)?.len();
                    Ok(Some(FileReader { source: Source::File(Arc::new(file)), start: 0, len }))
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(fail(error)),
            },
            Self::Simulated { disk, prefix } => {
                let bytes = disk.file(&format!("{prefix}{name}")).map_err(fail)?;
                Ok(bytes.map(FileReader::of_bytes))
            }
        }
    }

    /// The names of finished files, sorted.
    pub(super) fn names(&self) -> Result<Vec<String>, StorageError> {
        let mut names = self.all_names()?;
        names.retain(|name| !name.ends_with(UNFINISHED));
        names.sort();
        Ok(names)
    }

    fn all_names(&self) -> Result<Vec<String>, StorageError> {
        let fail = |error| StorageError::io("cannot list", &self.path(""), error);
        match self {
            Self::Dir(dir) => fs::read_dir(dir)
                .and_then(|entries| {
                    entries
                        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                        .collect()
                })
                .map_err(fail),
            Self::Simulated { disk, prefix } => disk.file_names(prefix).map_err(fail),
        }
    }

    /// Deletes a file; one that is not there is fine.
    pub(super) fn remove(&self, name: &str) -> Result<(), StorageError> {
        let path = self.path(name);
        let result = match self {
            Self::Dir(_) => fs::remove_file(&path),
            Self::Simulated { disk, prefix } => {
                disk.remove_file(&format!("{prefix}{name}")).map(|_removed| ())
            }
        };
        match result {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StorageError::io("cannot delete", &path, error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Renames a finished file, durably.
    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), StorageError> {
        let path = self.path(from);
        let fail = |error| StorageError::io("cannot rename", &path, error);
        match self {
            Self::Dir(dir) => {
                fs::rename(&path, dir.join(to)).map_err(fail)?;
                sync_dir(dir)
            }
            Self::Simulated { disk, prefix } => {
                if let Some(bytes) = disk.remove_file(&format!("{prefix}{from}")).map_err(fail)? {
                    disk.put_file(&format!("{prefix}{to}"), bytes).map_err(fail)?;
                }
                Ok(())
            }
        }
    }
}

#[derive(Debug)]
enum Sink {
    File(File),
    Memory(Vec<u8>),
}

/// A temporary name; deleted unless it was published.
#[derive(Debug)]
struct Unfinished {
    files: Files,
    name: Option<String>,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(name) = &self.name
            && let Err(error) = self.files.remove(name)
        {
            tracing::warn!(%error, "cannot delete an unfinished file; the next start will");
        }
    }
}

/// A file being written under a temporary name; dropped, it is deleted.
#[derive(Debug)]
pub(super) struct FileWriter {
    sink: Sink,
    len: u64,
    unsynced: u64,
    name: Unfinished,
}

impl FileWriter {
    /// Bytes written so far.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        match &mut self.sink {
            Sink::File(file) => {
                let name = self.name.name.as_deref().unwrap_or_default();
                file.write_all(bytes).map_err(|error| {
                    StorageError::io("cannot write", &self.name.files.path(name), error)
                })?;
                self.unsynced += bytes.len() as u64;
                if self.unsynced >= SYNC_EVERY_BYTES {
                    self.unsynced = 0;
                    file.sync_data().map_err(|error| {
                        StorageError::io("cannot sync", &self.name.files.path(name), error)
                    })?;
                }
            }
            Sink::Memory(content) => content.extend_from_slice(bytes),
        }
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// fsyncs what was written.
    pub(super) fn finish(self) -> Result<FinishedFile, StorageError> {
        let source = match self.sink {
            Sink::File(file) => {
                let name = self.name.name.as_deref().unwrap_or_default();
                file.sync_all().map_err(|error| {
                    StorageError::io("cannot sync", &self.name.files.path(name), error)
                })?;
                Source::File(Arc::new(file))
            }
            Sink::Memory(content) => Source::Memory(Bytes::from(content)),
        };
        let reader = FileReader { source, start: 0, len: self.len };
        Ok(FinishedFile { reader, name: self.name })
    }
}

/// A synced file that has only a temporary name yet; dropped, it is deleted.
#[derive(Debug)]
pub(super) struct FinishedFile {
    reader: FileReader,
    name: Unfinished,
}

impl FinishedFile {
    pub(super) fn reader(&self) -> &FileReader {
        &self.reader
    }

    /// Gives the file its name, durably.
    pub(super) fn publish(mut self, name: &str) -> Result<FileReader, StorageError> {
        let temporary = self.name.name.take().expect("a file is published once");
        match (&self.name.files, &self.reader.source) {
            (Files::Simulated { disk, prefix }, Source::Memory(bytes)) => {
                disk.put_file(&format!("{prefix}{name}"), bytes.clone())
                    .map_err(|error| StorageError::io("cannot write", Path::new(name), error))?;
            }
            (files, _) => files.rename(&temporary, name)?,
        }
        Ok(self.reader.clone())
    }
}

#[derive(Debug, Clone)]
enum Source {
    File(Arc<File>),
    Memory(Bytes),
}

/// An open file, or its end. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct FileReader {
    source: Source,
    /// Where in the file its first byte is.
    start: u64,
    len: u64,
}

impl FileReader {
    pub(super) fn of_bytes(bytes: Bytes) -> Self {
        Self { len: bytes.len() as u64, start: 0, source: Source::Memory(bytes) }
    }

    /// Everything behind the first `bytes`.
    pub(super) fn skip(self, bytes: u64) -> Self {
        let bytes = bytes.min(self.len);
        Self { source: self.source, start: self.start + bytes, len: self.len - bytes }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Reads exactly `len` bytes from `offset`.
    pub(super) fn read_at(&self, offset: u64, len: u64) -> Result<Bytes, StorageError> {
        let short = || StorageError::Io {
            what: format!("cannot read {len} bytes at {offset} of a file of {}", self.len),
            source: io::ErrorKind::UnexpectedEof.into(),
        };
        let end = offset.checked_add(len).filter(|end| *end <= self.len).ok_or_else(short)?;
        let (offset, end) = (self.start + offset, self.start + end);
        match &self.source {
            Source::File(file) => {
                let mut bytes = vec![0; usize::try_from(len).map_err(|_too_long| short())?];
                file.read_exact_at(&mut bytes, offset).map_err(|source| StorageError::Io {
                    what: format!("cannot read {len} bytes at {offset}"),
                    source,
                })?;
                Ok(bytes.into())
            }
            Source::Memory(bytes) => {
                let start = usize::try_from(offset).map_err(|_too_long| short())?;
                let end = usize::try_from(end).map_err(|_too_long| short())?;
                Ok(bytes.slice(start..end))
            }
        }
    }
}
