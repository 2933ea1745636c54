//! Pipelines: what tasks of one type do (contract 4.4). Eight are built in; an operator's
//! definition of the same type goes before them.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use super::apply::Txn;
use super::flows::check_steps;
use super::rows::Table;
use super::{Fact, Outcome, Rejection, Reply, State};
use crate::model::{FlowMode, Pipeline, StepSpec};

/// The most definitions beside the built-in ones.
pub const PIPELINES_MAX: usize = 1000;
/// Tries after the first of each step (contract 4.6).
const STEP_RETRIES: u32 = 3;

/// The eight pipelines of contract 4.4, with the estimates of 4.2. Its modes are recommended ones: a task
/// that names none is sequential (4.2). Members of one cluster must agree on them, so a change here is a
/// change of the replicated format.
pub fn built_in() -> &'static [Pipeline] {
    static BUILT_IN: OnceLock<Vec<Pipeline>> = OnceLock::new();
    BUILT_IN.get_or_init(|| {
        const SUMMARY: &str = "transcript_summary";
        let table: [(&str, u64, &[&str]); 8] = [
            ("report_generation", 3000, &["data_ingest", "data_analysis", "synthesis"]),
            ("real_time_monitoring", 500, &["video_detection", "alerting"]),
            ("data_analysis", 2000, &["data_analysis"]),
            ("api_call", 300, &["api_caller"]),
            (
                "podcast_intelligence",
                1000,
                &["rss_feed_monitor", "podcast_transcript", SUMMARY, "industry_synthesis"],
            ),
            ("document_intelligence", 1000, &["document_reader", SUMMARY, "industry_synthesis"]),
            ("content_summarization", 1000, &[SUMMARY]),
            ("industry_synthesis_only", 1000, &["industry_synthesis"]),
        ];
        let pipeline = |(task_type, estimate_ms, agents): (&str, u64, &[&str])| Pipeline {
            task_type: task_type.to_owned(),
            mode: FlowMode::Sequential,
            estimate_ms,
            steps: agents.iter().map(|agent_type| step(agent_type)).collect(),
        };
        table.into_iter().map(pipeline).collect()
    })
}

fn step(agent_type: &str) -> StepSpec {
    StepSpec {
        name: agent_type.to_owned(),
        agent_type: agent_type.to_owned(),
        max_retries: STEP_RETRIES,
        ..StepSpec::default()
    }
}

/// Every task type that a pipeline says something of, with its estimate.
pub(super) fn estimates(own: &Table<Pipeline>) -> Arc<BTreeMap<String, u64>> {
    let all = built_in().iter().chain(own.iter().map(|(_, pipeline)| pipeline));
    Arc::new(all.map(|pipeline| (pipeline.task_type.clone(), pipeline.estimate_ms)).collect())
}

impl State {
    /// Task types that pipelines say something of, with what clients are told to expect.
    #[must_use]
    pub fn estimates(&self) -> Arc<BTreeMap<String, u64>> {
        Arc::clone(&self.estimates)
    }

    /// What tasks of this type do, if a pipeline says so.
    #[must_use]
    pub fn pipeline(&self, task_type: &str) -> Option<&Pipeline> {
        let own = self.pipelines.get(&task_type.to_owned());
        own.or_else(|| built_in().iter().find(|pipeline| pipeline.task_type == task_type))
    }

    /// All of them by task type, with whether an operator defined it.
    #[must_use]
    pub fn pipelines(&self) -> Vec<(&Pipeline, bool)> {
        let own = |task_type: &String| self.pipelines.get(task_type).is_some();
        let kept = built_in().iter().filter(|pipeline| !own(&pipeline.task_type));
        let mut all: Vec<_> = kept.map(|pipeline| (pipeline, false)).collect();
        all.extend(self.pipelines.iter().map(|(_, pipeline)| (pipeline, true)));
        all.sort_by(|(one, _), (other, _)| one.task_type.cmp(&other.task_type));
        all
    }
}

impl Txn<'_> {
    pub(super) fn put_pipeline(&mut self, pipeline: Pipeline) -> Reply {
        check_steps(&pipeline.steps).map_err(Rejection::InvalidFlow)?;
        let task_type = pipeline.task_type.clone();
        let new = self.state.pipelines.get(&task_type).is_none();
        if new && self.state.pipelines.len() >= PIPELINES_MAX {
            return Err(Rejection::TooManyPipelines { max: PIPELINES_MAX as u64 });
        }
        self.state.pipelines.put(&mut self.state.rows, task_type.clone(), pipeline);
        self.state.estimates = estimates(&self.state.pipelines);
        self.facts.push(Fact::PipelineChanged { task_type });
        Ok(Outcome::Done)
    }

    pub(super) fn remove_pipeline(&mut self, task_type: String) -> Reply {
        if self.state.pipelines.remove(&mut self.state.rows, &task_type).is_none() {
            return Err(Rejection::PipelineNotFound { task_type });
        }
        self.state.estimates = estimates(&self.state.pipelines);
        self.facts.push(Fact::PipelineChanged { task_type });
        Ok(Outcome::Done)
    }
}
