//! How a broken disk or broken data stops the member: raised once, never lowered.

use std::sync::Arc;

use tokio::sync::watch;

/// A switch that every part of storage can flip and the server watches. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Alarm(Arc<watch::Sender<Option<String>>>);

impl Default for Alarm {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Alarm {
    /// Says why this member must stop. The first reason stands.
    pub(super) fn raise(&self, why: &str) {
        let first = self.0.send_if_modified(|reason| {
            let first = reason.is_none();
            if first {
                *reason = Some(why.to_owned());
            }
            first
        });
        if first {
            tracing::error!(why, "storage failed: this member must stop");
        }
    }

    /// Why this member must stop, once it must.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        self.0.borrow().clone()
    }

    /// Waits until the alarm is raised; gives the reason.
    pub async fn raised(&self) -> String {
        let mut reasons = self.0.subscribe();
        loop {
            if let Some(reason) = reasons.borrow_and_update().clone() {
                return reason;
            }
            // The sender lives in `self`, so the channel cannot close while this waits.
            let _ = reasons.changed().await;
        }
    }
}
