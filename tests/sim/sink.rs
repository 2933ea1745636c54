//! Who is told of ends and alerts: takes posts, refuses some, answers late, and loses answers.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use quorate::clock;
use quorate::cluster::Cluster;
use quorate::leader::{Answer, Call, CallError, Rendered, TaskRenderer};
use quorate::model::TaskId;
use quorate::outward::{Mail, MailError, Sent};
use serde_json::{Value, json};

use crate::nodes::{answer, down, pause};
use crate::stage::{Phase, Stage};

/// Where alerts are posted.
pub(crate) const ALERTS: &str = "http://sink0/alerts";

/// How they are mailed.
pub(crate) fn mail_channel() -> Value {
    json!({"enabled": true, "smtp_server": "sink1", "from": "fleet@sink1", "to": "ops@sink1"})
}

/// Whether a URL leads here.
pub(crate) fn is_here(url: &str) -> bool {
    url.starts_with("http://sink")
}

/// Takes one post, or does not.
pub(crate) async fn take(stage: Stage, call: Call) -> Result<Answer, CallError> {
    pause(1, 5).await;
    let behaves = !stage.plan.faults.nodes || stage.phase() == Phase::Healed;
    let dice = if behaves { 0 } else { clock::random() % 100 };
    if dice >= 90 {
        return down();
    }
    stage.invariants.posted(&call.body);
    stage.book().cover("posts");
    match dice {
        0..60 => answer(204, String::new()),
        60..70 => answer(503, String::new()),
        70..82 => Err(CallError::Broken("the connection broke".to_owned())),
        _late => {
            tokio::time::sleep(Duration::from_secs(2 + clock::random() % 20)).await;
            answer(200, String::new())
        }
    }
}

/// Takes one mail, or does not.
pub(crate) async fn take_mail(stage: Stage, mail: &Mail) -> Result<Sent, MailError> {
    pause(1, 5).await;
    let behaves = !stage.plan.faults.nodes || stage.phase() == Phase::Healed;
    let dice = if behaves { 0 } else { clock::random() % 100 };
    if dice >= 90 {
        return Err(MailError::Connect("the mail server is down".to_owned()));
    }
    if dice >= 80 {
        return Err(MailError::PutOff("450: busy".to_owned()));
    }
    stage.invariants.mailed(&mail.number, &mail.subject, &mail.text);
    stage.book().cover("mails");
    match dice {
        0..60 => Ok(Sent::default()),
        60..70 => Err(MailError::Broken("the connection broke".to_owned())),
        _late => {
            tokio::time::sleep(Duration::from_secs(2 + clock::random() % 20)).await;
            Ok(Sent::default())
        }
    }
}

/// What a callback is told, from what this member knows.
pub(crate) struct SimRenderer(pub(crate) Cluster);

impl TaskRenderer for SimRenderer {
    fn render(&self, task_id: TaskId) -> BoxFuture<'static, Rendered> {
        let status = self.0.view().read(|state| state.task(&task_id).map(|task| task.status));
        let body = status.map(|status| {
            let id = task_id.as_str();
            format!(r#"{{"task_id":"{id}","status":"{}"}}"#, status.as_str())
        });
        Box::pin(async move { Ok(body.map(Bytes::from)) })
    }
}
