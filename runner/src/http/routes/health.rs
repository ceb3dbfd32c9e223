//! Whether the process lives, whether it should get requests, and what is said where nothing is.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::http::AppState;
use crate::http::error::ApiError;

/// The process lives. Asks nothing else.
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// How long a database may take to answer a probe.
const PATIENCE: Duration = Duration::from_secs(1);

/// The process can answer requests: the databases are there and it isn't stopping.
pub(crate) async fn readyz(State(state): State<AppState>) -> Response {
    let stores = &state.app.stores;
    let (storage, registry) = tokio::join!(
        tokio::time::timeout(PATIENCE, async { stores.storage.ping().await.is_ok() }),
        tokio::time::timeout(PATIENCE, async { stores.registry.ping().await.is_ok() }),
    );
    let (storage, registry) = (storage.unwrap_or(false), registry.unwrap_or(false));
    let draining = state.is_draining();
    let status = if storage && registry && !draining {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (
        status,
        Json(json!({ "storage": storage, "registry": registry, "draining": draining })),
    )
        .into_response()
}

/// No such path.
pub(crate) async fn not_found() -> ApiError {
    ApiError::NotFound("there is no such path")
}

/// No such method.
pub(crate) async fn method_not_allowed() -> ApiError {
    ApiError::MethodNotAllowed
}
