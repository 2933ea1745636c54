//! What members say of themselves, asked over their public API.

use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use super::World;

/// Longest time for one question.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(400);
const CONNECT: Duration = Duration::from_millis(200);

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Own {
    pub id: u64,
    pub state: String,
    pub role: String,
    pub term: u64,
    pub applied: u64,
    pub digest: String,
    pub leader: Option<u64>,
    pub voters: usize,
    /// Voters that may be lost from now on, as it sees it.
    pub tolerance: usize,
    pub changing: bool,
    pub ended: Option<String>,
}

pub(super) fn client() -> anyhow::Result<reqwest::Client> {
    // No connection outlives its question: after a partition an old one may hang for long.
    let builder = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0);
    builder.connect_timeout(CONNECT).build().context("a client for questions")
}

impl World {
    /// The answer of a member, if it gives one in time.
    pub(crate) async fn get(&self, place: usize, path: &str) -> Option<(u16, Value)> {
        let url = format!("{}{path}", self.url(place));
        let reply = self.http.get(url).timeout(TIMEOUT).send().await.ok()?;
        let status = reply.status().as_u16();
        Some((status, reply.json().await.unwrap_or_default()))
    }

    /// Sends a request that changes something, and waits longer for it.
    pub(crate) async fn send(
        &self,
        method: reqwest::Method,
        place: usize,
        path: &str,
        body: &Value,
        timeout: Duration,
    ) -> anyhow::Result<(u16, Value)> {
        let url = format!("{}{path}", self.url(place));
        let reply = self.http.request(method, url).json(body).timeout(timeout).send().await?;
        let status = reply.status().as_u16();
        Ok((status, reply.json().await.unwrap_or_default()))
    }

    /// What a member says of itself now.
    pub(crate) async fn own(&self, place: usize) -> Option<Own> {
        let (_, status) = self.get(place, "/api/v1/cluster").await?;
        parse(&status)
    }

    /// Who leads: of those that say so of themselves, the one of the highest term.
    pub(crate) async fn leader(&self) -> Option<usize> {
        let owns = futures::future::join_all(self.places().map(|place| self.own(place))).await;
        let leaders = owns.into_iter().enumerate().filter_map(|(place, own)| {
            let own = own.filter(|own| own.state == "leader")?;
            Some((own.term, place))
        });
        leaders.max().map(|(_, place)| place)
    }

    /// Whether a member says that it leads, by the headers of an answer that asks nobody else.
    pub(crate) async fn leads(&self, place: usize) -> bool {
        let url = format!("{}/api/v1/config?consistency=local", self.url(place));
        let Ok(reply) = self.http.get(url).timeout(TIMEOUT).send().await else { return false };
        let header = |name| reply.headers().get(name);
        let leader = header("x-quorate-leader");
        leader.is_some() && leader == header("x-quorate-member")
    }

    /// As [`Self::leader`], asked again until somebody leads.
    pub(crate) async fn await_leader(&self, patience: Duration) -> anyhow::Result<usize> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            if let Some(place) = self.leader().await {
                return Ok(place);
            }
            anyhow::ensure!(tokio::time::Instant::now() < deadline, "nobody leads");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// How far a member's wall clock is from ours, in seconds, by the date of its answers.
    pub(crate) async fn clock_offset(&self, place: usize) -> Option<f64> {
        let url = format!("{}/no/such/path", self.url(place));
        let reply = self.http.get(url).timeout(TIMEOUT).send().await.ok()?;
        let problem: Value = reply.json().await.ok()?;
        let theirs = iso_seconds(problem["timestamp"].as_str()?)?;
        let ours = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok()?;
        Some(theirs - ours.as_secs_f64())
    }
}

fn parse(status: &Value) -> Option<Own> {
    let id = status["member_id"].as_u64()?;
    let rows = status["members"].as_array()?;
    let row = rows.iter().find(|row| row["id"] == id)?;
    let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
    Some(Own {
        id,
        state: text("state"),
        role: text("role"),
        term: status["term"].as_u64()?,
        applied: row["applied"].as_u64()?,
        digest: text("digest"),
        leader: status["leader"].as_u64(),
        voters: rows.iter().filter(|row| row["role"] == "voter").count(),
        tolerance: status["failure_tolerance"].as_u64().and_then(|n| n.try_into().ok())?,
        changing: status["changing"].as_bool().unwrap_or(false),
        ended: status["ended"].as_str().map(str::to_owned),
    })
}

/// Seconds since the epoch of `2026-11-21T07:00:00.000Z`.
fn iso_seconds(text: &str) -> Option<f64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let numbers = |text: &str, by: char| -> Option<Vec<f64>> {
        text.split(by).map(|part| part.parse().ok()).collect()
    };
    let (date, time) = (numbers(date, '-')?, numbers(time, ':')?);
    let [year, month, day] = <[f64; 3]>::try_from(date).ok()?;
    let [hours, minutes, seconds] = <[f64; 3]>::try_from(time).ok()?;
    let days = days_from_civil(year as i64, month as i64, day as i64);
    Some(days as f64 * 86_400.0 + hours * 3600.0 + minutes * 60.0 + seconds)
}

/// Days since the epoch of a date of the Gregorian calendar: years begin in March, so that the leap
/// day is a year's last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_answers_are_read() {
        assert_eq!(iso_seconds("1970-01-01T00:00:00.000Z"), Some(0.0));
        assert_eq!(iso_seconds("2026-11-21T07:00:00.250Z"), Some(1_795_244_400.25));
        assert_eq!(iso_seconds("2024-02-29T00:00:01.000Z"), Some(1_709_164_801.0));
        assert_eq!(iso_seconds("yesterday"), None);
    }

    #[test]
    fn a_member_is_found_in_its_own_report() {
        let status = serde_json::json!({
            "member_id": 2, "leader": 1, "term": 3, "changing": false, "ended": null,
            "failure_tolerance": 1, "members": [
                { "id": 1, "role": "voter", "state": "leader", "applied": 9, "digest": "a" },
                { "id": 2, "role": "voter", "state": "follower", "applied": 8, "digest": "b" },
            ],
        });
        let own = parse(&status).unwrap();
        assert_eq!((own.id, own.state.as_str(), own.voters), (2, "follower", 2));
        assert_eq!((own.applied, own.term, own.leader), (8, 3, Some(1)));
        assert_eq!(own.tolerance, 1);
        assert_eq!(parse(&serde_json::json!({ "member_id": 0, "members": [] })), None);
    }
}
