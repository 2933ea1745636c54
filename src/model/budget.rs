//! Budgets: what may be used up, in whole units or in millionths of one.
//!
//! A launch reserves what it may use and its end settles what it used. Both happen in apply, so that no
//! failover and no retry can overspend: what is promised and what is gone never exceed the limit.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What is counted. Stored: variants are only appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Resource {
    /// Simulations, one each (contract 3.2 `simulation_budget_per_campaign`).
    Simulations,
    /// Experiments, one each (contract 3.2 `experiment_budget_per_campaign`).
    Experiments,
    /// Tokens of language models.
    Tokens,
    /// Money, in the operator's currency.
    Money,
    /// Minutes of GPUs.
    GpuMinutes,
}

impl Resource {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Simulations, Self::Experiments, Self::Tokens, Self::Money, Self::GpuMinutes];
    /// Those that a result says how much it used of.
    pub const METERED: [Self; 3] = [Self::Tokens, Self::Money, Self::GpuMinutes];

    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Simulations => "simulations",
            Self::Experiments => "experiments",
            Self::Tokens => "tokens",
            Self::Money => "money",
            Self::GpuMinutes => "gpu_minutes",
        }
    }

    /// The reverse of [`Resource::as_str`].
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|resource| resource.as_str() == word)
    }
}

/// One resource of one owner. Amounts are in millionths of a unit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// The hard stop.
    pub limit: u64,
    /// From here on a warning is due; 0 for none.
    pub soft: u64,
    /// Promised to launches that have not ended.
    pub reserved: u64,
    /// Gone.
    pub spent: u64,
    /// The warning was given.
    pub warned: bool,
}

/// Millionths in one unit.
pub const MICRO: u64 = 1_000_000;

impl Budget {
    /// A budget of whole units.
    #[must_use]
    pub fn of_units(limit: u64) -> Self {
        Self { limit: limit.saturating_mul(MICRO), ..Self::default() }
    }

    /// The first metered resource that has a limit and of which no job is promised anything: nothing would
    /// be reserved, so its limit could be passed by all who are under way. A limit of 0 holds nothing in
    /// any case.
    #[must_use]
    pub fn unpromised(
        budgets: &BTreeMap<Resource, Self>,
        per_job: &BTreeMap<Resource, u64>,
    ) -> Option<Resource> {
        let limited = |budget: &Self| budget.limit > 0 && budget.limit < u64::MAX;
        let promised = |resource: &Resource| per_job.get(resource).is_some_and(|each| *each > 0);
        let mut metered = budgets.iter().filter(|(kind, _)| Resource::METERED.contains(kind));
        let found = metered.find(|(kind, budget)| limited(budget) && !promised(kind));
        found.map(|(kind, _)| *kind)
    }

    /// The same limits, with nothing promised or spent.
    #[must_use]
    pub fn fresh(&self) -> Self {
        Self { limit: self.limit, soft: self.soft, ..Self::default() }
    }

    /// What is not gone, promised or not.
    #[must_use]
    pub fn unspent(&self) -> u64 {
        self.limit.saturating_sub(self.spent)
    }

    /// What may still be promised.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.limit.saturating_sub(self.reserved).saturating_sub(self.spent)
    }

    /// Promises `amount`; `false`, and nothing changed, when so much is not left.
    pub fn reserve(&mut self, amount: u64) -> bool {
        let fits = amount <= self.left();
        if fits {
            self.reserved = self.reserved.saturating_add(amount);
        }
        fits
    }

    /// Replaces a promise by what was used. More than was promised may have been used: that is then
    /// on record, and nothing more is launched.
    pub fn settle(&mut self, promised: u64, used: u64) {
        self.reserved = self.reserved.saturating_sub(promised);
        self.spent = self.spent.saturating_add(used);
    }

    /// Whether the warning has just become due; it is given once.
    pub fn warn(&mut self) -> bool {
        let due =
            self.soft > 0 && !self.warned && self.reserved.saturating_add(self.spent) >= self.soft;
        self.warned |= due;
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promises_never_exceed_the_limit_and_the_warning_is_given_once() {
        let mut budget = Budget { limit: 10, soft: 6, ..Budget::default() };
        assert!(budget.reserve(4) && !budget.warn());
        assert!(!budget.reserve(7), "6 are left");
        assert_eq!(budget.left(), 6);
        assert!(budget.reserve(6) && budget.warn() && !budget.warn());
        budget.settle(4, 1);
        assert_eq!((budget.reserved, budget.spent, budget.left()), (6, 1, 3));
        budget.settle(6, 20);
        assert_eq!((budget.reserved, budget.spent, budget.left()), (0, 21, 0));
        assert!(!budget.reserve(1) && budget.reserve(0));
    }
}
