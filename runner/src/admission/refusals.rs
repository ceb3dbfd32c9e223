//! Refused calls, for whoever operates the runner.

use std::time::{Duration, Instant};

use alga_model::{InstallId, Silences, TenantId};

use super::queue::{Reason, Who};

/// Counts refusals, and logs when they begin. Who calls in a loop must not fill the log.
#[derive(Debug, Default)]
pub(super) struct Refusals(Silences<Kind>);

/// Whose limit refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Install(InstallId),
    Tenant(TenantId),
    Process,
    Closed,
}

impl Refusals {
    /// Notes that a call was refused after it had `waited`.
    pub(super) fn note(&self, who: Who, reason: Reason, waited: Duration) {
        let (kind, label) = match reason {
            Reason::Install => (Kind::Install(who.install), "install"),
            Reason::Tenant => (Kind::Tenant(who.tenant), "tenant"),
            Reason::Process => (Kind::Process, "process"),
            Reason::Closed => (Kind::Closed, "stopping"),
        };
        metrics::counter!("alga_admission_refusals_total", "reason" => label).increment(1);
        if let Some(unsaid) = self.0.unsaid(kind, Instant::now()) {
            log(who, reason, waited, unsaid);
        }
    }
}

fn log(who: Who, reason: Reason, waited: Duration, unsaid: u64) {
    macro_rules! event {
        ($level:ident, $message:literal) => {
            tracing::$level!(
                tenant.id = %who.tenant,
                install.id = %who.install,
                waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX),
                unsaid,
                $message
            )
        };
    }
    match reason {
        Reason::Install => event!(
            info,
            "calls are refused, as too many of the install are running"
        ),
        Reason::Tenant => event!(
            info,
            "calls are refused, as too many of the tenant are running"
        ),
        Reason::Process => event!(
            warn,
            "calls are refused, as the process runs as many as it can"
        ),
        Reason::Closed => event!(info, "calls are refused, as the runner is stopping"),
    }
}
