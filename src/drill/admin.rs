//! Talking to each member by itself, and to whichever serves.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::phases::ClockOffset;
use super::plan::{Facts, Plan};
use super::view::{Account, ClusterView, MemberView};
use crate::client::{Answer, Call, Client, ClientError, Options};
use crate::model::DrillState;

/// How long one member may take to answer; those that hang are asked in vain.
const MEMBER_DEADLINE: Duration = Duration::from_secs(5);
const MEMBER_TRY: Duration = Duration::from_secs(2);
/// A member asks its peers how they are with a short deadline and remembers the answer for half a
/// second. On a busy machine one may come too late, so who is missing is looked for again.
const LOOKS: usize = 4;
const LOOK_PAUSE: Duration = Duration::from_millis(600);

/// Every member by itself, and all of them.
#[derive(Debug, Clone)]
pub struct Admin {
    members: BTreeMap<u64, Client>,
    all: Client,
    urls: BTreeMap<u64, String>,
    options: Options,
}

/// What a first look found.
#[derive(Debug, Clone)]
pub struct Seen {
    /// How to reach it.
    pub admin: Admin,
    /// What is known before a drill.
    pub facts: Facts,
}

/// The drill that was begun.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begun {
    pub(super) drill_id: u64,
    /// Where the log says so.
    pub(super) index: u64,
}

fn parse<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, ClientError> {
    serde_json::from_value(value).map_err(|error| ClientError::Malformed(error.to_string()))
}

impl Admin {
    /// Asks the members of `options` who belongs to the cluster, and each of those what it allows.
    /// `ours` says that their processes are the caller's.
    ///
    /// # Errors
    /// [`ClientError`] when none of them answers.
    pub async fn look(options: &Options, ours: bool) -> Result<Seen, ClientError> {
        let one = |url: &str| {
            let urls = vec![url.to_owned()];
            let (deadline, try_timeout) = (MEMBER_DEADLINE, MEMBER_TRY);
            Client::new(&Options { urls, deadline, try_timeout, ..options.clone() })
        };
        let mut urls = BTreeMap::new();
        let mut first: Result<ClusterView, Option<ClientError>> = Err(None);
        for url in &options.urls {
            let call = Call::get("/api/v1/cluster").deadline(MEMBER_TRY);
            match one(url)?.call(call).await.and_then(|answer| parse::<ClusterView>(answer.body)) {
                Ok(view) => {
                    urls.insert(view.member_id, url.clone());
                    let better = first.as_ref().is_ok_and(|first| first.leader.is_some());
                    if !better {
                        first = Ok(view);
                    }
                }
                Err(error) => first = first.map_err(|_| Some(error)),
            }
        }
        let view = first.map_err(|error| {
            error.unwrap_or_else(|| ClientError::Setup("no member URL is given".to_owned()))
        })?;
        for member in view.members.iter().filter(|member| !member.http.is_empty()) {
            urls.entry(member.id).or_insert_with(|| format!("http://{}", member.http));
        }
        let mut members = BTreeMap::new();
        for (id, url) in &urls {
            members.insert(*id, one(url)?);
        }
        let all = Client::new(&Options {
            urls: urls.values().cloned().collect(),
            deadline: Duration::from_secs(20),
            try_timeout: Duration::from_secs(3),
            ..options.clone()
        })?;
        let admin = Self { members, all, urls, options: options.clone() };
        let view = admin.look_again(view).await;
        let accounts = admin.ids().into_iter().map(|id| {
            let admin = &admin;
            async move { (id, admin.account(id).await.map_err(|error| error.to_string())) }
        });
        let accounts = join_all(accounts).await.into_iter().collect();
        let facts = Facts { view, accounts, ours };
        Ok(Seen { admin, facts })
    }

    /// The newest view, taken again while somebody is missing in it.
    async fn look_again(&self, mut view: ClusterView) -> ClusterView {
        for _ in 1..LOOKS {
            if view.leader.is_some() && view.members.iter().all(MemberView::serves) {
                break;
            }
            tokio::time::sleep(LOOK_PAUSE).await;
            if let Ok(newer) = self.cluster().await {
                view = newer;
            }
        }
        view
    }

    /// Numbers of all members.
    #[must_use]
    pub fn ids(&self) -> Vec<u64> {
        self.members.keys().copied().collect()
    }

    /// Whichever member serves.
    #[must_use]
    pub fn all(&self) -> &Client {
        &self.all
    }

    /// A client that asks `first` and then the others.
    pub(super) fn starting_at(&self, first: u64) -> Result<Client, ClientError> {
        let (before, from): (Vec<_>, Vec<_>) = self.urls.iter().partition(|(id, _)| **id < first);
        let urls = from.into_iter().chain(before).map(|(_, url)| url.clone()).collect();
        // A member that hangs must not keep a probe for as long as the drill lasts.
        let try_timeout = Duration::from_secs(2);
        let deadline = Duration::from_secs(15);
        Client::new(&Options { urls, try_timeout, deadline, ..self.options.clone() })
    }

    /// Makes a call to one member.
    ///
    /// # Errors
    /// [`ClientError`], also when there is no such member.
    pub async fn call(&self, member: u64, call: Call) -> Result<Answer, ClientError> {
        match self.members.get(&member) {
            Some(client) => client.call(call).await,
            None => Err(ClientError::Setup(format!("member {member} has no address"))),
        }
    }

    /// What a member allows and saw.
    ///
    /// # Errors
    /// [`ClientError`] when it does not answer, or does not allow drills.
    pub async fn account(&self, member: u64) -> Result<Account, ClientError> {
        parse(self.call(member, Call::get("/api/v1/admin/drills")).await?.body)
    }

    /// The same, and how its clock stands to the time since `start`.
    pub(super) async fn account_and_clock(
        &self,
        member: u64,
        start: Instant,
    ) -> Result<(Account, ClockOffset), ClientError> {
        let asked = start.elapsed();
        let account = self.account(member).await?;
        let answered = start.elapsed();
        let middle = (asked + answered).as_secs_f64() * 500.0;
        let clock = ClockOffset {
            origin_ms: account.now_ms as f64 - middle,
            error_ms: (answered - asked).as_secs_f64() * 500.0,
        };
        Ok((account, clock))
    }

    /// The cluster, as whichever member serves sees it.
    ///
    /// # Errors
    /// [`ClientError`] when none answers.
    pub async fn cluster(&self) -> Result<ClusterView, ClientError> {
        let call = Call::get("/api/v1/cluster").deadline(Duration::from_secs(3));
        parse(self.all.call(call).await?.body)
    }

    pub(super) async fn begin(
        &self,
        plan: &Plan,
        started_by: &str,
        lease: Duration,
    ) -> Result<Begun, ClientError> {
        self.begin_as(plan.kind.as_str(), &plan.target, started_by, lease).await
    }

    pub(super) async fn begin_as(
        &self,
        kind: &str,
        target: &str,
        started_by: &str,
        lease: Duration,
    ) -> Result<Begun, ClientError> {
        let lease_ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        let body = json!({
            "kind": kind, "target": target, "started_by": started_by, "lease_ms": lease_ms,
        });
        let answer = self.all.call(Call::post("/api/v1/admin/drills", &body)).await?.body;
        let number = |name: &str| answer.get(name).and_then(Value::as_u64);
        match (number("drill_id"), number("index")) {
            (Some(drill_id), Some(index)) => Ok(Begun { drill_id, index }),
            _ => Err(ClientError::Malformed(format!("a drill without a number: {answer}"))),
        }
    }

    /// Ends a drill, with its report.
    ///
    /// # Errors
    /// [`ClientError`] when no member takes it.
    pub async fn end(
        &self,
        drill_id: u64,
        state: DrillState,
        summary: &str,
        report: &Value,
    ) -> Result<(), ClientError> {
        let body = json!({ "state": state.as_str(), "summary": summary, "report": report });
        let path = format!("/api/v1/admin/drills/{drill_id}/end");
        self.all.call(Call::post(path, &body)).await.map(drop)
    }

    /// Ends every fault of `drill_id`, or all, on every member that answers; gives how many there
    /// were on each.
    pub async fn heal(&self, drill_id: Option<u64>) -> BTreeMap<u64, Result<u64, ClientError>> {
        let query = drill_id.map_or_else(String::new, |id| format!("?drill_id={id}"));
        let heals = self.ids().into_iter().map(|id| {
            let call = Call::delete(format!("/api/v1/admin/faults{query}"));
            async move {
                let healed = self.call(id, call).await;
                let count = |answer: Answer| answer.body.get("healed").and_then(Value::as_u64);
                (id, healed.map(|answer| count(answer).unwrap_or(0)))
            }
        });
        join_all(heals).await.into_iter().collect()
    }

    /// Begins a drill in which a person breaks things by hand; gives its number and where the log
    /// says so.
    ///
    /// # Errors
    /// [`ClientError`] when no member takes it, or another drill is under way.
    pub async fn begin_chaos(
        &self,
        started_by: &str,
        lease: Duration,
    ) -> Result<(u64, u64), ClientError> {
        let begun = self.begin_as("chaos", "whoever is named", started_by, lease).await?;
        Ok((begun.drill_id, begun.index))
    }

    /// As [`Admin::call`], for what takes a member longer than the usual calls.
    pub(super) async fn call_patiently(
        &self,
        member: u64,
        call: Call,
    ) -> Result<Value, ClientError> {
        let Some(url) = self.urls.get(&member) else {
            return Err(ClientError::Setup(format!("member {member} has no address")));
        };
        let patient = Duration::from_secs(60);
        let options = Options {
            urls: vec![url.clone()],
            deadline: patient,
            try_timeout: patient,
            ..self.options.clone()
        };
        Client::new(&options)?.call(call).await.map(|answer| answer.body)
    }
}
