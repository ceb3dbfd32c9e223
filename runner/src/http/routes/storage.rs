//! The storage of extensions, for the services that run them.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::{Extension, Router};

use super::install::read_body;
use crate::http::auth::Principal;
use crate::http::error::ApiError;
use crate::http::request_id::RequestId;
use crate::http::{AppState, storage_api};

/// The routes of the internal API.
pub(crate) fn router() -> Router<AppState> {
    Router::new().route(storage_api::PATH, axum::routing::post(operate))
}

async fn operate(
    State(state): State<AppState>,
    Extension(request_id): Extension<RequestId>,
    Path(install): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let principal = Principal::of(&headers, &state)?;
    let storage = state.app.storage.as_ref().ok_or(ApiError::Misdirected(
        "this process keeps no storage; it has the role `runner`",
    ))?;
    let caller = storage.caller(principal, &install, &headers, request_id);
    let caller = caller.await?;
    let body = read_body(body, &state).await.map_err(|error| match error {
        ApiError::TooLarge(limit) => ApiError::StorageBodyTooLarge(limit),
        error => error,
    })?;
    storage.answer(caller, &body).await
}
