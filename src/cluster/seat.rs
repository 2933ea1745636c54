//! Taking a place in a cluster: the identity is made durable first, then Raft starts.

use std::sync::Arc;

use openraft::Raft;

use super::core::{Core, RaftHandle, Seat};
use super::error::StartError;
use super::network::PeerNetworkFactory;
use super::raft_config::raft_config;
use crate::model::MemberId;
use crate::storage::{LogStore, StateMachine, Storage};

impl Core {
    /// Takes the place `member_id` in `cluster_id`. True when this call took it, or it was taken
    /// alike before; false when this member sits elsewhere.
    ///
    /// # Errors
    /// [`StartError`] when the identity cannot be written or Raft does not start.
    pub(crate) async fn take_seat(
        self: &Arc<Self>,
        cluster_id: u128,
        member_id: MemberId,
    ) -> Result<bool, StartError> {
        let mut unused = self.storage.lock().await;
        if let Some(seat) = self.seat.get() {
            return Ok(seat.cluster_id == cluster_id && seat.member_id == member_id);
        }
        let Some(mut storage) = unused.take() else {
            return Err(StartError::Storage("it was used up by a start that failed".to_owned()));
        };
        if storage.identity.is_none() {
            // Durable before the first answer to any peer.
            storage
                .claim(cluster_id, member_id, self.member.incarnation)
                .map_err(|error| StartError::Storage(error.to_string()))?;
        }
        let Storage { log, machine, keeper, .. } = storage;
        self.peers.set_own(self.own(cluster_id, member_id));
        let raft = self.start_raft(member_id, log, machine).await?;
        drop(self.seat.set(Seat { cluster_id, member_id, raft, keeper }));
        self.refresh_roster();
        self.spawn(Arc::clone(self).follow_raft());
        self.spawn(Arc::clone(self).follow_roster());
        self.spawn(Arc::clone(self).await_recovery());
        self.spawn(super::steward::run(Arc::clone(self)));
        self.seated.send_replace(true);
        tracing::info!(member_id, cluster = format!("{cluster_id:032x}"), "took its place");
        Ok(true)
    }

    async fn start_raft(
        &self,
        member_id: MemberId,
        log: LogStore,
        machine: StateMachine,
    ) -> Result<RaftHandle, StartError> {
        let options = &self.options;
        let retention = options.retention.staggered(member_id);
        let mut config = raft_config(options.timing, retention)?;
        if let Some(tune) = options.tune {
            tune(&mut config);
        }
        let idle = options.timing.election_max();
        let network = PeerNetworkFactory::new(Arc::clone(&self.peers), idle, retention.piece_bytes);
        let raft = Raft::new(member_id, Arc::new(config), network, log, machine)
            .await
            .map_err(|fatal| StartError::Raft(fatal.to_string()))?;
        Ok(raft)
    }

    /// Notes when this member has applied again what it may have shown before a restart.
    async fn await_recovery(self: Arc<Self>) {
        let Some(raft) = self.raft() else { return };
        if raft.wait_for_recovery(None).await.is_ok() {
            self.recovered.send_replace(true);
        }
    }
}
