//! A task with everything that belongs to it, put together for whoever is shown it: the answer of
//! `GET /api/v1/tasks/{id}`, a callback, a stream.

use std::borrow::Cow;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::task_view::{Payloads, Steps, task_reply};
use crate::api::agents::output::{StepRow, compose};
use crate::api::reply;
use crate::clock;
use crate::leader::{Rendered, TaskRenderer, Unreadable};
use crate::model::{Payload, Task, TaskId};
use crate::state::{BlobPart, State as Tables};
use crate::storage::{Machine, StorageError};

/// A task and its steps, read at one moment. Payloads are still to be loaded.
#[derive(Debug)]
pub(in crate::api) struct Shown {
    pub(in crate::api) task: Task,
    pub(in crate::api) steps: Vec<StepRow>,
}

impl Shown {
    /// The task as `state` has it.
    pub(in crate::api) fn of(state: &Tables, task_id: &TaskId) -> Option<Self> {
        let task = state.task(task_id)?.into_owned();
        let flow = task.flow.as_ref();
        let steps = (0u16..).zip(flow.into_iter().flat_map(|flow| &flow.steps));
        let steps = steps.map(|(place, step)| StepRow {
            name: step.spec.name.clone(),
            agent_type: step.spec.agent_type.clone(),
            state: step.state,
            task: state.step_task(task_id, place).map(Cow::into_owned),
            result: String::new(),
        });
        Some(Self { steps: steps.collect(), task })
    }

    /// Loads the payloads. One that was deleted meanwhile counts as absent.
    pub(in crate::api) fn load(
        &mut self,
        machine: &Machine,
        with_input: bool,
    ) -> Result<Payloads, StorageError> {
        let load = |owner: &Task, part: BlobPart, payload: &Payload| {
            let loaded = machine.load_payload(&owner.task_id, part, payload)?;
            let text = String::from_utf8(loaded.unwrap_or_default().into());
            Ok::<String, StorageError>(text.unwrap_or_default())
        };
        for step in &mut self.steps {
            if let Some(task) = &step.task {
                step.result = load(task, BlobPart::Result, &task.result)?;
            }
        }
        let task = &self.task;
        let result = match &task.flow {
            Some(flow) => compose(task, flow, &self.steps).unwrap_or_default(),
            None => load(task, BlobPart::Result, &task.result)?,
        };
        Ok(Payloads {
            requirements: load(task, BlobPart::Requirements, &task.requirements_raw)?,
            metadata: load(task, BlobPart::Metadata, &task.metadata)?,
            result,
            metrics: load(task, BlobPart::Metrics, &task.performance_metrics)?,
            input: if with_input { Some(load(task, BlobPart::Input, &task.input)?) } else { None },
        })
    }

    /// The whole answer, as JSON text.
    pub(in crate::api) fn render(
        mut self,
        machine: &Machine,
        with_input: bool,
    ) -> Result<Vec<u8>, StorageError> {
        let payloads = self.load(machine, with_input)?;
        let steps = Steps::of(&self.task, &self.steps);
        Ok(reply::encode(&task_reply(&self.task, &payloads, &steps, clock::now_ms())))
    }
}

/// What callbacks are told of a task: the same as whoever asks for it.
#[derive(Clone)]
pub struct CallbackRenderer(pub std::sync::Arc<Machine>);

impl std::fmt::Debug for CallbackRenderer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CallbackRenderer")
    }
}

impl TaskRenderer for CallbackRenderer {
    fn render(&self, task_id: TaskId) -> BoxFuture<'static, Rendered> {
        let machine = std::sync::Arc::clone(&self.0);
        Box::pin(async move {
            let Some(shown) = machine.read(|state| Shown::of(state, &task_id)) else {
                return Ok(None);
            };
            // Payloads may lie on the disk.
            let rendered = tokio::task::spawn_blocking(move || shown.render(&machine, false));
            match rendered.await {
                Ok(Ok(body)) => Ok(Some(Bytes::from(body))),
                Ok(Err(error)) => {
                    tracing::error!(%error, "a callback's task cannot be read");
                    Err(Unreadable)
                }
                Err(error) => {
                    tracing::error!(%error, "the reading of a callback's task broke");
                    Err(Unreadable)
                }
            }
        })
    }
}
