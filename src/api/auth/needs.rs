//! What every door asks for. A door that does not stand here is for administrators alone, and a
//! test walks the router to find it.

use axum::http::Method;

use crate::api::bots::at_both;
use crate::api::nanoos::under_prefixes;
use crate::security::{Action, Area, Permission, Role};

/// What a door asks of whoever comes, when authentication is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing.
    Open,
    /// To be somebody.
    Known,
    /// A permission.
    May(Permission),
    /// One of two.
    Either(Permission, Permission),
}

impl Need {
    /// Whether somebody of a role may do it.
    pub(super) fn is_met_by(self, role: Role) -> bool {
        match self {
            Self::Open | Self::Known => true,
            Self::May(permission) => role.may(permission),
            Self::Either(one, other) => role.may(one) || role.may(other),
        }
    }
}

const fn may(area: Area, action: Action) -> Need {
    Need::May(Permission(area, action))
}

const LOOK: Need = may(Area::Metrics, Action::Read);
const CONTROL: Need = may(Area::Orchestrator, Action::Control);
const OVERSEE: Need = may(Area::Orchestrator, Action::Read);
const MANAGE: Need = may(Area::Orchestrator, Action::Manage);
const CONFIG_READ: Need = may(Area::Config, Action::Read);
const CONFIG_WRITE: Need = may(Area::Config, Action::Write);
const NODES_READ: Need = may(Area::Nodes, Action::Read);
const NODES_UPDATE: Need = may(Area::Nodes, Action::Update);
const NODES_REMOVE: Need = may(Area::Nodes, Action::Remove);
const TASKS_READ: Need = may(Area::Tasks, Action::Read);
const TASKS_SUBMIT: Need = may(Area::Tasks, Action::Submit);
const TASKS_CANCEL: Need = may(Area::Tasks, Action::Cancel);
const TASKS_RECEIVE: Need = may(Area::Tasks, Action::Receive);
/// Of those who look after work, and those who do it.
const TASKS_SEEN: Need =
    Need::Either(Permission(Area::Tasks, Action::Read), Permission(Area::Tasks, Action::Receive));
const TASKS_UPDATE: Need = may(Area::Tasks, Action::Update);
const USERS: Need = may(Area::Users, Action::Manage);

/// The path of a router's last resort.
pub(in crate::api) const UNMATCHED: &str = "unmatched";

/// Method, path as the router has it, need. `HEAD` is `GET`; `OPTIONS` never comes here.
const DOORS: &[(&str, &str, Need)] = &[
    // Pages and probes say nothing that is worth hiding, and load balancers show no keys.
    ("GET", "/", Need::Open),
    ("GET", "/dashboard", Need::Open),
    ("GET", "/orchestrator", Need::Open),
    ("GET", "/livez", Need::Open),
    ("GET", "/healthz", Need::Open),
    ("GET", "/health/version", Need::Open),
    ("GET", "/health/db", Need::Open),
    ("GET", "/health/cache", Need::Open),
    ("GET", "/api/v1", Need::Open),
    ("GET", "/readyz", Need::Open),
    ("GET", "/health", Need::Open),
    ("GET", "/api/v1/health", Need::Open),
    ("GET", "/metrics", Need::Open),
    ("GET", "/api/v1/metrics/prometheus", Need::Open),
    ("GET", "/api/v1/auth/api-keys", USERS),
    ("POST", "/api/v1/auth/api-keys", USERS),
    ("DELETE", "/api/v1/auth/api-keys/{key}", USERS),
    ("GET", "/status", LOOK),
    ("GET", "/api/v1/status", LOOK),
    ("GET", "/api/v1/metrics", LOOK),
    ("GET", "/api/v1/metrics/performance", LOOK),
    ("GET", "/api/v1/websocket/info", LOOK),
    ("GET", "/ws", LOOK),
    ("GET", "/api/v1/events", LOOK),
    ("GET", "/api/v1/requests/{id}", TASKS_READ),
    ("GET", "/api/v1/config", CONFIG_READ),
    ("PUT", "/api/v1/config", CONFIG_WRITE),
    ("PUT", "/api/v1/config/{*path}", CONFIG_WRITE),
    ("GET", "/api/v1/dashboard/config", LOOK),
    ("GET", "/api/v1/dashboard/alerts", LOOK),
    ("GET", "/api/v1/dashboard/nodes/detailed", NODES_READ),
    ("GET", "/api/v1/dashboard/performance/history", LOOK),
    ("GET", "/api/v1/dashboard/tasks/queue", TASKS_READ),
    ("GET", "/api/v1/dashboard/system/info", LOOK),
    ("GET", "/api/v1/dashboard/export/{format}", NODES_READ),
    ("POST", "/api/v1/control/start", CONTROL),
    ("POST", "/api/v1/control/stop", CONTROL),
    ("POST", "/api/v1/control/restart", CONTROL),
    ("GET", "/api/v1/nodes", NODES_READ),
    ("GET", "/api/v1/nodes/{node_id}", NODES_READ),
    ("DELETE", "/api/v1/nodes/{node_id}", NODES_REMOVE),
    ("POST", "/api/v1/nodes/{node_id}/register", may(Area::Nodes, Action::Register)),
    ("POST", "/api/v1/nodes/{node_id}/heartbeat", may(Area::Nodes, Action::Heartbeat)),
    ("PUT", "/api/v1/nodes/{node_id}/status", NODES_UPDATE),
    ("GET", "/api/v1/agents", NODES_READ),
    ("POST", "/api/v1/agents/register", may(Area::Nodes, Action::Register)),
    ("GET", "/api/v1/agents/{*agent_id}", NODES_READ),
    ("GET", "/api/v1/tasks", TASKS_READ),
    ("POST", "/api/v1/tasks", TASKS_SUBMIT),
    ("POST", "/api/v1/tasks/batch", TASKS_SUBMIT),
    ("GET", "/api/v1/tasks/pending", TASKS_READ),
    ("GET", "/api/v1/tasks/active", TASKS_READ),
    ("GET", "/api/v1/tasks/completed", TASKS_READ),
    ("GET", "/api/v1/tasks/failed", TASKS_READ),
    ("GET", "/api/v1/tasks/{task_id}", TASKS_READ),
    ("DELETE", "/api/v1/tasks/{task_id}", TASKS_CANCEL),
    ("POST", "/api/v1/tasks/{task_id}", TASKS_UPDATE),
    ("POST", "/api/v1/tasks/{task_id}/result", TASKS_UPDATE),
    ("GET", "/api/v1/tasks/{task_id}/why", TASKS_READ),
    ("GET", "/api/v1/dead-letters", TASKS_READ),
    ("POST", "/api/v1/dead-letters/replay", TASKS_CANCEL),
    ("POST", "/api/v1/dead-letters/purge", TASKS_CANCEL),
    ("DELETE", "/api/v1/dead-letters/{task_id}", TASKS_CANCEL),
    ("POST", "/api/v1/dead-letters/{task_id}/replay", TASKS_CANCEL),
    ("GET", "/api/v1/pipelines", TASKS_READ),
    ("GET", "/api/v1/pipelines/{task_type}", TASKS_READ),
    ("PUT", "/api/v1/pipelines/{task_type}", CONFIG_WRITE),
    ("DELETE", "/api/v1/pipelines/{task_type}", CONFIG_WRITE),
    ("POST", "/api/v1/nodes/{node_id}/drain", NODES_REMOVE),
    ("GET", "/api/v1/alerts", LOOK),
    ("POST", "/api/v1/alerts/{alert_id}/acknowledge", CONTROL),
    ("POST", "/api/v1/alerts/{alert_id}/suppress", CONTROL),
    ("GET", "/api/v1/scaling/events", LOOK),
    ("GET", "/api/v1/deliveries", TASKS_READ),
    ("GET", "/api/v1/cluster", LOOK),
    ("POST", "/api/v1/cluster/init", MANAGE),
    ("POST", "/api/v1/cluster/join", MANAGE),
    ("POST", "/api/v1/cluster/snapshot", CONTROL),
    ("POST", "/api/v1/cluster/transfer-leader", CONTROL),
    ("DELETE", "/api/v1/cluster/members/{id}", MANAGE),
    ("POST", "/api/v1/cluster/members/{id}/promote", MANAGE),
    ("POST", "/api/v1/cluster/members/{id}/demote", MANAGE),
    ("GET", "/api/v1/backup", MANAGE),
    ("GET", "/api/v1/backups", OVERSEE),
    ("GET", "/api/v1/drills", OVERSEE),
    ("GET", "/api/v1/drills/{id}", OVERSEE),
    ("GET", "/api/v1/admin/drills", MANAGE),
    ("POST", "/api/v1/admin/drills", MANAGE),
    ("POST", "/api/v1/admin/drills/{id}/end", MANAGE),
    ("POST", "/api/v1/admin/faults", MANAGE),
    ("DELETE", "/api/v1/admin/faults", MANAGE),
    ("POST", "/api/v1/admin/stop", MANAGE),
    ("POST", "/api/v1/admin/rehearse", MANAGE),
];

/// As [`DOORS`], of family N, whose doors are served under three prefixes.
const CAMPAIGN_DOORS: &[(&str, [&str; 3], Need)] = &[
    ("POST", under_prefixes!("/auth/login"), Need::Open),
    ("POST", under_prefixes!("/auth/token"), Need::Open),
    ("POST", under_prefixes!("/auth/refresh"), Need::Open),
    ("POST", under_prefixes!("/auth/logout"), Need::Known),
    ("GET", under_prefixes!("/auth/me"), Need::Known),
    // The door asks by itself who may: the configuration can open it to everybody.
    ("POST", under_prefixes!("/auth/register"), Need::Open),
    ("GET", under_prefixes!("/auth/users"), USERS),
    ("PATCH", under_prefixes!("/auth/users/{user}"), USERS),
    ("DELETE", under_prefixes!("/auth/users/{user}"), USERS),
    ("GET", under_prefixes!("/orchestrator/state"), OVERSEE),
    ("POST", under_prefixes!("/orchestrator/config"), CONTROL),
    ("POST", under_prefixes!("/orchestrator/run_once"), CONTROL),
    ("GET", under_prefixes!("/orchestrator/runs"), OVERSEE),
    ("GET", under_prefixes!("/orchestrator/runs/{id}"), OVERSEE),
    ("GET", under_prefixes!("/orchestrator/stats"), OVERSEE),
    ("GET", under_prefixes!("/orchestrator/slots"), OVERSEE),
    ("POST", under_prefixes!("/orchestrator/activate"), CONTROL),
    ("POST", under_prefixes!("/orchestrator/deactivate"), CONTROL),
    ("GET", under_prefixes!("/campaigns"), TASKS_READ),
    ("POST", under_prefixes!("/campaigns"), TASKS_SUBMIT),
    ("GET", under_prefixes!("/campaigns/{id}"), TASKS_READ),
    ("PATCH", under_prefixes!("/campaigns/{id}"), TASKS_SUBMIT),
    ("DELETE", under_prefixes!("/campaigns/{id}"), TASKS_CANCEL),
    ("POST", under_prefixes!("/campaigns/{id}/start"), TASKS_SUBMIT),
    ("POST", under_prefixes!("/campaigns/{id}/pause"), TASKS_CANCEL),
    ("POST", under_prefixes!("/campaigns/{id}/resume"), TASKS_SUBMIT),
    ("POST", under_prefixes!("/campaigns/{id}/cancel"), TASKS_CANCEL),
    ("POST", under_prefixes!("/campaigns/{id}/step"), TASKS_SUBMIT),
    ("GET", under_prefixes!("/campaigns/{id}/iterations"), TASKS_READ),
    ("GET", under_prefixes!("/campaigns/{id}/iterations/{index}"), TASKS_READ),
    ("GET", under_prefixes!("/campaigns/{id}/summary"), TASKS_READ),
    // Upstream demands nothing for these two (contract 3.1).
    ("GET", under_prefixes!("/agent/summary"), Need::Open),
    ("GET", under_prefixes!("/agent/commands"), Need::Open),
    ("GET", under_prefixes!("/agent/commands/{id}"), TASKS_READ),
    ("POST", under_prefixes!("/agent/create_design_campaign"), TASKS_SUBMIT),
    ("POST", under_prefixes!("/agent/advance_campaign"), TASKS_SUBMIT),
    ("POST", under_prefixes!("/agent/request_simulations"), TASKS_SUBMIT),
    ("POST", under_prefixes!("/agent/request_experiments"), TASKS_SUBMIT),
    ("POST", under_prefixes!("/agent/campaigns/{id}/stop"), TASKS_CANCEL),
    ("GET", under_prefixes!("/agent/campaigns/{id}/log"), TASKS_READ),
    ("GET", under_prefixes!("/structures"), TASKS_READ),
    ("POST", under_prefixes!("/structures"), TASKS_SUBMIT),
    ("GET", under_prefixes!("/structures/{id}"), TASKS_READ),
    ("PUT", under_prefixes!("/structures/{id}"), TASKS_SUBMIT),
    ("DELETE", under_prefixes!("/structures/{id}"), TASKS_CANCEL),
    ("GET", under_prefixes!("/jobs"), TASKS_READ),
    ("POST", under_prefixes!("/jobs"), TASKS_SUBMIT),
    ("POST", under_prefixes!("/jobs/dft"), TASKS_SUBMIT),
    ("POST", under_prefixes!("/jobs/ml-prediction"), TASKS_SUBMIT),
    ("GET", under_prefixes!("/jobs/{id}"), TASKS_READ),
    ("GET", under_prefixes!("/jobs/{id}/status"), TASKS_READ),
    ("GET", under_prefixes!("/jobs/{id}/results"), TASKS_READ),
    ("GET", under_prefixes!("/experiments"), TASKS_READ),
    ("POST", under_prefixes!("/experiments"), TASKS_SUBMIT),
    ("GET", under_prefixes!("/experiments/{id}"), TASKS_READ),
    ("GET", under_prefixes!("/experiments/{id}/status"), TASKS_READ),
    ("GET", under_prefixes!("/experiments/{id}/results"), TASKS_READ),
    ("GET", under_prefixes!("/instruments"), TASKS_READ),
    ("POST", under_prefixes!("/instruments"), CONTROL),
    ("GET", under_prefixes!("/instruments/{id}"), TASKS_READ),
    ("DELETE", under_prefixes!("/instruments/{id}"), CONTROL),
    ("GET", under_prefixes!("/models"), TASKS_READ),
    ("GET", under_prefixes!("/models/{name}"), TASKS_READ),
    ("PUT", under_prefixes!("/models/{name}"), CONTROL),
    ("DELETE", under_prefixes!("/models/{name}"), CONTROL),
];

/// As [`DOORS`], of family B, whose doors are served at the root and under `/api/v1`. Whoever works
/// for bots is a node to this table: it receives work, and tells what came of it.
const BOT_DOORS: &[(&str, [&str; 2], Need)] = &[
    ("GET", at_both!("/bots"), TASKS_READ),
    ("POST", at_both!("/bots"), TASKS_SUBMIT),
    ("GET", at_both!("/bots/stats"), TASKS_READ),
    ("GET", at_both!("/bots/{id}"), TASKS_READ),
    ("DELETE", at_both!("/bots/{id}"), TASKS_CANCEL),
    ("GET", at_both!("/bots/{id}/health"), TASKS_SEEN),
    ("GET", at_both!("/bots/{id}/tasks"), TASKS_SEEN),
    ("POST", at_both!("/bots/{id}/tasks"), TASKS_SUBMIT),
    ("POST", at_both!("/bots/{id}/tasks/{task}/complete"), TASKS_UPDATE),
    ("POST", at_both!("/bots/{id}/tasks/lease"), TASKS_RECEIVE),
    ("GET", at_both!("/swarms"), TASKS_READ),
    ("POST", at_both!("/swarms"), TASKS_SUBMIT),
    ("GET", at_both!("/swarms/{id}"), TASKS_READ),
    // Fewer bots are as much of a loss as a swarm that is removed.
    ("PATCH", at_both!("/swarms/{id}"), TASKS_CANCEL),
    ("DELETE", at_both!("/swarms/{id}"), TASKS_CANCEL),
    ("GET", at_both!("/swarms/{id}/health"), TASKS_SEEN),
    ("POST", at_both!("/swarms/{id}/tasks"), TASKS_SUBMIT),
    ("POST", at_both!("/swarms/{id}/tasks/lease"), TASKS_RECEIVE),
    ("POST", at_both!("/bots/leases"), TASKS_RECEIVE),
    ("POST", at_both!("/bots/leases/renew"), TASKS_UPDATE),
    ("POST", at_both!("/bots/leases/release"), TASKS_UPDATE),
    ("POST", at_both!("/assignments/complete"), TASKS_UPDATE),
    ("POST", at_both!("/assignments/fail"), TASKS_UPDATE),
    ("POST", at_both!("/orchestrate"), TASKS_SUBMIT),
    ("GET", at_both!("/workflows"), TASKS_READ),
    ("GET", at_both!("/workflows/{id}"), TASKS_READ),
    ("DELETE", at_both!("/workflows/{id}"), TASKS_CANCEL),
    ("GET", at_both!("/services"), TASKS_READ),
    ("GET", at_both!("/task/{id}"), TASKS_READ),
];

const METHODS: [Method; 5] =
    [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::PATCH];

/// What one route asks for, by method; looked up when the router is built.
#[derive(Debug, Clone, Copy)]
pub(in crate::api) struct Needs([Need; METHODS.len()]);

impl Needs {
    pub(in crate::api) fn of(path: &str) -> Self {
        // Nothing is served there, so there is nothing to ask for.
        let otherwise = if path == UNMATCHED { Need::Open } else { MANAGE };
        Self(METHODS.map(|method| listed(method.as_str(), path).unwrap_or(otherwise)))
    }

    pub(in crate::api) fn of_method(self, method: &Method) -> Need {
        let method = if method == Method::HEAD { &Method::GET } else { method };
        let place = METHODS.iter().position(|known| known == method);
        // A method that no route serves is told so like any other mistake.
        place.map_or(MANAGE, |place| self.0[place])
    }
}

/// Method and path of every door.
#[cfg(test)]
pub(in crate::api) fn doors() -> impl Iterator<Item = (&'static str, &'static str)> {
    all().map(|(method, path, _)| (method, path))
}

fn all() -> impl Iterator<Item = (&'static str, &'static str, Need)> {
    let campaigns = CAMPAIGN_DOORS
        .iter()
        .flat_map(|(method, paths, need)| paths.iter().map(|path| (*method, *path, *need)));
    let bots = BOT_DOORS
        .iter()
        .flat_map(|(method, paths, need)| paths.iter().map(|path| (*method, *path, *need)));
    DOORS.iter().copied().chain(campaigns).chain(bots)
}

pub(in crate::api) fn listed(method: &str, path: &str) -> Option<Need> {
    let found = all().find(|(its, at, _)| *its == method && *at == path);
    found.map(|(_, _, need)| need)
}
