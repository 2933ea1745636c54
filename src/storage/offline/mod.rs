//! Data directories that no member runs on: what is left in them, and a new cluster made of it.
//!
//! Nothing here changes what it reads. A new data directory is built beside its place and moved
//! there as a whole, so it is there and sound, or not there.

mod inspect;
mod refound;
mod remains;
mod restore;
mod revive;
mod verdict;

pub use inspect::{DirReport, End, HomeReport, SnapshotReport, inspect};
pub use refound::{FirstSeat, Founded, recover_into};
pub use restore::{Rehearsal, rehearse, restore_into};
pub use verdict::{Assessment, VoterReport, assess};
