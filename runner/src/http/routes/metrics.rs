//! `GET /metrics`: what the process measured, and which quotas are nearly used up, for Prometheus.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use crate::http::AppState;
use crate::http::auth::Principal;
use crate::http::error::ApiError;

const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(crate) async fn metrics(
    State(state): State<AppState>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    Principal::of(&headers, &state)?.ensure_operator()?;
    let handle = state
        .metrics
        .as_ref()
        .ok_or(ApiError::NotFound("this process keeps no metrics"))?;
    if let Some(extensions) = &state.app.extensions {
        extensions.executor.report_load();
    }
    // Where nobody probes the process, whoever reads this page looks.
    state.bundles.look(&state.app).await;
    let mut text = handle.render();
    text.push_str(&state.app.upkeep.quota_gauges.to_string());
    Ok(([(CONTENT_TYPE, TEXT_FORMAT)], text).into_response())
}
