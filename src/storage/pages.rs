//! Pages: neighbouring task rows share one value of the home.
//!
//! What sled does per key (finding the leaf, copying it, logging the change, splitting it after
//! sixteen keys) costs more than the bytes of a row. Tasks come and change in the order of their
//! numbers, so eight of them make one value: a batch then touches an eighth of the keys. Everybody
//! but [`super::home`] goes on seeing rows.

use bytes::Bytes;

use super::error::StorageError;
use super::home::StoredRow;
use crate::state::TableId;

/// Rows of a page are those whose numbers differ in these lowest bits only.
const SLOT_BITS: u32 = 3;
const SLOTS: usize = 1 << SLOT_BITS;
/// A stored key of a task: the byte of the table, and the number.
pub(super) const KEY_BYTES: usize = 1 + size_of::<u64>();

/// Where a row is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Under its own key.
    Alone,
    /// In a page: the page's key, and the slot.
    Paged([u8; KEY_BYTES], usize),
}

impl Place {
    pub(super) fn of(key: &[u8]) -> Self {
        match key.split_first() {
            Some((&table, number)) if table == TableId::Tasks as u8 => match number.try_into() {
                Ok(number) => {
                    let number = u64::from_be_bytes(number);
                    let slot = number as usize % SLOTS;
                    Self::Paged(stored_key(number >> SLOT_BITS), slot)
                }
                Err(_) => Self::Alone,
            },
            _ => Self::Alone,
        }
    }
}

/// Whether the value under a key of the home is a page.
pub(super) fn is_page_key(key: &[u8]) -> bool {
    key.len() == KEY_BYTES && key[0] == TableId::Tasks as u8
}

/// The page that holds the first row at or after `from`, which may be any bytes; `None` when `from`
/// is in a table without pages.
pub(super) fn first_page(from: &[u8]) -> Option<[u8; KEY_BYTES]> {
    let (_, number) = from.split_first().filter(|(table, _)| **table == TableId::Tasks as u8)?;
    let digits = number.iter().copied().chain(std::iter::repeat(0)).take(size_of::<u64>());
    Some(stored_key(number_of(digits) >> SLOT_BITS))
}

fn number_of(digits: impl Iterator<Item = u8>) -> u64 {
    digits.fold(0, |number, digit| number << 8 | u64::from(digit))
}

fn stored_key(number: u64) -> [u8; KEY_BYTES] {
    let mut key = [TableId::Tasks as u8; KEY_BYTES];
    key[1..].copy_from_slice(&number.to_be_bytes());
    key
}

/// The rows of one page, by slot.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Page([Option<Bytes>; SLOTS]);

impl Page {
    /// Reads a stored page.
    ///
    /// # Errors
    /// [`StorageError::Home`] when the bytes are none: the home is damaged, or of another version.
    pub(super) fn decode(mut bytes: Bytes) -> Result<Self, StorageError> {
        let damaged = || StorageError::Home("a page of task rows is damaged".to_owned());
        let mut page = Self::default();
        while !bytes.is_empty() {
            if bytes.len() < 5 {
                return Err(damaged());
            }
            let head = bytes.split_to(5);
            let length = [head[1], head[2], head[3], head[4]];
            let length = u32::from_le_bytes(length) as usize;
            let slot = page.0.get_mut(usize::from(head[0])).ok_or_else(damaged)?;
            if length > bytes.len() || slot.is_some() {
                return Err(damaged());
            }
            *slot = Some(bytes.split_to(length));
        }
        Ok(page)
    }

    /// The bytes to store; `None` for a page without rows.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let rows = self.0.iter().flatten();
        let total: usize = rows.map(|row| row.len() + 5).sum();
        let mut bytes = Vec::with_capacity(total);
        for (slot, row) in (0u8..).zip(&self.0) {
            let Some(row) = row else { continue };
            let length = u32::try_from(row.len()).expect("rows are bounded far below 4 GiB");
            bytes.push(slot);
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(row);
        }
        (!bytes.is_empty()).then_some(bytes)
    }

    pub(super) fn set(&mut self, slot: usize, row: Option<Bytes>) {
        self.0[slot] = row;
    }

    pub(super) fn into_row(mut self, slot: usize) -> Option<Bytes> {
        self.0[slot].take()
    }

    /// The rows under their full keys, in key order.
    pub(super) fn into_rows(self, page_key: &[u8]) -> impl Iterator<Item = StoredRow> {
        let number = number_of(page_key[1..].iter().copied());
        let rows = (number << SLOT_BITS..).zip(self.0);
        rows.filter_map(|(number, row)| row.map(|row| (stored_key(number).to_vec(), row)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rows_of_other_tables_stand_alone() {
        for key in [&[][..], &[0], &[TableId::Tasks as u8, 1], &[TableId::Nodes as u8; 9]] {
            assert_eq!(Place::of(key), Place::Alone, "{key:?}");
        }
    }

    #[test]
    fn a_damaged_page_is_an_error() {
        let mut page = Page::default();
        page.set(1, Some(Bytes::from_static(b"one")));
        page.set(6, Some(Bytes::from_static(b"six")));
        let stored = page.encode().unwrap();
        for cut in 1..stored.len() {
            if cut != 8 {
                assert!(Page::decode(Bytes::copy_from_slice(&stored[..cut])).is_err(), "{cut}");
            }
        }
        let doubled = [stored.as_slice(), stored.as_slice()].concat();
        assert!(Page::decode(doubled.into()).is_err());
        assert!(Page::decode(Bytes::from_static(&[8, 0, 0, 0, 0])).is_err(), "no such slot");
    }

    proptest! {
        #[test]
        fn pages_give_back_their_rows(
            number in any::<u64>(),
            rows in proptest::collection::vec(proptest::option::of("[a-z]{0,40}"), SLOTS),
        ) {
            let first = number & !(SLOTS as u64 - 1);
            let keys: Vec<_> = (0..SLOTS as u64).map(|slot| stored_key(first + slot)).collect();
            let mut page = Page::default();
            let mut expected = Vec::new();
            for (key, row) in keys.iter().zip(rows) {
                let Place::Paged(page_key, slot) = Place::of(key) else { panic!("no page") };
                prop_assert!(is_page_key(&page_key));
                let row = row.map(Bytes::from);
                expected.extend(row.clone().map(|row| (key.to_vec(), row)));
                page.set(slot, row);
            }
            let stored = page.encode().unwrap_or_default();
            let read = Page::decode(stored.into()).unwrap();
            prop_assert_eq!(&read, &page);
            let Place::Paged(page_key, _) = Place::of(&keys[0]) else { panic!("no page") };
            prop_assert_eq!(read.into_rows(&page_key).collect::<Vec<_>>(), expected);
        }
    }
}
