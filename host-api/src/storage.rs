//! `alga:storage/records`: the storage door of guests. It converts and calls the gate.

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
        if let alga_storage::Error::Internal(cause) | alga_storage::Error::Unavailable(cause) =
            &error
        {
            tracing::error!(
                error.code = error.code().as_str(),
                error.blame = "host",
                error = cause.as_ref() as &dyn std::error::Error,
                "a storage operation of a guest failed"
            );
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
