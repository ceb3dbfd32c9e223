//! What is measured of requests. Labels come from closed sets: never a tenant, an install or a path.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use axum::http::Method;
use foldhash::fast::RandomState;
use metrics::Histogram;

/// How long requests took, by route.
#[derive(Debug, Default)]
pub(super) struct RequestMetrics(RwLock<HashMap<String, Arc<RouteMetrics>, RandomState>>);

/// How long the requests of a route took, by method and class of status. Each combination is looked up
/// once: a recorder hashes and copies labels whenever it is asked for one.
#[derive(Debug)]
pub(super) struct RouteMetrics {
    route: String,
    took: [[OnceLock<Histogram>; CLASSES.len()]; METHODS.len()],
}

/// A caller may invent methods; metrics may not.
const METHODS: [&str; 8] = [
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "OTHER",
];
/// A guest chooses among four hundred statuses; metrics have a label for each class.
const CLASSES: [&str; 6] = ["2xx", "3xx", "4xx", "5xx", "other", CANCELLED];
/// The client went away before it was answered.
const CANCELLED: &str = "cancelled";

impl RequestMetrics {
    /// Those of a route.
    pub(super) fn of(&self, route: &str) -> Arc<RouteMetrics> {
        // Poisoning would need a panic below, which inserts only.
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(route) {
            return Arc::clone(known);
        }
        drop(known);
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(RouteMetrics::new(route));
        Arc::clone(known.entry(route.to_owned()).or_insert_with(new))
    }
}

impl RouteMetrics {
    pub(super) fn new(route: &str) -> Self {
        Self {
            route: route.to_owned(),
            took: Default::default(),
        }
    }

    /// How logs and metrics name it.
    pub(super) fn name(&self) -> &str {
        &self.route
    }

    /// Counts and times a request.
    pub(super) fn answered(&self, method: &Method, status: u16, took: Duration) {
        self.record(name(method), class(status), took);
    }

    /// Counts a request whose client went away before it was answered.
    pub(super) fn cancelled(&self, method: &Method, took: Duration) {
        self.record(name(method), CANCELLED, took);
    }

    fn record(&self, method: &'static str, status: &'static str, took: Duration) {
        let of_method = METHODS
            .iter()
            .zip(&self.took)
            .find(|(of, _)| **of == method);
        let classes = of_method.map(|(_, classes)| CLASSES.iter().zip(classes));
        let histogram = classes.and_then(|mut classes| classes.find(|(of, _)| **of == status));
        if let Some((_, histogram)) = histogram {
            let new = || self.histogram(method, status);
            histogram.get_or_init(new).record(took);
        }
    }

    fn histogram(&self, method: &'static str, status: &'static str) -> Histogram {
        metrics::histogram!(
            "alga_http_request_duration_seconds",
            "method" => method,
            "route" => self.route.clone(),
            "status" => status,
        )
    }
}

/// How metrics name a method.
pub(super) fn name(method: &Method) -> &'static str {
    let named = METHODS.into_iter().find(|name| *name == method.as_str());
    named.unwrap_or("OTHER")
}

/// How metrics name the class of a status.
const fn class(status: u16) -> &'static str {
    match status {
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        500..=599 => "5xx",
        _ => "other",
    }
}
