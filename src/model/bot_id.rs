//! Ids that are computed from numbers, and read back to them (docs/decisions/0009-swarms-are-derived.md).

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_seed};

/// Bits of an id that say that it is one of ours.
const TAG_BITS: u32 = 42;
/// Bits of the numbers it stands for: 48 and 32.
const NUMBER_BITS: u32 = 80;
const NUMBER_MASK: u128 = (1 << NUMBER_BITS) - 1;
/// Bits of a UUID behind its variant.
const LOW_BITS: u32 = 62;

/// What a [`DerivedId`] names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum IdOf {
    /// A bot: its swarm (0 for none) and its index.
    Bot = 1,
    /// A swarm: its number.
    Swarm = 2,
    /// An assignment: its wave, and the index of its bot at that time.
    Assignment = 3,
    /// A workflow: its number.
    Workflow = 4,
}

/// A UUID of version 4 shape that stands for two numbers. Looks random, takes no row: the numbers
/// are masked by a hash of a tag, and the tag is a hash of the numbers, so an id of somebody else
/// is told from one of ours.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DerivedId(u128);

impl DerivedId {
    /// The id of two numbers, of which the first has at most 48 bits.
    #[must_use]
    pub fn of(kind: IdOf, seed: u64, (high, low): (u64, u32)) -> Self {
        let number = (u128::from(high) << 32 | u128::from(low)) & NUMBER_MASK;
        let tag = tag(kind, seed, number);
        let all = u128::from(tag) << NUMBER_BITS | (number ^ mask(kind, seed, tag));
        let (upper, lower) = (all >> LOW_BITS, all & ((1 << LOW_BITS) - 1));
        let (upper, middle) = (upper >> 12, upper & 0xfff);
        Self(upper << 80 | 0x4 << 76 | middle << 64 | 0x2 << 62 | lower)
    }

    /// The numbers it stands for; `None` when it is no such id.
    #[must_use]
    pub fn numbers(self, kind: IdOf, seed: u64) -> Option<(u64, u32)> {
        if self.0 >> 76 & 0xf != 0x4 || self.0 >> 62 & 0x3 != 0x2 {
            return None;
        }
        let lower = self.0 & ((1 << LOW_BITS) - 1);
        let all = ((self.0 >> 80) << 12 | (self.0 >> 64 & 0xfff)) << LOW_BITS | lower;
        let told = (all >> NUMBER_BITS) as u64;
        let number = (all & NUMBER_MASK) ^ mask(kind, seed, told);
        (told == tag(kind, seed, number)).then_some(((number >> 32) as u64, number as u32))
    }

    /// Reads a UUID: 32 hex digits in the usual five groups.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let dashes = [8, 13, 18, 23];
        if bytes.len() != 36 || dashes.iter().any(|at| bytes[*at] != b'-') {
            return None;
        }
        let digits = (0..36).filter(|at| !dashes.contains(at)).map(|at| bytes[at]);
        let number = digits.map(|digit| char::from(digit).to_digit(16));
        number
            .into_iter()
            .try_fold(0u128, |all, digit| Some(all << 4 | u128::from(digit?)))
            .map(Self)
    }

    /// Its first eight digits, of which default names are made (contract 5.1).
    #[must_use]
    pub fn short(self) -> String {
        format!("{:08x}", self.0 >> 96)
    }
}

fn tag(kind: IdOf, seed: u64, number: u128) -> u64 {
    let mut bytes = [0; 17];
    bytes[0] = kind as u8;
    bytes[1..].copy_from_slice(&number.to_be_bytes());
    xxh3_64_with_seed(&bytes, seed) >> (u64::BITS - TAG_BITS)
}

fn mask(kind: IdOf, seed: u64, tag: u64) -> u128 {
    let mut bytes = [0; 9];
    bytes[0] = kind as u8;
    bytes[1..].copy_from_slice(&tag.to_be_bytes());
    xxh3_128_with_seed(&bytes, seed) & NUMBER_MASK
}

impl fmt::Display for DerivedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = format!("{:032x}", self.0);
        let (a, b, c, d, e) = (&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
        write!(f, "{a}-{b}-{c}-{d}-{e}")
    }
}

impl fmt::Debug for DerivedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A number where it is stored, a text where people read.
impl Serialize for DerivedId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for DerivedId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            Self::parse(&text).ok_or_else(|| D::Error::custom("not a UUID"))
        } else {
            u128::deserialize(deserializer).map(Self)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_id_is_read_back_to_its_numbers(seed: u64, high in 0..1u64 << 48, low: u32) {
            let id = DerivedId::of(IdOf::Bot, seed, (high, low));
            let text = id.to_string();
            prop_assert_eq!(DerivedId::parse(&text), Some(id));
            prop_assert_eq!(DerivedId::parse(&text.to_uppercase()), Some(id));
            prop_assert!(text.starts_with(&id.short()));
            prop_assert_eq!(&text[14..15], "4");
            prop_assert!("89ab".contains(&text[19..20]));
            prop_assert_eq!(id.numbers(IdOf::Bot, seed), Some((high, low)));
            prop_assert_eq!(id.numbers(IdOf::Swarm, seed), None);
            prop_assert_eq!(id.numbers(IdOf::Bot, seed.wrapping_add(1)), None);
        }

        #[test]
        fn an_id_of_somebody_else_is_none_of_ours(number: u128) {
            prop_assert_eq!(DerivedId(number).numbers(IdOf::Bot, 7), None);
        }
    }

    #[test]
    fn neighbours_look_nothing_alike() {
        let ids = (0..50_000).map(|index| DerivedId::of(IdOf::Bot, 7, (1, index)).short());
        assert!(ids.collect::<BTreeSet<_>>().len() > 49_990);
    }

    #[test]
    fn what_is_no_uuid_is_no_id() {
        for text in ["", "bot-abc-123", "00000000-0000-4000-8000-00000000000g", "é"] {
            assert_eq!(DerivedId::parse(text), None);
        }
        let bare = DerivedId::of(IdOf::Bot, 7, (1, 2)).to_string().replace('-', "");
        assert_eq!(DerivedId::parse(&bare), None);
    }

    #[test]
    fn stored_as_a_number_and_shown_as_a_text() {
        let id = DerivedId::of(IdOf::Bot, 7, (1, 2));
        let bytes = bincode::serde::encode_to_vec(id, bincode::config::standard()).unwrap();
        assert_eq!(bytes.len(), 17);
        let back = bincode::serde::decode_from_slice(&bytes, bincode::config::standard()).unwrap();
        assert_eq!(back, (id, 17));
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, format!("\"{id}\""));
        assert_eq!(serde_json::from_str::<DerivedId>(&json).unwrap(), id);
    }
}
