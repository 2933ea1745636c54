//! The format of a snapshot file: everything of the state at one log position.
//!
//! `QSNP`, header (length, bytes, checksum), blocks of rows (length, row count, checksum, rows),
//! then an empty block, the row count and a checksum of the whole. The header carries the state
//! digest, so what is written can be checked against the state it was read from, and what is read
//! against both.

use bytes::{Buf, Bytes};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::codec::{PositionForm, decode_form, encode_form, position_form, position_of};
use super::error::StorageError;
use super::files::{FileReader, FileWriter, FinishedFile};
use super::home::{Meta, StoredRow};
use crate::state::{Digest, row_hash};

const MAGIC: &[u8; 4] = b"QSNP";
/// Length, row count, checksum.
const BLOCK_HEAD: u64 = 16;
/// Row count, checksum of the whole file.
const TRAILER: u64 = 16;
/// A header holds one membership; a longer one is damage.
const HEADER_MAX: u64 = 16 << 20;
/// Blocks end after the row that takes them to this size; a longer one is damage.
const BLOCK_BYTES: usize = 128 << 10;
const BLOCK_MAX: u64 = 256 << 20;

/// Position, digest sum, row count.
type HeaderForm = (PositionForm, u64, u64);

fn damaged(cause: impl Into<String>) -> StorageError {
    StorageError::FileDamaged { name: "a snapshot file".to_owned(), cause: cause.into() }
}

/// Writes one snapshot file.
pub(super) struct SnapshotWriter {
    file: FileWriter,
    meta: Meta,
    total: Xxh3,
    block: Vec<u8>,
    block_rows: u32,
    digest: Digest,
}

impl SnapshotWriter {
    pub(super) fn begin(file: FileWriter, meta: &Meta) -> Result<Self, StorageError> {
        let mut writer = Self {
            file,
            meta: meta.clone(),
            total: Xxh3::new(),
            block: Vec::with_capacity(BLOCK_BYTES + 8192),
            block_rows: 0,
            digest: Digest::default(),
        };
        let position = position_form(meta.applied.as_ref(), &meta.membership);
        let form: HeaderForm = (position, meta.digest.sum, meta.digest.rows);
        let header = encode_form(&form);
        let mut head = Vec::with_capacity(header.len() + 16);
        head.extend_from_slice(MAGIC);
        head.extend_from_slice(&length(header.len())?);
        head.extend_from_slice(&header);
        head.extend_from_slice(&xxh3_64(&header).to_le_bytes());
        writer.put(&head)?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.total.update(bytes);
        self.file.write(bytes)
    }

    pub(super) fn rows(&mut self, rows: &[StoredRow]) -> Result<(), StorageError> {
        for (key, value) in rows {
            self.digest.add(row_hash(key, value));
            self.block.extend_from_slice(&length(key.len())?);
            self.block.extend_from_slice(&length(value.len())?);
            self.block.extend_from_slice(key);
            self.block.extend_from_slice(value);
            self.block_rows += 1;
            if self.block.len() >= BLOCK_BYTES {
                self.end_block()?;
            }
        }
        Ok(())
    }

    fn end_block(&mut self) -> Result<(), StorageError> {
        let mut block = std::mem::take(&mut self.block);
        let mut head = Vec::with_capacity(16);
        head.extend_from_slice(&length(block.len())?);
        head.extend_from_slice(&self.block_rows.to_le_bytes());
        head.extend_from_slice(&xxh3_64(&block).to_le_bytes());
        self.put(&head)?;
        self.put(&block)?;
        block.clear();
        self.block = block;
        self.block_rows = 0;
        Ok(())
    }

    /// Ends and fsyncs the file. Fails when the rows are not those the digest promised: then the
    /// home they came from is broken.
    pub(super) fn finish(mut self) -> Result<FinishedFile, StorageError> {
        if self.digest != self.meta.digest {
            let (found, promised) = (self.digest, self.meta.digest);
            return Err(StorageError::Home(format!("its rows give {found}, not {promised}")));
        }
        if self.block_rows > 0 {
            self.end_block()?;
        }
        self.put(&[0; BLOCK_HEAD as usize])?;
        self.put(&self.digest.rows.to_le_bytes())?;
        let total = self.total.digest();
        self.file.write(&total.to_le_bytes())?;
        self.file.finish()
    }
}

fn length(len: usize) -> Result<[u8; 4], StorageError> {
    u32::try_from(len).map(u32::to_le_bytes).map_err(|_too_long| damaged("a part over 4 GiB"))
}

/// Reads one snapshot file from front to end, checking everything on the way.
pub(super) struct SnapshotReader {
    file: FileReader,
    meta: Meta,
    offset: u64,
    total: Xxh3,
    digest: Digest,
}

impl SnapshotReader {
    /// Reads and checks the header.
    pub(super) fn open(file: FileReader) -> Result<Self, StorageError> {
        let mut reader = Self {
            file,
            meta: Meta::default(),
            offset: 0,
            total: Xxh3::new(),
            digest: Digest::default(),
        };
        let mut head = reader.take(8)?;
        if &head[..4] != MAGIC {
            return Err(damaged("it does not begin like one"));
        }
        head.advance(4);
        let len = u64::from(head.get_u32_le());
        if len > HEADER_MAX {
            return Err(damaged("its header is too long"));
        }
        let header = reader.take(len)?;
        if reader.take(8)?.get_u64_le() != xxh3_64(&header) {
            return Err(damaged("the checksum of its header is wrong"));
        }
        let (position, sum, rows): HeaderForm = decode_form(&header, "snapshot header")?;
        let (applied, membership) = position_of(position)?;
        reader.meta = Meta { applied, membership, digest: Digest { sum, rows } };
        Ok(reader)
    }

    pub(super) fn meta(&self) -> &Meta {
        &self.meta
    }

    fn take(&mut self, len: u64) -> Result<Bytes, StorageError> {
        if self.offset + len > self.file.len() {
            return Err(damaged("it is cut short"));
        }
        let bytes = self.file.read_at(self.offset, len)?;
        self.offset += len;
        self.total.update(&bytes);
        Ok(bytes)
    }

    /// The rows of the next block; `None` after the last one, when all checks have passed.
    pub(super) fn next_block(&mut self) -> Result<Option<Vec<(Bytes, Bytes)>>, StorageError> {
        let mut head = self.take(BLOCK_HEAD)?;
        let (len, rows, sum) = (head.get_u32_le(), head.get_u32_le(), head.get_u64_le());
        if len == 0 {
            return self.check_trailer().map(|()| None);
        }
        if u64::from(len) > BLOCK_MAX {
            return Err(damaged("a block is too long"));
        }
        let mut block = self.take(u64::from(len))?;
        if xxh3_64(&block) != sum {
            return Err(damaged("the checksum of a block is wrong"));
        }
        let mut found = Vec::with_capacity((rows as usize).min(BLOCK_BYTES));
        while block.has_remaining() {
            if block.remaining() < 8 {
                return Err(damaged("a row is cut short"));
            }
            let (key_len, value_len) = (block.get_u32_le() as usize, block.get_u32_le() as usize);
            if block.remaining() < key_len.saturating_add(value_len) {
                return Err(damaged("a row is cut short"));
            }
            let (key, value) = (block.split_to(key_len), block.split_to(value_len));
            self.digest.add(row_hash(&key, &value));
            found.push((key, value));
        }
        if found.len() != rows as usize {
            return Err(damaged("a block has another number of rows than it says"));
        }
        Ok(Some(found))
    }

    fn check_trailer(&mut self) -> Result<(), StorageError> {
        let rows = self.take(8)?.get_u64_le();
        let expected = self.total.digest();
        if self.take(TRAILER - 8)?.get_u64_le() != expected {
            return Err(damaged("its checksum is wrong"));
        }
        if self.offset != self.file.len() {
            return Err(damaged("there is something behind its end"));
        }
        if rows != self.digest.rows || self.digest != self.meta.digest {
            return Err(damaged("its rows do not give the digest in its header"));
        }
        Ok(())
    }

    /// Reads to the end for the checks alone.
    pub(super) fn verify(mut self) -> Result<Meta, StorageError> {
        while self.next_block()?.is_some() {}
        Ok(self.meta)
    }
}
