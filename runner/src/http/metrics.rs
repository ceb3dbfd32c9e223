//! What is measured of requests. Labels come from closed sets: never a tenant, an install or a path.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use axum::http::Method;
use foldhash::fast::RandomState;
use metrics::Histogram;

/// How long requests took, by method, route and class of status. Each combination is looked up once:
/// a recorder hashes and copies labels whenever it is asked for one.
#[derive(Debug, Default)]
pub(super) struct RequestMetrics(RwLock<HashMap<Labels, OfRoutes, RandomState>>);

type OfRoutes = HashMap<String, Histogram, RandomState>;

/// Method and class of status.
type Labels = (&'static str, &'static str);

impl RequestMetrics {
    /// Counts and times a request.
    pub(super) fn answered(&self, method: &Method, route: &str, status: u16, took: Duration) {
        self.record((name(method), class(status)), route, took);
    }

    /// Counts a request whose client went away before it was answered.
    pub(super) fn cancelled(&self, method: &Method, route: &str, took: Duration) {
        self.record((name(method), "cancelled"), route, took);
    }

    fn record(&self, labels: Labels, route: &str, took: Duration) {
        // Poisoning would need a panic below, which inserts only.
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(&labels).and_then(|routes| routes.get(route)) {
            return known.record(took);
        }
        drop(known);
        let (method, status) = labels;
        let new = metrics::histogram!(
            "alga_http_request_duration_seconds",
            "method" => method,
            "route" => route.to_owned(),
            "status" => status,
        );
        new.record(took);
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let routes = known.entry(labels).or_default();
        routes.insert(route.to_owned(), new);
    }
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
