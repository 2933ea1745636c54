//! What the courier makes a mail of, and what it says of one that not everybody gets.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tracing::warn;

use crate::model::{Delivery, DeliveryBody, DeliveryId, MailChannel};
use crate::outward::{Mail, Sent};

/// The part of a delivery's body that a mail is made of.
#[derive(Deserialize)]
struct Letter {
    subject: String,
    text: String,
}

/// Whether a delivery to `url` is a mail.
#[must_use]
pub(super) fn is_mail(url: &str) -> bool {
    url.starts_with("smtp://")
}

/// The mail of a delivery. It goes where `channel` leads now, not where it led when it was queued: an
/// operator who mends the channel mends what waits. Every try is the same mail, by its number and date.
pub(super) fn mail(
    delivery: &Delivery,
    channel: Arc<MailChannel>,
    cluster_id: u128,
    timeout: Duration,
) -> Option<Mail> {
    let DeliveryBody::Text(body) = &delivery.body else { return None };
    let Letter { subject, text } = serde_json::from_str(body).ok()?;
    let number = format!("quorate.{}.{cluster_id:032x}", delivery.delivery_id);
    Some(Mail { channel, number, dated_ms: delivery.created_at_ms, subject, text, timeout })
}

/// The mail counts as delivered: the others have it, and a second one for those it was refused for
/// would be one too many for them. So this is the place where it is said.
pub(super) fn tell_of_refused(delivery_id: DeliveryId, sent: &Sent) {
    for refused in &sent.refused {
        let (address, answer) = (&refused.address, &refused.answer);
        warn!(delivery_id, address, answer, "a recipient of alerts was refused");
    }
}
