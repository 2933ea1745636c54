//! One function builds the router; every listener serves it and tests call it.

use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, delete, get, post, put};

use super::agents::{pipelines, registry};
use super::around::{Route, around};
use super::auth::{Needs, UNMATCHED, accounts, keys, login, sessions};
use super::bots::batches::{self, Batch};
use super::bots::shape::WAIT_MAX;
use super::bots::{
    assignments, at_both, health as bot_health, leases, orchestrate, single, swarms, task,
    workflows,
};
use super::error::ApiError;
use super::nanoos::job_parse::Asked;
use super::nanoos::{
    agent, agent_summary, campaigns, instruments, jobs, orchestrators, shape, slots, structures,
    under_prefixes,
};
use super::pages::{self, Front};
use super::ticket::bare;
use super::web4ai::{
    agent_list, agents, beats, control, dashboard, dead_letters, deliveries, drain, lists,
    node_list, nodes, notices, performance, status, tasks, why,
};
use super::{
    App, admin, backup_doors, cluster_doors, config_doc, drills, events, health, probes,
    prometheus, requests, websocket,
};
use crate::state::CampaignMove;

/// Where every HTTP listener serves the WebSocket.
const WEBSOCKET: &str = "/ws";

/// Adds routes, each behind the one layer of [`around`] with counters of its own.
struct Builder {
    app: App,
    router: Router<App>,
}

impl Builder {
    fn route(self, path: &'static str, doors: MethodRouter<App>) -> Self {
        self.add(path, doors, false)
    }

    /// As [`Self::route`], for doors that are served however busy the member is.
    fn always(self, path: &'static str, doors: MethodRouter<App>) -> Self {
        self.add(path, doors, true)
    }

    fn add(self, path: &'static str, doors: MethodRouter<App>, always: bool) -> Self {
        let doors = self.guarded(path, doors, always);
        let Self { app, router } = self;
        Self { app, router: router.route(path, doors) }
    }

    /// As [`Self::route`], for doors of family N, whose errors have a shape of their own.
    fn nanoos<const N: usize>(self, paths: [&'static str; N], doors: &MethodRouter<App>) -> Self {
        paths.into_iter().fold(self, |builder, path| {
            let Self { app, router } = builder;
            let route = Route { is_nanoos: true, ..Self::of_route(&app, path, false) };
            let doors = doors.clone().fallback(wrong_method);
            let doors = doors.layer(from_fn_with_state(route, around));
            Self { app, router: router.route(path, doors.layer(map_response(shape::reshaped))) }
        })
    }

    /// As [`Self::route`], for doors of family B, which are at the root and under `/api/v1`.
    fn bots(self, paths: [&'static str; 2], doors: &MethodRouter<App>) -> Self {
        self.patient(paths, doors, Duration::ZERO)
    }

    /// As [`Self::bots`], for doors that may wait so long beside the time that any has.
    fn patient(self, paths: [&'static str; 2], doors: &MethodRouter<App>, waits: Duration) -> Self {
        paths.into_iter().fold(self, |Self { app, router }, path| {
            let route = Route { waits, ..Self::of_route(&app, path, false) };
            let doors = doors.clone().fallback(wrong_method);
            let router = router.route(path, doors.layer(from_fn_with_state(route, around)));
            Self { app, router }
        })
    }

    fn guarded(
        &self,
        path: &'static str,
        doors: MethodRouter<App>,
        always: bool,
    ) -> MethodRouter<App> {
        let route = Self::of_route(&self.app, path, always);
        doors.fallback(wrong_method).layer(from_fn_with_state(route, around))
    }

    fn of_route(app: &App, path: &'static str, always: bool) -> Route {
        Route {
            app: app.clone(),
            stats: app.stats().route(path),
            always,
            needs: Needs::of(path),
            takes_query: path == WEBSOCKET,
            waits: Duration::ZERO,
            is_nanoos: false,
            takes_passwords: path.contains("/auth/"),
        }
    }
}

async fn wrong_method(request: Request) -> ApiError {
    let text = format!("{} is not served here", request.method());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", text)
}

async fn no_route(request: Request) -> Response {
    let path = request.uri().path();
    let text = format!("nothing is served at {path}");
    let response = ApiError::not_found("ROUTE_NOT_FOUND", text).into_response();
    if is_of_nanoos(path) { shape::reshaped(response).await } else { response }
}

/// Whether a path is below one of family N's, under any of its prefixes (contract 3.1): errors have
/// its shape there, whatever is asked for.
fn is_of_nanoos(path: &str) -> bool {
    const ROOMS: [&str; 8] = [
        "orchestrator",
        "agent",
        "campaigns",
        "structures",
        "jobs",
        "experiments",
        "instruments",
        "models",
    ];
    let room = bare(path).trim_start_matches('/').split('/').next().unwrap_or_default();
    ROOMS.contains(&room)
}

/// The router of every HTTP listener; `/` tells those who do not say what they read of what serves
/// here.
pub fn router(app: App) -> Router {
    router_with(app, Front::Info)
}

/// As [`router()`], with what `/` answers those who do not say what they read.
pub fn router_with(app: App, front: Front) -> Router {
    let builder = Builder { app, router: Router::new() };
    let builder = common_routes(page_routes(builder, front));
    let builder = builder.route(WEBSOCKET, get(websocket::connect));
    let builder = auth_routes(task_routes(node_routes(builder)));
    let builder = laboratory_routes(agent_routes(campaign_routes(builder)));
    let builder = workflow_routes(assignment_routes(bot_routes(builder)));
    finish(dashboard_routes(admin_routes(cluster_routes(builder))))
}

/// The router of a listener for the WebSocket alone: it is at `/` too, where family W's clients
/// look for it (contract 2.4).
pub fn websocket_router(app: App) -> Router {
    let doors = || get(websocket::connect);
    let builder = Builder { app, router: Router::new() };
    let Builder { app, router } = builder.route(WEBSOCKET, doors());
    let at_root = Route {
        app: app.clone(),
        stats: app.stats().route("/ (websocket)"),
        always: false,
        needs: Needs::of(WEBSOCKET),
        takes_query: true,
        waits: Duration::ZERO,
        is_nanoos: false,
        takes_passwords: false,
    };
    let doors = doors().fallback(wrong_method).layer(from_fn_with_state(at_root, around));
    finish(Builder { app, router: router.route("/", doors) })
}

/// Adds the last resort. It stands behind the same layer: preflight requests are answered on any
/// path.
fn finish(Builder { app, router }: Builder) -> Router {
    let route = Route {
        app: app.clone(),
        stats: app.stats().route(UNMATCHED),
        always: false,
        needs: Needs::of(UNMATCHED),
        takes_query: false,
        waits: Duration::ZERO,
        is_nanoos: false,
        takes_passwords: false,
    };
    let fallback = axum::routing::any(no_route).layer(from_fn_with_state(route, around));
    router.fallback_service(fallback.with_state(app.clone())).with_state(app)
}

/// Pages are served however busy the member is: they say so, and hold nothing else.
fn page_routes(builder: Builder, front: Front) -> Builder {
    let root = move |app: State<App>, headers: HeaderMap| pages::root(app, headers, front);
    builder
        .always("/", get(root))
        .always("/dashboard", get(pages::dashboard))
        .always("/orchestrator", get(pages::orchestrator))
}

fn common_routes(builder: Builder) -> Builder {
    builder
        .always("/livez", get(probes::livez))
        .always("/healthz", get(probes::livez))
        .always("/readyz", get(probes::readyz))
        .always("/health", get(probes::health))
        .always("/health/version", get(health::version))
        .always("/health/db", get(health::database))
        .always("/health/cache", get(health::cache))
        .always("/api/v1", get(health::index))
        .always("/api/v1/health", get(probes::web4ai_health))
        .always("/metrics", get(prometheus::metrics))
        .always("/api/v1/metrics/prometheus", get(prometheus::metrics))
        .route("/status", get(status::status))
        .route("/api/v1/status", get(status::status))
        .route("/api/v1/metrics", get(status::metrics))
        .route("/api/v1/metrics/performance", get(performance::performance))
        .route("/api/v1/config", get(config_doc::get).put(config_doc::put))
        .route("/api/v1/config/{*path}", put(config_doc::put_key))
        .route("/api/v1/websocket/info", get(websocket::info))
        .route("/api/v1/events", get(events::events))
        .route("/api/v1/requests/{id}", get(requests::get))
        .route("/api/v1/control/start", post(control::start))
        .route("/api/v1/control/stop", post(control::stop))
        .route("/api/v1/control/restart", post(control::restart))
        .route("/api/v1/alerts", get(notices::alerts))
        .route("/api/v1/alerts/{alert_id}/acknowledge", post(notices::acknowledge))
        .route("/api/v1/alerts/{alert_id}/suppress", post(notices::suppress))
        .route("/api/v1/scaling/events", get(notices::scalings))
        .route("/api/v1/deliveries", get(deliveries::deliveries))
}

fn auth_routes(builder: Builder) -> Builder {
    builder
        .route("/api/v1/auth/login", post(login::login))
        .route("/api/v1/auth/refresh", post(sessions::refresh))
        .route("/api/v1/auth/logout", post(sessions::logout))
        // Family N alone; where both have a door, its errors are those of family W (contract C7).
        .nanoos(["/auth/login", "/api/auth/login"], &post(login::login))
        .nanoos(["/auth/refresh", "/api/auth/refresh"], &post(sessions::refresh))
        .nanoos(["/auth/logout", "/api/auth/logout"], &post(sessions::logout_silently))
        .nanoos(under_prefixes!("/auth/token"), &post(login::token))
        .nanoos(under_prefixes!("/auth/me"), &get(accounts::me))
        .nanoos(under_prefixes!("/auth/register"), &post(accounts::register))
        .nanoos(under_prefixes!("/auth/users"), &get(accounts::list))
        .nanoos(
            under_prefixes!("/auth/users/{user}"),
            &axum::routing::patch(accounts::change).delete(accounts::remove),
        )
        .route("/api/v1/auth/api-keys", get(keys::list).post(keys::create))
        .route("/api/v1/auth/api-keys/{key}", delete(keys::remove))
}

/// Each under the three prefixes that family N's clients use (contract 3.1).
fn campaign_routes(builder: Builder) -> Builder {
    builder
        .nanoos(under_prefixes!("/orchestrator/state"), &get(orchestrators::state))
        .nanoos(under_prefixes!("/orchestrator/config"), &post(orchestrators::set_config))
        .nanoos(under_prefixes!("/orchestrator/run_once"), &post(orchestrators::run_once))
        .nanoos(under_prefixes!("/orchestrator/runs"), &get(orchestrators::runs))
        .nanoos(under_prefixes!("/orchestrator/runs/{id}"), &get(orchestrators::run))
        .nanoos(under_prefixes!("/orchestrator/stats"), &get(orchestrators::stats))
        .nanoos(under_prefixes!("/orchestrator/slots"), &get(slots::list))
        .nanoos(under_prefixes!("/orchestrator/activate"), &orchestrators::switching(true))
        .nanoos(under_prefixes!("/orchestrator/deactivate"), &orchestrators::switching(false))
        .nanoos(under_prefixes!("/campaigns"), &get(campaigns::list).post(campaigns::create))
        .nanoos(
            under_prefixes!("/campaigns/{id}"),
            &get(campaigns::get).patch(campaigns::patch).delete(campaigns::remove),
        )
        .nanoos(under_prefixes!("/campaigns/{id}/start"), &campaigns::moving(CampaignMove::Start))
        .nanoos(under_prefixes!("/campaigns/{id}/pause"), &campaigns::moving(CampaignMove::Pause))
        .nanoos(under_prefixes!("/campaigns/{id}/resume"), &campaigns::moving(CampaignMove::Resume))
        .nanoos(under_prefixes!("/campaigns/{id}/cancel"), &campaigns::moving(CampaignMove::Cancel))
        .nanoos(under_prefixes!("/campaigns/{id}/step"), &post(campaigns::step))
        .nanoos(under_prefixes!("/campaigns/{id}/iterations"), &get(campaigns::iterations))
        .nanoos(under_prefixes!("/campaigns/{id}/iterations/{index}"), &get(campaigns::iteration))
        .nanoos(under_prefixes!("/campaigns/{id}/summary"), &get(campaigns::summary))
}

fn agent_routes(builder: Builder) -> Builder {
    builder
        .nanoos(under_prefixes!("/agent/summary"), &get(agent_summary::summary))
        .nanoos(
            under_prefixes!("/agent/create_design_campaign"),
            &post(agent::create_design_campaign),
        )
        .nanoos(under_prefixes!("/agent/advance_campaign"), &post(agent::advance_campaign))
        .nanoos(under_prefixes!("/agent/request_simulations"), &post(agent::request_simulations))
        .nanoos(under_prefixes!("/agent/request_experiments"), &post(agent::request_experiments))
        .nanoos(under_prefixes!("/agent/commands"), &get(agent::commands))
        .nanoos(under_prefixes!("/agent/commands/{id}"), &get(agent::command))
        .nanoos(under_prefixes!("/agent/campaigns/{id}/stop"), &post(agent::stop_campaign))
        .nanoos(under_prefixes!("/agent/campaigns/{id}/log"), &get(campaigns::log))
}

/// What campaigns try and measure.
fn laboratory_routes(builder: Builder) -> Builder {
    let (simulations, experiments) = (Asked::Simulations, Asked::Experiments);
    builder
        .nanoos(under_prefixes!("/structures"), &get(structures::list).post(structures::create))
        .nanoos(
            under_prefixes!("/structures/{id}"),
            &get(structures::get).put(structures::update).delete(structures::remove),
        )
        .nanoos(under_prefixes!("/jobs"), &jobs::listing(simulations).merge(jobs::creating(None)))
        .nanoos(under_prefixes!("/jobs/dft"), &jobs::creating(Some("dft")))
        .nanoos(under_prefixes!("/jobs/ml-prediction"), &jobs::creating(Some("ml_prediction")))
        .nanoos(under_prefixes!("/jobs/{id}"), &jobs::getting(simulations))
        .nanoos(under_prefixes!("/jobs/{id}/status"), &jobs::status(simulations))
        .nanoos(under_prefixes!("/jobs/{id}/results"), &jobs::results(simulations))
        .nanoos(
            under_prefixes!("/experiments"),
            &jobs::listing(experiments).post(jobs::create_experiment),
        )
        .nanoos(under_prefixes!("/experiments/{id}"), &jobs::getting(experiments))
        .nanoos(under_prefixes!("/experiments/{id}/status"), &jobs::status(experiments))
        .nanoos(under_prefixes!("/experiments/{id}/results"), &jobs::results(experiments))
        .nanoos(under_prefixes!("/instruments"), &get(instruments::list).post(instruments::create))
        .nanoos(
            under_prefixes!("/instruments/{id}"),
            &get(instruments::get).delete(instruments::remove),
        )
        .nanoos(under_prefixes!("/models"), &get(instruments::models))
        .nanoos(
            under_prefixes!("/models/{name}"),
            &get(instruments::model).put(instruments::put_model).delete(instruments::remove_model),
        )
}

/// The aliases that the gateway of family B has (contract 5.6) answer 200 where the family says 201.
fn bot_routes(builder: Builder) -> Builder {
    let (made, done) = (StatusCode::CREATED, StatusCode::OK);
    builder
        .route("/bots", single::creating(made).get(single::list))
        .route("/api/v1/bots", single::creating(done).get(single::list))
        .bots(at_both!("/bots/stats"), &get(single::stats))
        .bots(at_both!("/bots/{id}"), &get(single::get).delete(single::remove))
        .bots(at_both!("/bots/{id}/health"), &get(bot_health::of_bot))
        .route("/swarms", swarms::creating(made).get(swarms::list))
        .route("/api/v1/swarms", swarms::creating(done).get(swarms::list))
        .bots(
            at_both!("/swarms/{id}"),
            &get(swarms::get).patch(swarms::scale).delete(swarms::remove),
        )
        .bots(at_both!("/swarms/{id}/health"), &get(bot_health::of_swarm))
}

fn assignment_routes(builder: Builder) -> Builder {
    let waits = WAIT_MAX;
    let of_bot = get(assignments::list).post(assignments::assign);
    builder
        .patient(at_both!("/bots/{id}/tasks"), &of_bot, waits)
        .bots(at_both!("/bots/{id}/tasks/{task}/complete"), &post(assignments::complete))
        .patient(at_both!("/bots/{id}/tasks/lease"), &leases::leasing_of_bot(), waits)
        .bots(at_both!("/swarms/{id}/tasks"), &post(assignments::assign_swarm))
        .patient(at_both!("/swarms/{id}/tasks/lease"), &leases::leasing_of_swarm(), waits)
        .patient(at_both!("/bots/leases"), &post(leases::lease), waits)
        .bots(at_both!("/bots/leases/renew"), &batches::judging(Batch::Renew))
        .bots(at_both!("/bots/leases/release"), &batches::judging(Batch::Release))
        .bots(at_both!("/assignments/complete"), &batches::judging(Batch::Complete))
        .bots(at_both!("/assignments/fail"), &batches::judging(Batch::Fail))
}

fn workflow_routes(builder: Builder) -> Builder {
    let orchestrating = orchestrate::orchestrating();
    builder
        .patient(at_both!("/orchestrate"), &orchestrating, orchestrate::WORKFLOW_WAIT_MAX)
        .bots(at_both!("/workflows"), &get(workflows::list))
        .bots(at_both!("/workflows/{id}"), &get(workflows::get).delete(workflows::cancel))
        .bots(at_both!("/services"), &get(workflows::services))
        .bots(at_both!("/task/{id}"), &get(task::get))
}

fn node_routes(builder: Builder) -> Builder {
    builder
        .route("/api/v1/nodes", get(node_list::list))
        .route("/api/v1/nodes/{node_id}", get(nodes::get).delete(nodes::remove))
        .route("/api/v1/nodes/{node_id}/register", post(nodes::register))
        .route("/api/v1/nodes/{node_id}/heartbeat", post(beats::heartbeat))
        .route("/api/v1/nodes/{node_id}/status", put(nodes::set_status))
        .route("/api/v1/nodes/{node_id}/drain", post(drain::drain))
        .route("/api/v1/agents", get(agent_list::list))
        .route("/api/v1/agents/register", post(registry::register))
        .route("/api/v1/agents/{*agent_id}", get(agents::agent))
}

fn task_routes(builder: Builder) -> Builder {
    builder
        .route("/api/v1/tasks", get(lists::list).post(tasks::submit))
        .route("/api/v1/tasks/batch", post(tasks::submit_batch))
        .route("/api/v1/tasks/pending", get(lists::bucket))
        .route("/api/v1/tasks/active", get(lists::bucket))
        .route("/api/v1/tasks/completed", get(lists::bucket))
        .route("/api/v1/tasks/failed", get(lists::bucket))
        .route(
            "/api/v1/tasks/{task_id}",
            get(tasks::get).delete(tasks::cancel).post(tasks::report_copy),
        )
        .route("/api/v1/tasks/{task_id}/result", post(tasks::report_result))
        .route("/api/v1/tasks/{task_id}/why", get(why::why))
        .route("/api/v1/dead-letters", get(dead_letters::list))
        .route("/api/v1/dead-letters/replay", post(dead_letters::replay))
        .route("/api/v1/dead-letters/purge", post(dead_letters::purge))
        .route("/api/v1/dead-letters/{task_id}", delete(dead_letters::purge_one))
        .route("/api/v1/dead-letters/{task_id}/replay", post(dead_letters::replay_one))
        .route("/api/v1/pipelines", get(pipelines::list))
        .route(
            "/api/v1/pipelines/{task_type}",
            get(pipelines::get).put(pipelines::put).delete(pipelines::remove),
        )
}

fn dashboard_routes(builder: Builder) -> Builder {
    builder
        .route("/api/v1/dashboard/config", get(dashboard::config::config))
        .route("/api/v1/dashboard/alerts", get(dashboard::alerts::alerts))
        .route("/api/v1/dashboard/nodes/detailed", get(dashboard::nodes::nodes))
        .route("/api/v1/dashboard/performance/history", get(dashboard::history::history))
        .route("/api/v1/dashboard/tasks/queue", get(dashboard::queue::queue))
        .route("/api/v1/dashboard/system/info", get(dashboard::system::info))
        .route("/api/v1/dashboard/export/{format}", get(dashboard::export::export))
}

/// Served always: whoever broke a member must be able to mend it.
fn admin_routes(builder: Builder) -> Builder {
    builder
        .always("/api/v1/admin/drills", get(admin::account).post(admin::begin))
        .always("/api/v1/admin/drills/{id}/end", post(admin::end))
        .always("/api/v1/admin/faults", post(admin::cause).delete(admin::heal))
        .always("/api/v1/admin/stop", post(admin::stop))
        .always("/api/v1/admin/rehearse", post(admin::rehearse))
        .route("/api/v1/drills", get(drills::list))
        .route("/api/v1/drills/{id}", get(drills::get))
}

fn cluster_routes(builder: Builder) -> Builder {
    builder
        .always("/api/v1/cluster", get(cluster_doors::status))
        .route("/api/v1/cluster/init", post(cluster_doors::init))
        .route("/api/v1/cluster/join", post(cluster_doors::join))
        .route("/api/v1/cluster/snapshot", post(cluster_doors::snapshot))
        .route("/api/v1/backup", get(backup_doors::create))
        .route("/api/v1/backups", get(backup_doors::list))
        .route("/api/v1/cluster/transfer-leader", post(cluster_doors::transfer_leader))
        .route("/api/v1/cluster/members/{id}", delete(cluster_doors::remove))
        .route("/api/v1/cluster/members/{id}/promote", post(cluster_doors::promote))
        .route("/api/v1/cluster/members/{id}/demote", post(cluster_doors::demote))
}
