//! Clients that go on when a member dies: a request that nobody answered is sent again, to the next
//! member, as a balancer in front of the members would do it.
//!
//! Only what is the same when it is done twice is sent so: tasks with ids of their own, heartbeats,
//! reads. Each repetition is counted, so that none is hidden.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::drive::{Code, Seat};
use super::template::Template;

/// How often what was sent again.
#[derive(Debug)]
pub(super) struct Insist {
    repeats: u32,
    repeated: Mutex<BTreeMap<&'static str, u64>>,
}

impl Insist {
    /// Sends a request again up to `repeats` times.
    #[must_use]
    pub(super) fn new(repeats: u32) -> Self {
        Self { repeats, repeated: Mutex::default() }
    }

    /// Sends request `number` until a member answers it.
    ///
    /// # Errors
    /// The code of the answer, or of the last failure.
    pub(super) async fn send(
        &self,
        seat: &mut Seat,
        template: &Template,
        number: u64,
        scratch: &mut Vec<u8>,
    ) -> Result<(), Code> {
        let mut left = self.repeats;
        loop {
            let request = template.request(seat.target(), number, scratch);
            let Err(code) = seat.exchange(request).await else { return Ok(()) };
            let Some(reason) = reason(&code).filter(|_| left > 0) else { return Err(code) };
            left -= 1;
            *self.repeated.lock().entry(reason).or_default() += 1;
        }
    }

    /// How often requests were sent again, by what had become of them.
    #[must_use]
    pub(super) fn repeated(&self) -> BTreeMap<&'static str, u64> {
        self.repeated.lock().clone()
    }
}

/// Why a request may be sent again; `None` when it was answered, or waited for long enough.
fn reason(code: &str) -> Option<&'static str> {
    match code {
        "connect" => Some("connect"),
        "broken" => Some("broken"),
        code if code.starts_with("503") => Some("503"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::get;

    use super::*;
    use crate::bench::drive::Run;
    use crate::bench::drive::tests::{load, serve};

    /// Refuses with these statuses, one after the other, and answers then.
    async fn member(refusals: &'static [u16]) -> super::super::connection::Target {
        let asked = Arc::new(AtomicU32::new(0));
        let handler = move || async move {
            let nth = asked.fetch_add(1, Ordering::Relaxed) as usize;
            refusals.get(nth).map_or(StatusCode::OK, |code| StatusCode::from_u16(*code).unwrap())
        };
        serve(Router::new().route("/", get(handler))).await
    }

    #[tokio::test]
    async fn what_nobody_answered_is_sent_again_and_counted() {
        let load = load(vec![member(&[503]).await, member(&[503]).await], 1);
        let (run, template) = (Run::start(&load), Template::new(&load.url, "GET", "/", "", ""));
        let (mut seat, mut scratch) = (run.seat(0), Vec::new());
        let insist = Insist::new(2);
        assert_eq!(insist.send(&mut seat, &template, 0, &mut scratch).await, Ok(()));
        assert_eq!(insist.repeated(), BTreeMap::from([("503", 2)]));
    }

    #[tokio::test]
    async fn an_answer_is_an_answer_and_patience_ends() {
        let load = load(vec![member(&[404, 503, 503]).await], 1);
        let (run, template) = (Run::start(&load), Template::new(&load.url, "GET", "/", "", ""));
        let (mut seat, mut scratch) = (run.seat(0), Vec::new());
        let insist = Insist::new(1);
        let refused = insist.send(&mut seat, &template, 0, &mut scratch).await.unwrap_err();
        assert_eq!((refused.as_ref(), insist.repeated().len()), ("404", 0));
        let refused = insist.send(&mut seat, &template, 0, &mut scratch).await.unwrap_err();
        assert_eq!((refused.as_ref(), insist.repeated()["503"]), ("503", 1));
    }
}
