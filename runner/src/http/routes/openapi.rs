//! `GET /openapi.json`: what this API is, for programs.

use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

use crate::http::openapi::DOCUMENT;

pub(crate) async fn openapi() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], DOCUMENT.as_str())
}
