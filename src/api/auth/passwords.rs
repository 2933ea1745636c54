//! Work on passwords: away from the threads that serve, at most a few at once.

use std::time::Duration;

use axum::http::StatusCode;

use crate::api::App;
use crate::api::error::ApiError;
use crate::security::{PASSWORD_MAX, hash_password, verify_password};

/// How long one waits while others are worked on.
const WAIT: Duration = Duration::from_secs(5);

async fn worked<T: Send + 'static>(
    app: &App,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let permit = tokio::time::timeout(WAIT, app.logins().acquire()).await;
    let Ok(Ok(_permit)) = permit else {
        let text = "too many logins at once";
        let status = StatusCode::TOO_MANY_REQUESTS;
        return Err(ApiError::new(status, "RATE_LIMITED", text).with_retry_after(1));
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "a password could not be worked on");
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", "internal error")
    })
}

/// Whether `password` is the one of `stored`.
pub(super) async fn verified(
    app: &App,
    password: String,
    stored: Option<String>,
) -> Result<bool, ApiError> {
    if password.len() > PASSWORD_MAX {
        return Ok(false);
    }
    worked(app, move || verify_password(&password, stored.as_deref())).await
}

/// What is stored for `password`, whose length was checked.
pub(super) async fn hashed(app: &App, password: String) -> Result<String, ApiError> {
    worked(app, move || hash_password(&password)).await
}
