//! `alga:storage/records`: the storage door of guests. It converts and calls the gate.

use std::time::Instant;

use alga_model::ErrorChain;

use crate::bindings::alga::storage::records::Host;
use crate::bindings::alga::storage::types::{
    self, BulkError, BulkItem, DeleteGuard, Entry, Error, InstallUsage, ListOptions, Page,
    PutOptions, Written,
};
use crate::convert;
use crate::ctx::HostCtx;

impl types::Host for HostCtx {}

impl Host for HostCtx {
    async fn get(
        &mut self,
        namespace: String,
        key: String,
        if_revision: Option<u64>,
    ) -> Result<Entry, Error> {
        let request =
            convert::get_request(namespace, key, if_revision).map_err(|error| self.error(error))?;
        let record = self
            .gate
            .get(&self.caller, request)
            .await
            .map_err(|error| self.error(error))?;
        Ok(convert::entry(record))
    }

    async fn get_many(
        &mut self,
        namespace: String,
        keys: Vec<String>,
    ) -> Result<Vec<Option<Entry>>, Error> {
        let request =
            convert::get_many_request(namespace, keys).map_err(|error| self.error(error))?;
        let records = self
            .gate
            .get_many(&self.caller, request)
            .await
            .map_err(|error| self.error(error))?;
        Ok(records
            .into_iter()
            .map(|record| record.map(convert::entry))
            .collect())
    }

    async fn put(
        &mut self,
        namespace: String,
        key: String,
        value: String,
        options: PutOptions,
    ) -> Result<Written, Error> {
        let request = convert::put_request(namespace, key, value, options)
            .map_err(|error| self.error(error))?;
        let written = self
            .gate
            .put(&self.caller, request)
            .await
            .map_err(|error| self.error(error))?;
        Ok(convert::written(written))
    }

    async fn bulk_put(
        &mut self,
        namespace: String,
        items: Vec<BulkItem>,
    ) -> Result<Vec<Written>, BulkError> {
        let request = convert::bulk_put_request(namespace, items)
            .map_err(|failed| self.bulk_error(failed))?;
        let written = self
            .gate
            .bulk_put(&self.caller, request)
            .await
            .map_err(|failed| self.bulk_error(failed))?;
        Ok(written.into_iter().map(convert::written).collect())
    }

    async fn delete(
        &mut self,
        namespace: String,
        key: String,
        guard: DeleteGuard,
    ) -> Result<bool, Error> {
        let request =
            convert::delete_request(namespace, key, guard).map_err(|error| self.error(error))?;
        self.gate
            .delete(&self.caller, request)
            .await
            .map_err(|error| self.error(error))
    }

    async fn list(&mut self, namespace: String, options: ListOptions) -> Result<Page, Error> {
        let request =
            convert::list_request(namespace, options).map_err(|error| self.error(error))?;
        let page = self
            .gate
            .list(&self.caller, request)
            .await
            .map_err(|error| self.error(error))?;
        Ok(convert::page(page))
    }

    async fn usage(&mut self) -> Result<InstallUsage, Error> {
        let usage = self
            .gate
            .usage(&self.caller)
            .await
            .map_err(|error| self.error(error))?;
        Ok(convert::usage(usage))
    }
}

impl HostCtx {
    /// What the guest gets to see. Whatever lies behind a fault of the host stays in the log.
    fn error(&self, error: alga_storage::Error) -> Error {
        let code = error.code().as_str();
        match &error {
            alga_storage::Error::Internal(cause) => {
                let cause = ErrorChain(cause.as_ref());
                tracing::error!(
                    error.code = code,
                    error.blame = "host",
                    error = %cause,
                    "the storage failed"
                );
            }
            alga_storage::Error::Unavailable(cause) => {
                // While it is away every operation of every guest fails so.
                if let Some(unsaid) = self.gate.outages().unsaid(&error, Instant::now()) {
                    let cause = ErrorChain(cause.as_ref());
                    tracing::warn!(
                        error.code = code,
                        error.blame = "host",
                        error = %cause,
                        unsaid,
                        "the storage can't be reached"
                    );
                }
            }
            refused => {
                tracing::debug!(
                    error.code = code,
                    error.blame = "guest",
                    error = %refused,
                    "the storage refused"
                );
            }
        }
        convert::error(error, &self.invocation.request_id)
    }

    fn bulk_error(&self, failed: alga_storage::BulkError) -> BulkError {
        BulkError {
            item: failed.item.map(convert::failed_item),
            error: self.error(failed.error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use alga_sqlite::Options;
    use alga_storage::suite::{Install, Stage};
    use alga_storage::{Limits, Quotas, RateLimit, Rates, SqliteBackend};

    use super::*;
    use crate::bindings::alga::storage::types::PutGuard;
    use crate::ctx::{Invocation, Served};
    use crate::log::{InvocationLog, LogLimits};

    async fn stage() -> Stage {
        let clock = Stage::clock();
        let backend = SqliteBackend::open(Options::memory(), Arc::clone(&clock) as _)
            .await
            .unwrap();
        Stage::new(Arc::new(backend), clock)
    }

    /// The context of a guest of `install`.
    fn guest(install: &Install<'_>) -> HostCtx {
        let served = Served {
            tenant: install.tenant,
            install: install.caller.install,
            extension: "com.example.suite".parse().unwrap(),
            version: "1.0.0".into(),
            config: BTreeMap::new(),
        };
        let invocation = Invocation {
            request_id: "req-1".into(),
            served: Arc::new(served),
        };
        let log = InvocationLog::new(LogLimits::default(), tracing::Span::none(), None);
        HostCtx::new(
            invocation,
            install.gate().clone(),
            install.caller.clone(),
            log,
        )
    }

    fn options(guard: PutGuard) -> PutOptions {
        PutOptions {
            metadata: None,
            ttl_seconds: None,
            schema_version: None,
            guard,
            return_previous: true,
            return_current: true,
        }
    }

    fn item(key: &str, guard: PutGuard) -> BulkItem {
        BulkItem {
            key: key.to_owned(),
            value: "1".to_owned(),
            metadata: None,
            ttl_seconds: None,
            schema_version: None,
            guard,
        }
    }

    fn everything() -> ListOptions {
        ListOptions {
            key_prefix: None,
            start_key: None,
            end_key: None,
            reverse: false,
            limit: Some(1),
            cursor: None,
            include_values: true,
            include_metadata: false,
        }
    }

    async fn put(
        guest: &mut HostCtx,
        key: &str,
        value: &str,
        options: PutOptions,
    ) -> Result<Written, Error> {
        guest
            .put(
                "notes".to_owned(),
                key.to_owned(),
                value.to_owned(),
                options,
            )
            .await
    }

    #[tokio::test]
    async fn every_operation_passes_the_door() {
        let stage = stage().await;
        let guest = &mut guest(&stage.install());
        let notes = || "notes".to_owned();

        let lived = PutOptions {
            metadata: Some("{ \"m\": 1 }".to_owned()),
            ttl_seconds: Some(60),
            ..options(PutGuard::Absent)
        };
        let first = put(guest, "a", "{ \"n\": 1e5 }", lived).await.unwrap();
        assert_eq!((first.revision, first.previous.is_none()), (1, true));
        assert_eq!(first.expires_at, Some(first.updated_at + 60_000));
        let read = guest.get(notes(), "a".to_owned(), Some(1)).await.unwrap();
        assert_eq!(
            (read.value.as_str(), read.metadata.as_str()),
            ("{\"n\":1e5}", "{\"m\":1}")
        );
        let second = put(guest, "a", "2", options(PutGuard::Revision(1)))
            .await
            .unwrap();
        assert_eq!(second.previous.unwrap().value, "{\"n\":1e5}");

        let written = guest
            .bulk_put(
                notes(),
                vec![item("b", PutGuard::Absent), item("c", PutGuard::None)],
            )
            .await
            .unwrap();
        assert_eq!(written.len(), 2);
        let keys = ["c", "missing", "a"].map(ToOwned::to_owned).to_vec();
        let found = guest.get_many(notes(), keys).await.unwrap();
        let values: Vec<_> = found
            .iter()
            .map(|entry| entry.as_ref().map(|entry| entry.value.as_str()))
            .collect();
        assert_eq!(values, [Some("1"), None, Some("2")]);

        let page = guest.list(notes(), everything()).await.unwrap();
        assert_eq!(
            (page.items[0].key.as_str(), page.items[0].value.as_deref()),
            ("a", Some("2"))
        );
        assert_eq!(page.items[0].metadata, None);
        let next = ListOptions {
            cursor: page.next_cursor,
            ..everything()
        };
        assert_eq!(guest.list(notes(), next).await.unwrap().items[0].key, "b");

        let usage = guest.usage().await.unwrap();
        assert_eq!(
            (usage.keys, usage.namespaces, usage.max_namespaces),
            (3, 1, 32)
        );
        assert_eq!(usage.per_namespace[0].namespace, "notes");
        assert!(
            guest
                .delete(notes(), "a".to_owned(), DeleteGuard::Revision(2))
                .await
                .unwrap()
        );
        assert!(
            !guest
                .delete(notes(), "a".to_owned(), DeleteGuard::None)
                .await
                .unwrap()
        );
    }

    #[tokio::test]
    async fn each_refusal_is_its_own_case() {
        let stage = stage().await;
        let install = stage.install();
        let guest = &mut guest(&install);
        let get = async |guest: &mut HostCtx, namespace: &str, key: &str| {
            guest
                .get(namespace.to_owned(), key.to_owned(), None)
                .await
                .unwrap_err()
        };
        let Error::ValidationFailed(violations) = get(guest, "notes", "a/b").await else {
            panic!()
        };
        assert_eq!(violations[0].instance_path, "key");
        assert!(matches!(
            get(guest, "NOTES", "a").await,
            Error::ValidationFailed(_)
        ));
        assert!(
            matches!(get(guest, "other", "a").await, Error::NamespaceDenied(name) if name == "other")
        );
        assert!(matches!(get(guest, "notes", "a").await, Error::NotFound));
        for guard in [PutGuard::Revision(0), PutGuard::Revision(u64::MAX)] {
            assert!(matches!(
                put(guest, "a", "1", options(guard)).await,
                Err(Error::ValidationFailed(_))
            ));
        }

        put(guest, "a", "1", options(PutGuard::None)).await.unwrap();
        let Err(Error::RevisionMismatch(conflict)) =
            put(guest, "a", "2", options(PutGuard::Absent)).await
        else {
            panic!()
        };
        assert_eq!(
            (
                conflict.current_revision,
                conflict.current.unwrap().value.as_str()
            ),
            (Some(1), "1")
        );
        let large = format!("\"{}\"", "v".repeat(65_535));
        let Err(Error::LimitExceeded(limit)) =
            put(guest, "a", &large, options(PutGuard::None)).await
        else {
            panic!()
        };
        assert_eq!(
            (limit.name.as_str(), limit.limit, limit.actual),
            ("value-bytes", 65_536, 65_537)
        );

        let failed = guest
            .bulk_put(
                "notes".to_owned(),
                vec![item("b", PutGuard::None), item("a", PutGuard::Absent)],
            )
            .await
            .unwrap_err();
        let bad_key = guest
            .bulk_put(
                "notes".to_owned(),
                vec![item("b", PutGuard::None), item("a/b", PutGuard::None)],
            )
            .await
            .unwrap_err();
        let bad_item = bad_key.item.unwrap();
        assert_eq!((bad_item.index, bad_item.key.as_str()), (1, "a/b"));
        let failed_item = failed.item.unwrap();
        assert_eq!((failed_item.index, failed_item.key.as_str()), (1, "a"));
        assert!(matches!(failed.error, Error::RevisionMismatch(_)));
    }

    #[tokio::test]
    async fn what_an_install_may_not_exceed_is_refused_with_its_figures() {
        let stage = stage().await;
        let install = stage.install();
        let guest = &mut guest(&install);
        put(guest, "a", "1", options(PutGuard::None)).await.unwrap();
        let full = Limits {
            quotas: Quotas {
                keys_per_namespace: 1,
                ..Quotas::default()
            },
            ..Stage::roomy()
        };
        install.grant(Some(all()), full, true);
        let Err(Error::QuotaExceeded(quota)) = put(guest, "b", "1", options(PutGuard::None)).await
        else {
            panic!()
        };
        assert_eq!(
            (
                quota.name.as_str(),
                quota.limit,
                quota.used,
                quota.attempted
            ),
            ("keys-per-namespace", 1, 1, 2)
        );
        let slow = RateLimit {
            per_second: 1,
            burst: 1,
        };
        let rates = Rates::new(slow, slow, Rates::TENANT_FACTOR);
        let fresh = stage.install_with(
            alga_model::TenantId::generate(),
            Limits {
                rates,
                ..Limits::default()
            },
        );
        let hasty = &mut self::guest(&fresh);
        let get = async |guest: &mut HostCtx| {
            guest
                .get("notes".to_owned(), "a".to_owned(), None)
                .await
                .unwrap_err()
        };
        get(hasty).await;
        assert!(matches!(get(hasty).await, Error::RateLimited(1..=1_000)));
        install.grant(None, Limits::default(), true);
        assert!(matches!(get(guest).await, Error::CapabilityDenied));
        assert!(matches!(guest.usage().await, Err(Error::CapabilityDenied)));
    }

    fn all() -> alga_storage::StorageGrant {
        alga_storage::StorageGrant::all_of([alga_storage::Namespace::parse("notes").unwrap()])
    }
}
