//! What is due to be posted, by whom it is for. Never stored; rebuilt at load.
//!
//! Each receiver has a line of its own, and the heads of all lines are in order of age. So whoever
//! posts finds the next one for every receiver without looking at what waits behind it, however
//! many posts wait for one that does not answer.

use std::collections::{BTreeMap, BTreeSet};

use super::State;
use crate::model::{Delivery, DeliveryId, Lane, TimeMs};

/// A place in a line: when it is due, and its number.
type Place = (TimeMs, DeliveryId);
/// Lines by lane and host.
type Lines = BTreeMap<String, BTreeSet<Place>>;

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Due {
    lines: BTreeMap<Lane, Lines>,
    /// The first place of every line.
    heads: BTreeMap<Lane, BTreeSet<Place>>,
    len: usize,
}

impl Due {
    pub(super) fn insert(&mut self, delivery: &Delivery) {
        self.change(delivery, |line| line.insert((delivery.not_before_ms, delivery.delivery_id)));
    }

    pub(super) fn remove(&mut self, delivery: &Delivery) {
        self.change(delivery, |line| line.remove(&(delivery.not_before_ms, delivery.delivery_id)));
    }

    /// Changes the line of a delivery; `edit` says whether it did anything.
    fn change(&mut self, delivery: &Delivery, edit: impl FnOnce(&mut BTreeSet<Place>) -> bool) {
        let lines = self.lines.entry(delivery.lane()).or_default();
        let line = lines.entry(delivery.host().to_owned()).or_default();
        let (len, head) = (line.len(), line.first().copied());
        let changed = edit(line);
        if changed {
            self.len = self.len + line.len() - len;
        }
        let new_head = line.first().copied();
        if new_head.is_none() {
            lines.remove(delivery.host());
        }
        if head != new_head {
            let heads = self.heads.entry(delivery.lane()).or_default();
            if let Some(head) = head {
                heads.remove(&head);
            }
            heads.extend(new_head);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// What has been due for longest.
    pub(super) fn oldest(&self) -> Option<DeliveryId> {
        let heads = self.heads.values().filter_map(BTreeSet::first);
        heads.min().map(|(_, delivery_id)| *delivery_id)
    }
}

impl State {
    /// The lines of a lane, the one whose head has been due for longest first: each with what is
    /// to be posted to one host, in order. A line is never empty.
    pub fn due_lines(
        &self,
        lane: Lane,
    ) -> impl Iterator<Item = (&str, impl Iterator<Item = &Delivery>)> {
        let heads = self.due.heads.get(&lane).into_iter().flatten();
        heads.filter_map(move |(_, head)| {
            let host = self.delivery(*head)?.host();
            let (host, line) = self.due.lines.get(&lane)?.get_key_value(host)?;
            Some((host.as_str(), line.iter().filter_map(move |(_, id)| self.delivery(*id))))
        })
    }

    /// How many are to be posted.
    #[must_use]
    pub fn due_deliveries_len(&self) -> usize {
        self.due.len()
    }
}
