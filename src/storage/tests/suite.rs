//! openraft's own conformance suite, over a directory and over the simulated disk.

use openraft::testing::log::{StoreBuilder, Suite};

use super::kit::{open_dir, open_sim, sim};
use crate::storage::{Keeper, LogStore, StateMachine, TypeConfig};

struct InDir;
struct InMemory;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, (Keeper, tempfile::TempDir)> for InDir {
    async fn build(
        &self,
    ) -> Result<
        ((Keeper, tempfile::TempDir), LogStore, StateMachine),
        openraft::StorageError<TypeConfig>,
    > {
        let dir = tempfile::tempdir().unwrap();
        let storage = open_dir(dir.path()).await;
        // The suite purges without snapshots, which production refuses.
        storage.log.forget_purge_floor();
        Ok(((storage.keeper, dir), storage.log, storage.machine))
    }
}

impl StoreBuilder<TypeConfig, LogStore, StateMachine, Keeper> for InMemory {
    async fn build(
        &self,
    ) -> Result<(Keeper, LogStore, StateMachine), openraft::StorageError<TypeConfig>> {
        let storage = open_sim(&sim(1)).await;
        storage.log.forget_purge_floor();
        Ok((storage.keeper, storage.log, storage.machine))
    }
}

#[tokio::test]
async fn openrafts_suite_passes_on_a_real_disk() {
    Suite::test_all(InDir).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn openrafts_suite_passes_on_a_simulated_disk() {
    Suite::test_all(InMemory).await.unwrap();
}
