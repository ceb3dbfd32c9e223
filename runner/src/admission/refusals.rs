//! Refused calls, for whoever operates the runner.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use alga_model::{InstallId, TenantId};

use super::queue::{Reason, Who};

/// After a refusal was logged, the same is only counted for so long.
const SILENCE: Duration = Duration::from_secs(10);
/// Kinds of refusals that are remembered.
const MOST_KINDS: usize = 4_096;

/// Counts refusals, and logs when they begin. Who calls in a loop must not fill the log.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<HashMap<Kind, Silence>>);

/// Whose limit refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Install(InstallId),
    Tenant(TenantId),
    Process,
    Closed,
}

#[derive(Debug, Clone, Copy)]
struct Silence {
    until: Instant,
    unsaid: u64,
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
        if let Some(unsaid) = self.break_silence(kind, Instant::now()) {
            log(who, reason, waited, unsaid);
        }
    }

    /// How many of this kind went unsaid since the last one that was logged; none where this one
    /// goes unsaid too.
    fn break_silence(&self, kind: Kind, now: Instant) -> Option<u64> {
        // Poisoning would need a panic below, which moves plain values only.
        let mut silences = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(silence) = silences.get_mut(&kind)
            && now < silence.until
        {
            silence.unsaid += 1;
            return None;
        }
        if silences.len() >= MOST_KINDS {
            silences.retain(|_, silence| now < silence.until);
        }
        if silences.len() >= MOST_KINDS {
            silences.clear();
        }
        let until = now + SILENCE;
        let former = silences.insert(kind, Silence { until, unsaid: 0 });
        Some(former.map_or(0, |silence| silence.unsaid))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_said_once_and_the_next_time_with_what_went_unsaid() {
        let refusals = Refusals::default();
        let kind = Kind::Install(InstallId::generate());
        let other = Kind::Install(InstallId::generate());
        let start = Instant::now();
        assert_eq!(refusals.break_silence(kind, start), Some(0));
        for _ in 0..3 {
            assert_eq!(refusals.break_silence(kind, start), None);
        }
        assert_eq!(refusals.break_silence(other, start), Some(0));
        assert_eq!(refusals.break_silence(kind, start + SILENCE), Some(3));
        assert_eq!(refusals.break_silence(kind, start + SILENCE * 2), Some(0));
    }

    #[test]
    fn kinds_are_forgotten_before_they_fill_the_memory() {
        let refusals = Refusals::default();
        let now = Instant::now();
        for _ in 0..MOST_KINDS * 2 {
            refusals.break_silence(Kind::Tenant(TenantId::generate()), now);
        }
        assert!(refusals.0.lock().unwrap().len() <= MOST_KINDS);
    }
}
