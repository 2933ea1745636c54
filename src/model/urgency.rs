//! How soon a task wants to run (contract 8.3).

use std::fmt;

use serde::{Deserialize, Serialize};

/// 0 to 100, higher is sooner. Every family's idea of priority is mapped onto it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Urgency(u8);

impl Urgency {
    /// What a task gets that says nothing: family W's `3 NORMAL`.
    pub const NORMAL: Self = Self(50);

    /// Clamps to 0..=100.
    #[must_use]
    pub fn clamped(value: u64) -> Self {
        Self(u8::try_from(value.min(100)).unwrap_or(100))
    }

    /// Family W's number: 1 is the most urgent, 5 the least; beyond, the nearest end.
    #[must_use]
    pub fn from_web4ai(priority: i64) -> Self {
        match priority {
            ..=1 => Self(100),
            2 => Self(75),
            3 => Self(50),
            4 => Self(25),
            5.. => Self(0),
        }
    }

    /// A priority word of family W in any letter case; `None` for a word it does not know.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        const WORDS: [(&str, u8); 5] =
            [("critical", 100), ("high", 75), ("normal", 50), ("low", 25), ("background", 0)];
        let found = WORDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word.trim()));
        found.map(|(_, value)| Self(*value))
    }

    /// 0 to 100.
    #[must_use]
    pub fn value(self) -> u8 {
        self.0
    }

    /// The nearest of family W's numbers, which is what its clients get back.
    #[must_use]
    pub fn web4ai(self) -> u8 {
        5 - (self.0 + 12) / 25
    }

    /// Family W's name for [`Self::web4ai`].
    #[must_use]
    pub fn web4ai_name(self) -> &'static str {
        ["CRITICAL", "HIGH", "NORMAL", "LOW", "BACKGROUND"][usize::from(self.web4ai()) - 1]
    }
}

impl Default for Urgency {
    fn default() -> Self {
        Self::NORMAL
    }
}

impl fmt::Display for Urgency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_contract_8_3() {
        for (number, word, urgency) in [
            (1, "critical", 100),
            (2, "HIGH", 75),
            (3, "Normal", 50),
            (4, "low", 25),
            (5, "background", 0),
        ] {
            assert_eq!(Urgency::from_web4ai(number).value(), urgency);
            assert_eq!(Urgency::from_word(word).unwrap().value(), urgency);
            assert_eq!(i64::from(Urgency::clamped(urgency.into()).web4ai()), number);
        }
        assert_eq!(Urgency::from_web4ai(9).value(), 0);
        assert_eq!(Urgency::from_web4ai(-3).value(), 100);
        assert_eq!(Urgency::from_word("soon"), None);
        assert_eq!(Urgency::clamped(60).web4ai_name(), "NORMAL");
    }
}
