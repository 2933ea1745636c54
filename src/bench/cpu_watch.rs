//! How much processor time members take while something is measured, also when one of them is
//! started again meanwhile.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::members::Members;
use super::process::cpu_time_of;

const PERIOD: Duration = Duration::from_millis(250);

/// Watches until it is stopped.
pub(super) struct CpuWatch {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Vec<Usage>>,
}

/// One member.
#[derive(Debug, Default, Clone)]
struct Usage {
    /// Its process, its processor time, and when that was read.
    last: Option<(i32, Duration, Instant)>,
    used: Duration,
    watched: Duration,
}

impl Usage {
    /// A reading counts from the one before it of the same process.
    fn read(&mut self, reading: Option<(i32, Duration)>, now: Instant) {
        let reading = reading.map(|(pid, cpu)| (pid, cpu, now));
        if let Some(((pid, cpu, _), (last_pid, last_cpu, last))) = reading.zip(self.last)
            && pid == last_pid
        {
            self.used += cpu.saturating_sub(last_cpu);
            self.watched += now - last;
        }
        self.last = reading;
    }

    /// Of one core.
    fn percent(&self) -> Option<f64> {
        let share = self.used.as_secs_f64() / self.watched.as_secs_f64();
        share.is_finite().then(|| (share * 1e4).round() / 1e2)
    }
}

impl CpuWatch {
    /// Watches the first `count` members from `from` on.
    #[must_use]
    pub(super) fn start(members: Members, count: usize, from: Instant) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut usages = vec![Usage::default(); count];
            tokio::time::sleep_until(from).await;
            loop {
                let now = Instant::now();
                for (member, usage) in usages.iter_mut().enumerate() {
                    let pid = members.pid(member).ok();
                    usage.read(pid.and_then(|pid| Some((pid, cpu_time_of(pid)?))), now);
                }
                if tokio::time::timeout(PERIOD, &mut stopped).await.is_ok() {
                    return usages;
                }
            }
        });
        Self { stop, task }
    }

    /// Percent of one core, by member; null for those whose processes are not known.
    pub(super) async fn stop(self) -> Value {
        drop(self.stop);
        let usages = self.task.await.unwrap_or_default();
        let percents: Vec<Option<f64>> = usages.iter().map(Usage::percent).collect();
        let worst = percents.iter().flatten().copied().reduce(f64::max);
        json!({"percent_of_one_core": percents, "worst": worst})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_of_one_process_is_added_up_and_another_begins_anew() {
        let (mut usage, begin) = (Usage::default(), Instant::now());
        let at = |secs| begin + Duration::from_secs(secs);
        let cpu = Duration::from_millis;
        assert_eq!(usage.percent(), None);
        usage.read(Some((7, cpu(9000))), at(0));
        usage.read(Some((7, cpu(9100))), at(1));
        usage.read(None, at(2));
        usage.read(Some((8, cpu(400))), at(3));
        usage.read(Some((8, cpu(600))), at(4));
        assert_eq!((usage.used, usage.watched), (cpu(300), Duration::from_secs(2)));
        assert_eq!(usage.percent(), Some(15.0));
    }
}
