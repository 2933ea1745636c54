//! The cluster itself: who its members are, and changes to that. The status is answered by every
//! member without consensus; changes are made by the leader, whichever member is asked.

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use super::App;
use super::body::RequestBody;
use super::error::ApiError;
use super::object::{FieldError, Object};
use super::params::Path;
use super::reply;
use crate::cluster::ChangeReport;
use crate::model::MemberId;

/// Peer addresses in one request.
const PEERS_MAX: usize = 64;

#[derive(Serialize)]
struct Changed {
    success: bool,
    message: String,
    voters: Vec<MemberId>,
    learners: Vec<MemberId>,
    leader: Option<MemberId>,
}

#[derive(Serialize)]
struct Done {
    success: bool,
    message: &'static str,
}

fn done(message: &'static str) -> Response {
    reply::json(reply::encode(&Done { success: true, message }))
}

fn changed(message: String, report: ChangeReport) -> Response {
    let ChangeReport { voters, learners, leader } = report;
    reply::json(reply::encode(&Changed { success: true, message, voters, learners, leader }))
}

fn parse_member(text: &str) -> Result<MemberId, ApiError> {
    text.parse().map_err(|_| {
        ApiError::bad_request("INVALID_FIELD", format!("a member id is a number, not {text}"))
    })
}

/// `GET /api/v1/cluster`.
pub(super) async fn status(State(app): State<App>) -> Response {
    reply::json(reply::encode(&app.cluster().status().await))
}

/// The peer addresses of a body, `host:port` each, under `peers`.
fn peers(body: &[u8]) -> Result<Vec<String>, ApiError> {
    let peers = Object::parse(body)?.texts("peers")?;
    let is_address = |peer: &String| {
        peer.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
        })
    };
    if peers.len() > PEERS_MAX || !peers.iter().all(is_address) {
        let wanted = "a list of at most 64 peer addresses, each host:port";
        return Err(FieldError::new("peers", wanted).into());
    }
    Ok(peers)
}

/// `POST /api/v1/cluster/init`: founds a cluster of this member and the `peers` it is given.
pub(super) async fn init(
    State(app): State<App>,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    app.cluster().init(&peers(&body)?).await?;
    Ok(done("Cluster initialized"))
}

/// `POST /api/v1/cluster/join`: this member joins the cluster that one of `peers` belongs to.
pub(super) async fn join(
    State(app): State<App>,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let peers = peers(&body)?;
    if peers.is_empty() {
        return Err(FieldError::new("peers", "given: whom shall this member ask?").into());
    }
    app.cluster().join(&peers).await?;
    Ok(done("Joined as a learner; it gets a vote once it has caught up"))
}

/// `POST /api/v1/cluster/members/{id}/promote`.
pub(super) async fn promote(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let id = parse_member(&id)?;
    let report = app.cluster().promote(id).await?;
    Ok(changed(format!("Member {id} votes"), report))
}

/// `POST /api/v1/cluster/members/{id}/demote`.
pub(super) async fn demote(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let id = parse_member(&id)?;
    let report = app.cluster().demote(id).await?;
    Ok(changed(format!("Member {id} is a learner"), report))
}

/// `DELETE /api/v1/cluster/members/{id}`: for good; the number is never used again.
pub(super) async fn remove(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let id = parse_member(&id)?;
    let report = app.cluster().remove(id).await?;
    Ok(changed(format!("Member {id} removed"), report))
}

/// `POST /api/v1/cluster/transfer-leader`, to the member `to` or to the best suited one.
pub(super) async fn transfer_leader(
    State(app): State<App>,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let to = Object::parse(&body)?.text("to")?;
    let to = to.as_deref().map(parse_member).transpose()?;
    let report = app.cluster().transfer_leader(to).await?;
    Ok(changed("Leadership transferred".to_owned(), report))
}

/// `POST /api/v1/cluster/snapshot`: of the member that is asked.
pub(super) async fn snapshot(State(app): State<App>) -> Result<Response, ApiError> {
    app.cluster().snapshot().await?;
    Ok(done("Snapshot started"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_addresses() {
        assert_eq!(peers(b"").unwrap(), Vec::<String>::new());
        assert_eq!(peers(br#"{"peers":["a:1","[::1]:2"]}"#).unwrap(), ["a:1", "[::1]:2"]);
        for body in [r#"{"peers":["a"]}"#, r#"{"peers":["a:0"]}"#, r#"{"peers":"a:1"}"#] {
            assert_eq!(peers(body.as_bytes()).unwrap_err().code(), "INVALID_FIELD", "{body}");
        }
    }
}
