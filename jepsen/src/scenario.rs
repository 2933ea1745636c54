//! Scenarios: runs that once found something, kept to be run again.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;

use crate::nemesis::named;
use crate::run::Spec;

/// A file of `scenarios/`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    /// Its name.
    pub name: String,
    /// What it found, or what it must keep finding.
    pub why: String,
    pub seed: u64,
    #[serde(default = "three")]
    pub members: usize,
    pub seconds: u64,
    pub faults: Vec<String>,
    pub workloads: Vec<String>,
}

fn three() -> usize {
    3
}

impl Scenario {
    /// # Errors
    /// When it cannot be read or is no scenario.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path);
        let text = text.with_context(|| format!("read {}", path.display()))?;
        toml::from_str(&text).with_context(|| path.display().to_string())
    }

    /// The run it describes, in the world of `base`.
    ///
    /// # Errors
    /// When it names faults that there are not.
    pub(crate) fn spec(&self, base: Spec) -> anyhow::Result<Spec> {
        Ok(Spec {
            name: self.name.clone(),
            seed: self.seed,
            members: self.members,
            faults: named(&self.faults)?,
            workloads: self.workloads.clone(),
            time: Duration::from_secs(self.seconds),
            ..base
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_in_the_repository_can_be_run() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let mut count = 0;
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let scenario = Scenario::read(&entry.path()).unwrap();
            named(&scenario.faults).unwrap();
            crate::judge::workloads(&scenario.workloads).unwrap();
            assert!(scenario.members == 3 || scenario.members == 5);
            count += 1;
        }
        assert!(count > 0);
    }
}
