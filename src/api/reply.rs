//! Answers: JSON, with the headers that say where they come from and how fresh they are.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use serde::Serialize;

use super::headers;
use super::ticket::Ticket;
use crate::cluster::ReadStamp;

/// JSON text of an answer, to be made while the state is at hand.
pub(super) fn encode(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("answers are plain data with string keys")
}

/// An answer of JSON text.
pub(super) fn json(text: Vec<u8>) -> Response {
    of_body(Body::from(text))
}

fn of_body(body: Body) -> Response {
    let mut response = Response::new(body);
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// The answer to a read admitted under `stamp`.
pub(super) fn read(stamp: &ReadStamp, text: Vec<u8>) -> Response {
    read_body(stamp, Body::from(text))
}

/// As [`read`], with a body that may be made while it is sent.
pub(super) fn read_body(stamp: &ReadStamp, body: Body) -> Response {
    let mut response = of_body(body);
    write_stamp(response.headers_mut(), stamp);
    response
}

/// The answer to a write committed at `index`.
pub(super) fn written(ticket: Ticket, index: u64, body: &impl Serialize) -> Response {
    written_body(ticket, index, Body::from(encode(body)))
}

/// As [`written`], with a body that may be made while it is sent.
pub(super) fn written_body(ticket: Ticket, index: u64, body: Body) -> Response {
    let mut response = of_body(body);
    let headers = response.headers_mut();
    headers.insert(headers::INDEX, HeaderValue::from(index));
    if let Ok(id) = HeaderValue::from_str(&ticket.request_id.to_string()) {
        headers.insert(headers::REQUEST, id);
    }
    response
}

pub(super) fn write_stamp(headers: &mut HeaderMap, stamp: &ReadStamp) {
    headers.insert(headers::INDEX, HeaderValue::from(stamp.index));
    if let Ok(epoch) = HeaderValue::from_str(&stamp.epoch.to_string()) {
        headers.insert(headers::EPOCH, epoch);
    }
    if let Some(leader) = stamp.leader {
        headers.insert(headers::LEADER, HeaderValue::from(leader));
    }
    let age_ms = u64::try_from(stamp.age.as_millis()).unwrap_or(u64::MAX);
    headers.insert(headers::AGE_MS, HeaderValue::from(age_ms));
    headers.insert(headers::CONSISTENCY, HeaderValue::from_static(stamp.effective));
}
