//! Between the WIT types of `alga:storage` and the contract's own.

use alga_model::Timestamp;
use alga_storage::{
    BulkPutRequest, Conflict, DeleteRequest, GetManyRequest, GetRequest, Guard, JsonText, Key,
    KeyRange, ListRequest, Listed as ListedRecord, Namespace, PutRequest, Record, Revision,
};

use crate::bindings::alga::storage::types::{
    self, BulkItem, DeleteGuard, Entry, Error, FailedItem, InstallUsage, Limit, ListOptions,
    Listed, NamespaceUsage, Page, PutGuard, PutOptions, Quota, Violation, Written,
};

pub(crate) fn get_request(
    namespace: String,
    key: String,
    if_revision: Option<u64>,
) -> Result<GetRequest, alga_storage::Error> {
    Ok(GetRequest {
        namespace: Namespace::parse(namespace)?,
        key: Key::parse(key)?,
        if_revision: if_revision.map(Revision::parse).transpose()?,
    })
}

pub(crate) fn get_many_request(
    namespace: String,
    keys: Vec<String>,
) -> Result<GetManyRequest, alga_storage::Error> {
    let namespace = Namespace::parse(namespace)?;
    let keys = keys.into_iter().map(Key::parse).collect::<Result<_, _>>()?;
    Ok(GetManyRequest { namespace, keys })
}

pub(crate) fn put_request(
    namespace: String,
    key: String,
    value: String,
    options: PutOptions,
) -> Result<PutRequest, alga_storage::Error> {
    Ok(PutRequest {
        namespace: Namespace::parse(namespace)?,
        item: alga_storage::BulkItem {
            key: Key::parse(key)?,
            value,
            metadata: options.metadata,
            ttl_seconds: options.ttl_seconds.map(u64::from),
            schema_version: options.schema_version,
            guard: put_guard(options.guard)?,
        },
        return_previous: options.return_previous,
        return_current: options.return_current,
    })
}

pub(crate) fn bulk_put_request(
    namespace: String,
    items: Vec<BulkItem>,
) -> Result<BulkPutRequest, alga_storage::BulkError> {
    let namespace = Namespace::parse(namespace)?;
    let items = items.into_iter().enumerate().map(|(index, mut item)| {
        let key = std::mem::take(&mut item.key);
        bulk_item(&key, item).map_err(|error| alga_storage::BulkError {
            item: Some(alga_storage::FailedItem::new(index, &key)),
            error,
        })
    });
    Ok(BulkPutRequest {
        namespace,
        items: items.collect::<Result<_, _>>()?,
    })
}

/// `item`, whose key is apart.
fn bulk_item(key: &str, item: BulkItem) -> Result<alga_storage::BulkItem, alga_storage::Error> {
    Ok(alga_storage::BulkItem {
        key: Key::parse(key)?,
        value: item.value,
        metadata: item.metadata,
        ttl_seconds: item.ttl_seconds.map(u64::from),
        schema_version: item.schema_version,
        guard: put_guard(item.guard)?,
    })
}

pub(crate) fn delete_request(
    namespace: String,
    key: String,
    guard: DeleteGuard,
) -> Result<DeleteRequest, alga_storage::Error> {
    let guard = match guard {
        DeleteGuard::None => Guard::Any,
        DeleteGuard::Exists => Guard::Exists,
        DeleteGuard::Revision(revision) => Guard::Exactly(Revision::parse(revision)?),
    };
    Ok(DeleteRequest {
        namespace: Namespace::parse(namespace)?,
        key: Key::parse(key)?,
        guard,
    })
}

pub(crate) fn list_request(
    namespace: String,
    options: ListOptions,
) -> Result<ListRequest, alga_storage::Error> {
    let range = KeyRange::parse(
        options.key_prefix.as_deref(),
        options.start_key.as_deref(),
        options.end_key.as_deref(),
    )?;
    Ok(ListRequest {
        namespace: Namespace::parse(namespace)?,
        range,
        reverse: options.reverse,
        limit: options.limit,
        cursor: options.cursor,
        include_values: options.include_values,
        include_metadata: options.include_metadata,
    })
}

fn put_guard(guard: PutGuard) -> Result<Guard, alga_storage::Error> {
    Ok(match guard {
        PutGuard::None => Guard::Any,
        PutGuard::Absent => Guard::Absent,
        PutGuard::Exists => Guard::Exists,
        PutGuard::Revision(revision) => Guard::Exactly(Revision::parse(revision)?),
    })
}

pub(crate) fn entry(record: Record) -> Entry {
    Entry {
        key: record.key.to_string(),
        value: record.value.into_string(),
        metadata: record.metadata.into_string(),
        revision: record.revision.get(),
        expires_at: record.expires_at.map(timestamp),
        created_at: timestamp(record.created_at),
        updated_at: timestamp(record.updated_at),
    }
}

pub(crate) fn written(written: alga_storage::Written) -> Written {
    Written {
        revision: written.revision.get(),
        expires_at: written.expires_at.map(timestamp),
        created_at: timestamp(written.created_at),
        updated_at: timestamp(written.updated_at),
        previous: written.previous.map(entry),
    }
}

pub(crate) fn page(page: alga_storage::Page) -> Page {
    Page {
        items: page.items.into_iter().map(listed).collect(),
        next_cursor: page.next_cursor,
    }
}

fn listed(record: ListedRecord) -> Listed {
    Listed {
        key: record.key.to_string(),
        revision: record.revision.get(),
        value: record.value.map(JsonText::into_string),
        metadata: record.metadata.map(JsonText::into_string),
        expires_at: record.expires_at.map(timestamp),
        created_at: timestamp(record.created_at),
        updated_at: timestamp(record.updated_at),
    }
}

pub(crate) fn usage(usage: alga_storage::Usage) -> InstallUsage {
    InstallUsage {
        bytes: usage.bytes,
        keys: usage.keys,
        namespaces: count(usage.per_namespace.len() as u64),
        expired_keys: usage.expired_keys,
        expired_bytes: usage.expired_bytes,
        max_bytes: usage.quotas.bytes_per_install,
        max_keys_per_namespace: usage.quotas.keys_per_namespace,
        max_namespaces: count(usage.quotas.namespaces),
        per_namespace: usage
            .per_namespace
            .into_iter()
            .map(|of| NamespaceUsage {
                namespace: of.namespace.to_string(),
                keys: of.keys,
                bytes: of.bytes,
            })
            .collect(),
    }
}

pub(crate) fn failed_item(item: alga_storage::FailedItem) -> FailedItem {
    FailedItem {
        index: count(item.index as u64),
        key: item.key,
    }
}

/// One match without a wildcard, so that a new code doesn't compile until guests can see it.
pub(crate) fn error(error: alga_storage::Error, request_id: &str) -> Error {
    match error {
        alga_storage::Error::ValidationFailed(violations) => {
            Error::ValidationFailed(violations.into_iter().map(violation).collect())
        }
        alga_storage::Error::LimitExceeded(limit) => Error::LimitExceeded(Limit {
            name: limit.name.to_owned(),
            limit: limit.limit,
            actual: limit.actual,
        }),
        alga_storage::Error::Unauthorized => Error::Unauthorized,
        alga_storage::Error::CapabilityDenied => Error::CapabilityDenied,
        alga_storage::Error::NamespaceDenied(namespace) => {
            Error::NamespaceDenied(namespace.to_string())
        }
        alga_storage::Error::NotFound => Error::NotFound,
        alga_storage::Error::RevisionMismatch(found) => Error::RevisionMismatch(conflict(*found)),
        alga_storage::Error::QuotaExceeded(quota) => Error::QuotaExceeded(Quota {
            name: quota.name.as_str().to_owned(),
            limit: quota.limit,
            used: quota.used,
            attempted: quota.attempted,
        }),
        alga_storage::Error::RateLimited { retry_after } => {
            // Rounded up: a guest that waits this long is not refused again.
            let ms = retry_after.as_nanos().div_ceil(1_000_000);
            Error::RateLimited(u64::try_from(ms).unwrap_or(u64::MAX))
        }
        alga_storage::Error::Unavailable(_) => Error::Unavailable,
        alga_storage::Error::Internal(_) => Error::Internal(request_id.to_owned()),
    }
}

fn conflict(found: Conflict) -> types::Conflict {
    types::Conflict {
        current_revision: found.current_revision.map(Revision::get),
        current: found.current.map(entry),
    }
}

fn violation(violation: alga_storage::Violation) -> Violation {
    Violation {
        instance_path: violation.instance_path,
        schema_path: violation.schema_path,
        message: violation.message,
    }
}

fn timestamp(time: Timestamp) -> u64 {
    time.as_millis().unsigned_abs()
}

fn count(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_wait_is_rounded_up_to_whole_milliseconds() {
        for (nanos, expected) in [(1, 1), (1_000_000, 1), (1_000_001, 2)] {
            let limited = alga_storage::Error::RateLimited {
                retry_after: Duration::from_nanos(nanos),
            };
            let Error::RateLimited(ms) = error(limited, "1") else {
                panic!("the code changed on the way")
            };
            assert_eq!(ms, expected);
        }
    }

    #[test]
    fn a_fault_of_the_host_shows_the_request_id_and_nothing_else() {
        let fault = alga_storage::Error::Internal("disk on fire at /dev/sda".into());
        let Error::Internal(shown) = error(fault, "req-1") else {
            panic!("the code changed on the way")
        };
        assert_eq!(shown, "req-1");
    }
}
