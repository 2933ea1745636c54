//! `GET /api/v1/dashboard/system/info`: the orchestrator and the machine of the member that answers.

use std::path::Path;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use sysinfo::{Disks, System};

use crate::api::App;
use crate::api::error::ApiError;
use crate::api::reply;

/// Family W's program version, which its clients print.
const FAMILY_VERSION: &str = "1.0.0";

#[derive(Serialize)]
struct Reply {
    success: bool,
    system_info: SystemInfo,
}

#[derive(Serialize)]
struct SystemInfo {
    orchestrator: Orchestrator,
    system: Machine,
    resources: Resources,
}

#[derive(Serialize)]
struct Orchestrator {
    id: String,
    version: &'static str,
    quorate_version: &'static str,
    /// Seconds.
    uptime: f64,
    running: bool,
    member_id: u64,
}

#[derive(Debug, Default, Serialize)]
struct Machine {
    platform: String,
    platform_version: Option<String>,
    /// There is none: this is no Python program. The key stays for pages that print it.
    python_version: Option<String>,
    cpu_count: usize,
    /// Bytes.
    memory_total: u64,
    /// Bytes, of the disk that holds the data.
    disk_total: u64,
    hostname: Option<String>,
}

#[derive(Serialize)]
struct Resources {
    cpu_percent: f64,
    memory_percent: f64,
    disk_percent: f64,
    /// TCP sockets of the machine; null where the system does not tell.
    network_connections: Option<usize>,
}

/// `GET /api/v1/dashboard/system/info`. Of this member alone, so it asks nobody.
pub(in crate::api) async fn info(State(app): State<App>) -> Result<Response, ApiError> {
    let usage = app.host().usage();
    let data_dir = app.options().data_dir.clone();
    let looked = tokio::task::spawn_blocking(move || (machine(&data_dir), connections())).await;
    let (system, network_connections) = looked.unwrap_or_default();
    let (id, running) = app.cluster().view().read(|state| {
        let id = app.settings(state).orchestrator_id.clone();
        (id, app.cluster().leader().is_some() && !state.policy().paused)
    });
    let system_info = SystemInfo {
        orchestrator: Orchestrator {
            id,
            version: FAMILY_VERSION,
            quorate_version: env!("CARGO_PKG_VERSION"),
            uptime: app.uptime().as_secs_f64(),
            running,
            member_id: app.cluster().member_id(),
        },
        system,
        resources: Resources {
            cpu_percent: usage.cpu_usage,
            memory_percent: usage.memory_usage,
            disk_percent: usage.disk_usage,
            network_connections,
        },
    };
    Ok(reply::json(reply::encode(&Reply { success: true, system_info })))
}

fn machine(data_dir: &Path) -> Machine {
    let data_dir = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    let mut system = System::new();
    system.refresh_memory();
    let disks = Disks::new_with_refreshed_list();
    // The disk is the one mounted closest above the data.
    let holding = disks.iter().filter(|disk| data_dir.starts_with(disk.mount_point()));
    let nearest = holding.max_by_key(|disk| disk.mount_point().as_os_str().len());
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Machine {
        platform: System::name().unwrap_or_else(|| std::env::consts::OS.to_owned()),
        platform_version: System::os_version().or_else(System::kernel_version),
        python_version: None,
        cpu_count: cpus,
        memory_total: system.total_memory(),
        disk_total: nearest.map_or(0, sysinfo::Disk::total_space),
        hostname: System::host_name(),
    }
}

/// Counts the lines of the kernel's tables of sockets, without their headings.
fn connections() -> Option<usize> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let tables: Vec<_> =
        tables.iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect();
    let count = |table: &String| table.lines().count().saturating_sub(1);
    (!tables.is_empty()).then(|| tables.iter().map(count).sum())
}
