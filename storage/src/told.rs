//! What is told of a write once it is durable: every change to a log pipeline, and quotas that are
//! nearly used up to whoever watches.

use alga_model::{InstallId, TenantId, Timestamp};

use crate::contract::{Key, Namespace, QuotaName, Revision};
use crate::error::Quota;
use crate::maintenance::Removed;
use crate::service::Scope;

/// What the audit calls the removal of expired records.
pub(crate) const EXPIRE: &str = "expire";
/// Whom the audit names where expired records were removed.
pub(crate) const SWEEPER: &str = "system:expiry";

/// A mutation for the audit.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) key: Key,
    pub(crate) before: Option<Revision>,
    pub(crate) after: Option<Revision>,
    pub(crate) bytes: u64,
}

/// A quota whose use has risen to a part of it that is worth a warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Alert {
    quota: QuotaName,
    pub(crate) percent: u8,
    used: u64,
    limit: u64,
}

impl Change {
    /// Says what happened, for a log pipeline. Off unless the target is asked for.
    pub(crate) fn tell(
        &self,
        scope: &Scope,
        namespace: &Namespace,
        operation: &str,
        now: Timestamp,
    ) {
        tracing::debug!(
            target: "audit",
            time = %now,
            tenant.id = %scope.tenant,
            install.id = %scope.install,
            extension.id = %scope.extension,
            namespace = %namespace,
            key = self.key.as_str(),
            operation,
            revision_before = self.before.map(Revision::get),
            revision_after = self.after.map(Revision::get),
            bytes = self.bytes,
            actor = %scope.actor,
            request.id = %scope.request_id,
            "a record was changed"
        );
    }
}

/// Says that expired records were removed from a namespace, for a log pipeline.
pub(crate) fn removal(
    tenant: TenantId,
    install: InstallId,
    namespace: &Namespace,
    removed: Removed,
    now: Timestamp,
) {
    tracing::debug!(
        target: "audit",
        time = %now,
        tenant.id = %tenant,
        install.id = %install,
        namespace = %namespace,
        operation = EXPIRE,
        records = removed.records,
        bytes = removed.bytes,
        actor = SWEEPER,
        "expired records were removed"
    );
}

/// Counts expired records that were removed; `by` says what did it.
pub(crate) fn removed(by: &'static str, removed: Removed) {
    if removed.records == 0 {
        return;
    }
    metrics::counter!("alga_storage_expired_removed_total", "by" => by).increment(removed.records);
    metrics::counter!("alga_storage_expired_removed_bytes_total", "by" => by)
        .increment(removed.bytes);
}

impl Quota {
    /// The greatest of `percent` that the use has just risen to.
    pub(crate) fn alert(self, percent: [u8; 2]) -> Option<Alert> {
        let reaches = |used: u64, percent: u8| {
            u128::from(used) * 100 >= u128::from(self.limit) * u128::from(percent)
        };
        percent
            .into_iter()
            .filter(|percent| reaches(self.attempted, *percent) && !reaches(self.used, *percent))
            .max()
            .map(|percent| Alert {
                quota: self.name,
                percent,
                used: self.attempted,
                limit: self.limit,
            })
    }
}

impl Alert {
    /// Says that a quota is nearly used up.
    pub(crate) fn tell(&self, scope: &Scope) {
        metrics::counter!("alga_storage_quota_alerts_total", "quota" => self.quota.as_str(), "percent" => self.percent.to_string())
            .increment(1);
        macro_rules! event {
            ($level:ident) => {
                tracing::$level!(
                    tenant.id = %scope.tenant,
                    install.id = %scope.install,
                    quota = %self.quota,
                    percent = self.percent,
                    used = self.used,
                    limit = self.limit,
                    "a quota is nearly used up"
                )
            };
        }
        let [_, critical] = scope.limits.quotas.alert_percent;
        if self.percent >= critical {
            event!(warn);
        } else {
            event!(info);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_is_raised_once_when_the_use_reaches_a_part() {
        let alert = |used, attempted| {
            let quota = Quota {
                name: QuotaName::BytesPerInstall,
                limit: 100,
                used,
                attempted,
            };
            quota.alert([80, 95]).map(|alert| alert.percent)
        };
        assert_eq!(alert(70, 79), None);
        assert_eq!(alert(79, 80), Some(80));
        assert_eq!(alert(80, 94), None);
        assert_eq!(alert(94, 95), Some(95));
        assert_eq!(alert(10, 100), Some(95));
        assert_eq!(alert(96, 81), None);
    }
}
