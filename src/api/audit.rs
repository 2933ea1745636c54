//! The record of who changed what and who was refused (`security.audit_logging`): one line each of
//! the log, under the target `audit`.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::{Method, StatusCode, Uri};

use super::auth::Address;
use super::ticket::Ticket;
use crate::security::{Access, Principal};

/// What will be said of one request. Paths are noted, queries are not: they may hold keys.
#[derive(Debug)]
pub(super) struct Line(Option<About>);

#[derive(Debug)]
struct About {
    method: Method,
    uri: Uri,
    address: Option<IpAddr>,
    ticket: Ticket,
}

impl Line {
    pub(super) fn of(access: &Access, request: &Request, ticket: Ticket) -> Self {
        Self(access.audit.then(|| About {
            method: request.method().clone(),
            uri: request.uri().clone(),
            address: Address::of(request.extensions()).0,
            ticket,
        }))
    }

    /// The request did not get in.
    pub(super) fn refused(&self, status: StatusCode) {
        let Some(About { method, uri, address, ticket }) = &self.0 else { return };
        tracing::warn!(
            target: "audit",
            %method,
            path = uri.path(),
            status = status.as_u16(),
            address = address.map(tracing::field::display),
            request_id = %ticket.request_id,
            "refused"
        );
    }

    /// The request was served. Reads change nothing and are not noted.
    pub(super) fn served(&self, principal: Option<&Principal>, status: StatusCode) {
        let (Some(about), Some(principal)) = (&self.0, principal) else { return };
        let About { method, uri, address, ticket } = about;
        if matches!(*method, Method::GET | Method::HEAD) {
            return;
        }
        tracing::info!(
            target: "audit",
            user_id = ?principal.user_id,
            role = principal.role.as_str(),
            %method,
            path = uri.path(),
            status = status.as_u16(),
            address = address.map(tracing::field::display),
            request_id = %ticket.request_id,
            "write"
        );
    }
}
