//! Figures of the machine, for the health answers. Sampled at most every few seconds: scrapers and
//! dashboards ask often, and the figures cost a walk through the system's tables.

use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use sysinfo::{Disks, System};
use tokio::time::Instant;

const SAMPLE_EVERY: Duration = Duration::from_secs(2);

/// Percentages of what the machine has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct HostUsage {
    pub(super) cpu_usage: f64,
    pub(super) memory_usage: f64,
    pub(super) disk_usage: f64,
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Host {
    data_dir: PathBuf,
    sampler: Mutex<Sampler>,
}

#[derive(Debug)]
struct Sampler {
    system: System,
    disks: Option<Disks>,
    sampled: Option<Instant>,
    usage: HostUsage,
}

impl Host {
    pub(super) fn new(data_dir: &Path) -> Self {
        let data_dir = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
        let sampler = Sampler {
            system: System::new(),
            disks: None,
            sampled: None,
            usage: HostUsage::default(),
        };
        Self { data_dir, sampler: Mutex::new(sampler) }
    }

    /// The newest figures.
    pub(super) fn usage(&self) -> HostUsage {
        let mut sampler = self.sampler.lock();
        if sampler.sampled.is_none_or(|at| at.elapsed() >= SAMPLE_EVERY) {
            sampler.sample(&self.data_dir);
        }
        sampler.usage
    }
}

impl Sampler {
    fn sample(&mut self, data_dir: &Path) {
        self.system.refresh_cpu_usage();
        self.system.refresh_memory();
        let disks = match self.disks.as_mut() {
            Some(disks) => {
                disks.refresh(false);
                disks
            }
            None => self.disks.insert(Disks::new_with_refreshed_list()),
        };
        // The disk is the one mounted closest above the data.
        let holding = disks.iter().filter(|disk| data_dir.starts_with(disk.mount_point()));
        let nearest = holding.max_by_key(|disk| disk.mount_point().as_os_str().len());
        let disk_usage = nearest.map_or(0.0, |disk| {
            percent(disk.total_space().saturating_sub(disk.available_space()), disk.total_space())
        });
        self.usage = HostUsage {
            cpu_usage: f64::from(self.system.global_cpu_usage()),
            memory_usage: percent(self.system.used_memory(), self.system.total_memory()),
            disk_usage,
        };
        self.sampled = Some(Instant::now());
    }
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn samples_are_percentages_and_kept_for_a_while() {
        let host = Host::new(Path::new("."));
        let usage = host.usage();
        assert!(usage.memory_usage > 0.0 && usage.memory_usage <= 100.0, "{usage:?}");
        assert!((0.0..=100.0).contains(&usage.disk_usage));
        assert_eq!(host.usage(), usage);
        let sampled = host.sampler.lock().sampled;
        tokio::time::advance(SAMPLE_EVERY).await;
        host.usage();
        assert!(host.sampler.lock().sampled > sampled);
    }
}
