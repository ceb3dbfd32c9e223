//! Whether the process lives, whether it should get requests, and what is said where nothing is.

use std::time::Duration;

use alga_schema::Database;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::http::AppState;
use crate::http::error::ApiError;
use crate::storage_place::StoragePlace;

/// The process lives. Asks nothing else.
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// How long a database may take to answer a probe.
const PATIENCE: Duration = Duration::from_secs(1);

/// The process can answer requests: the databases are there and it isn't stopping.
pub(crate) async fn readyz(State(state): State<AppState>) -> Response {
    let stores = &state.app.stores;
    let storage = async {
        match &stores.storage {
            StoragePlace::Here(storage) => Some(answers(storage.database()).await),
            // Its outage is no reason to send nothing here: not every call needs it, and where it is gone
            // for one process it is gone for all.
            StoragePlace::Elsewhere(_) => None,
        }
    };
    let (storage, registry) = tokio::join!(storage, answers(stores.registry.database()));
    let draining = state.is_draining();
    let status = if storage.unwrap_or(true) && registry && !draining {
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

/// Whether a database answers in time.
async fn answers(database: &dyn Database) -> bool {
    let answered = tokio::time::timeout(PATIENCE, database.ping()).await;
    answered.is_ok_and(|answered| answered.is_ok())
}

/// No such path.
pub(crate) async fn not_found() -> ApiError {
    ApiError::NoSuchPath
}

/// No such method.
pub(crate) async fn method_not_allowed() -> ApiError {
    ApiError::MethodNotAllowed
}
