//! What is measured of requests. Labels come from closed sets: never a tenant, an install or a path.

use std::time::Duration;

use axum::http::Method;

/// Counts and times a request.
pub(super) fn request(method: &Method, route: &str, status: u16, duration: Duration) {
    metrics::histogram!(
        "alga_http_request_duration_seconds",
        "method" => name(method),
        "route" => route.to_owned(),
        "status" => class(status),
    )
    .record(duration);
}

/// A caller may invent methods; metrics may not.
pub(super) fn name(method: &Method) -> &'static str {
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

/// A guest chooses among four hundred statuses; metrics have a label for each class.
const fn class(status: u16) -> &'static str {
    match status {
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        500..=599 => "5xx",
        _ => "other",
    }
}

/// Counts a request whose client went away before it was answered.
pub(super) fn cancelled(method: &Method, route: &str, duration: Duration) {
    metrics::histogram!(
        "alga_http_request_duration_seconds",
        "method" => name(method),
        "route" => route.to_owned(),
        "status" => "cancelled",
    )
    .record(duration);
}
