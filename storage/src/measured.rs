//! What is measured of operations.

use std::time::Duration;

use metrics::{Counter, Histogram};

/// What a caller asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Get,
    GetMany,
    Put,
    BulkPut,
    Delete,
    List,
    Usage,
}

impl Operation {
    const ALL: [Self; 7] = [
        Self::Get,
        Self::GetMany,
        Self::Put,
        Self::BulkPut,
        Self::Delete,
        Self::List,
        Self::Usage,
    ];

    /// Its name in metrics and logs.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::GetMany => "getMany",
            Self::Put => "put",
            Self::BulkPut => "bulkPut",
            Self::Delete => "delete",
            Self::List => "list",
            Self::Usage => "usage",
        }
    }
}

/// The metrics of operations that succeed, looked up once: a recorder hashes and copies the labels
/// whenever it is asked for one.
#[derive(Debug)]
pub(crate) struct Measured {
    done: [Histogram; Operation::ALL.len()],
    /// Values and metadata that passed the gate.
    pub(crate) read: Counter,
    pub(crate) written: Counter,
}

impl Default for Measured {
    fn default() -> Self {
        let bytes =
            |direction| metrics::counter!("alga_storage_bytes_total", "direction" => direction);
        Self {
            done: Operation::ALL.map(|operation| duration(operation, "OK")),
            read: bytes("read"),
            written: bytes("written"),
        }
    }
}

impl Measured {
    /// Times an operation that succeeded.
    pub(crate) fn done(&self, operation: Operation, took: Duration) {
        if let Some(done) = self.done.get(operation as usize) {
            done.record(took);
        }
    }
}

/// How long an operation took, by what came of it.
pub(crate) fn duration(operation: Operation, outcome: &'static str) -> Histogram {
    metrics::histogram!("alga_storage_operation_duration_seconds", "operation" => operation.as_str(), "outcome" => outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_its_own_place() {
        for (index, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, index, "{operation:?}");
        }
    }
}
