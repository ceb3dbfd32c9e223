//! What is measured of requests. Labels come from closed sets: never a tenant, an install or a path.

use std::time::Duration;

use axum::http::Method;

/// Counts and times a request.
pub(super) fn request(method: &Method, route: &str, status: u16, duration: Duration) {
    metrics::histogram!(
        "alga_http_request_duration_seconds",
        "method" => name(method),
        "route" => route.to_owned(),
        "status" => status.to_string(),
    )
    .record(duration);
}

/// A caller may invent methods; metrics may not.
fn name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}
