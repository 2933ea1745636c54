//! How the rows of bots, swarms, waves and workflows are keyed.

use super::TableId;
use super::rows::TableRow;
use crate::model::{Bot, BotBlock, Swarm, TaskId, Wave, WaveBlock, Workflow};

/// Rows whose key is a number that counts up.
macro_rules! keyed_by_number {
    ($row:ty, $table:ident, $number:ty) => {
        impl TableRow for $row {
            type Key = $number;
            const TABLE: TableId = TableId::$table;

            fn write_key(&self, key: &$number, to: &mut Vec<u8>) {
                to.extend_from_slice(&key.to_be_bytes());
            }

            fn read_key(&self, stored: &[u8]) -> Option<$number> {
                stored.try_into().ok().map(<$number>::from_be_bytes)
            }
        }
    };
}

keyed_by_number!(Swarm, Swarms, u32);
keyed_by_number!(Bot, Bots, u32);
keyed_by_number!(Wave, Waves, u64);
keyed_by_number!(Workflow, Workflows, u64);

/// Rows whose key is a number and the number of a block.
macro_rules! keyed_by_block {
    ($row:ty, $table:ident, $number:ty) => {
        impl TableRow for $row {
            type Key = ($number, u32);
            const TABLE: TableId = TableId::$table;

            fn write_key(&self, (number, block): &($number, u32), to: &mut Vec<u8>) {
                to.extend_from_slice(&number.to_be_bytes());
                to.extend_from_slice(&block.to_be_bytes());
            }

            fn read_key(&self, stored: &[u8]) -> Option<($number, u32)> {
                let (number, block) = stored.split_first_chunk()?;
                let block = u32::from_be_bytes(block.try_into().ok()?);
                Some((<$number>::from_be_bytes(*number), block))
            }
        }
    };
}

keyed_by_block!(BotBlock, BotBlocks, u32);
keyed_by_block!(WaveBlock, WaveBlocks, u64);

/// Under which name the payloads of a wave or a workflow are kept outside its row. The parts are
/// others than those of tasks, so that no id of a task can meet it.
#[must_use]
pub fn blob_owner(number: u64, place: u32) -> TaskId {
    TaskId::trusted(&format!("{number}.{place}"))
}
