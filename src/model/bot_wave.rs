//! Assignments of bots (contract 5.2). What is assigned at once is one row, a *wave*; what came of
//! its assignments stands in blocks, which exist only once something has.

use serde::{Deserialize, Serialize};

use super::{BOT_BLOCK, BotPlace, Payload, Span, TimeMs};

/// An assignment: its wave, and the index of the bot that it was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AssignmentPlace {
    /// Waves count from 1.
    pub wave: u64,
    /// In the wave's swarm.
    pub index: u32,
}

/// The same work for one bot, or for every bot of a swarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wave {
    /// Whose bots; 0 for a bot of no swarm.
    pub swarm: u32,
    /// Over the whole swarm.
    pub whole: bool,
    /// What to do, as sent.
    pub task_type: Option<String>,
    /// What to work on, as JSON text.
    pub data: Payload,
    /// When it was assigned.
    pub assigned_at_ms: TimeMs,
    /// The bots it was made for.
    pub members: Vec<Span>,
    /// How many they are.
    pub size: u32,
    /// What turns its shares round, so that not all waves give to the same bots: of waves over one swarm as
    /// many more as the one before had assignments, or the number of one that is not over a whole swarm.
    pub turn: u64,
    /// [`super::Swarm::next_index`] when it was made, which only grows: waves over one swarm that have the
    /// same were made with no bot added in between.
    pub next_index: u32,
}

impl Wave {
    /// Whether there is an assignment of that index.
    #[must_use]
    pub fn has(&self, index: u32) -> bool {
        let at = self.members.partition_point(|span| span.end <= index);
        self.members.get(at).is_some_and(|span| span.first <= index)
    }

    /// The bot it was made for, unless it is over a whole swarm.
    #[must_use]
    pub fn single(&self) -> Option<BotPlace> {
        let index = self.members.first().filter(|_| !self.whole)?.first;
        Some(BotPlace { swarm: self.swarm, index })
    }
}

/// Where an assignment stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AssignmentState {
    /// Nobody works on it, as far as is known.
    #[default]
    Waiting,
    /// Somebody holds a lease of it.
    Leased,
    /// Done.
    Completed,
    /// Given up: every try failed.
    Failed,
}

impl AssignmentState {
    /// Whether nothing happens to it any more.
    #[must_use]
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Failed)
    }

    /// Its word on the wire (contract 5.2 knows `assigned` and `completed`).
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting | Self::Leased => "assigned",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }
}

/// Who works on an assignment, and until when nobody else may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BotLease {
    /// As they call themselves.
    pub holder: String,
    /// At which age of the state it ends by itself.
    pub ends_aged_ms: TimeMs,
    /// When its holder was last heard of.
    pub contact_ms: TimeMs,
}

/// What came of one assignment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Its place in its block.
    pub slot: u8,
    /// Where it stands.
    pub state: AssignmentState,
    /// The number of its newest try; 0 when it was never leased.
    pub attempt: u32,
    /// Tries that failed or ran out of time.
    pub failures: u32,
    /// A failure was told since its newest try began, by somebody who holds no lease: it counts once.
    pub told: bool,
    /// As whom it is leased or was ended, when that was not the bot it was made for.
    pub bot: Option<u32>,
    /// When it ended; 0 before.
    pub ended_at_ms: TimeMs,
    /// Its result as JSON text, or the last error of one that was given up.
    pub result: Payload,
    /// While it is leased.
    pub lease: Option<Box<BotLease>>,
}

impl Progress {
    /// Whether it says nothing that its absence would not.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        *self == Self { slot: self.slot, ..Self::default() }
    }
}

/// What came of neighbouring assignments of a wave; of those that are not here, nothing has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaveBlock {
    /// In the order of their slots.
    pub rows: Vec<Progress>,
}

impl WaveBlock {
    /// What came of the assignment in a slot.
    #[must_use]
    pub fn get(&self, slot: u8) -> Option<&Progress> {
        let at = self.rows.binary_search_by_key(&slot, |row| row.slot).ok()?;
        self.rows.get(at)
    }

    /// Puts a row in its place; a blank one is left out.
    pub fn put(&mut self, row: Progress) {
        match self.rows.binary_search_by_key(&row.slot, |row| row.slot) {
            Ok(at) if row.is_blank() => drop(self.rows.remove(at)),
            Ok(at) => self.rows[at] = row,
            Err(_) if row.is_blank() => {}
            Err(at) => self.rows.insert(at, row),
        }
    }
}

/// The block and the slot of an index.
#[must_use]
pub fn block_slot(index: u32) -> (u32, u8) {
    (index / BOT_BLOCK, (index % BOT_BLOCK) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_rows_are_not_kept() {
        let mut block = WaveBlock::default();
        let row = |slot, attempt| Progress { slot, attempt, ..Progress::default() };
        for slot in [9, 3, 5] {
            block.put(row(slot, 1));
        }
        block.put(row(4, 0));
        let slots: Vec<u8> = block.rows.iter().map(|row| row.slot).collect();
        assert_eq!(slots, [3, 5, 9]);
        block.put(row(5, 0));
        assert_eq!((block.rows.len(), block.get(5), block.get(9).unwrap().attempt), (2, None, 1));
    }

    #[test]
    fn a_wave_knows_its_assignments() {
        let span = |first, end| Span { first, end };
        let wave = Wave {
            swarm: 3,
            whole: true,
            task_type: None,
            data: Payload::Absent,
            assigned_at_ms: 1,
            members: vec![span(2, 4), span(8, 9)],
            size: 3,
            turn: 0,
            next_index: 9,
        };
        let has: Vec<u32> = (0..10).filter(|index| wave.has(*index)).collect();
        assert_eq!(has, [2, 3, 8]);
        assert_eq!(wave.single(), None);
        let single = Wave { whole: false, members: vec![span(8, 9)], ..wave };
        assert_eq!(single.single(), Some(BotPlace { swarm: 3, index: 8 }));
    }
}
