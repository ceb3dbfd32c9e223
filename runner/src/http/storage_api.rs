//! The storage of extensions, for the services that run them: `POST
//! /api/internal/ext-storage/install/{install_id}`.

use std::sync::Arc;

use alga_model::{ErrorChain, InstallId};
use alga_storage::{Actor, Asked, BulkError, Caller, Error, Gate, GrantSource, Violation};
use axum::Json;
use axum::http::{HeaderMap, HeaderName};
use axum::response::{IntoResponse as _, Response};

use super::auth::{self, Principal};
use super::error::ApiError;
use super::request_id::RequestId;

/// The path.
pub(super) const PATH: &str = "/api/internal/ext-storage/install/{install_id}";

/// Names the API that is spoken.
const VERSION: HeaderName = HeaderName::from_static("x-alga-storage-version");
/// The only one there is.
const SPOKEN: &str = "1";

/// Serves the storage of extensions to services.
#[derive(Debug, Clone)]
pub struct StorageApi {
    gate: Gate,
    grants: Arc<dyn GrantSource>,
}

impl StorageApi {
    /// Serves what `gate` allows; `grants` tells whose an install is.
    pub const fn new(gate: Gate, grants: Arc<dyn GrantSource>) -> Self {
        Self { gate, grants }
    }

    /// Answers a request about an install.
    pub(super) async fn answer(
        &self,
        principal: &Principal,
        install: &str,
        headers: &HeaderMap,
        RequestId(request_id): RequestId,
        body: &[u8],
    ) -> Result<Response, ApiError> {
        if headers.get(VERSION).is_some_and(|it| it != SPOKEN) {
            let message = format!("this service speaks version {SPOKEN}");
            return Err(refused(Violation::argument(VERSION.as_str(), message)));
        }
        let install: InstallId = install
            .parse()
            .map_err(|_| refused(Violation::argument("installId", "it is no UUID")))?;
        let Asked {
            request,
            operation_id,
        } = Asked::parse(body).map_err(refused)?;
        self.ensure_may_act_for(principal, install).await?;
        let (service, of) = (principal.name(), auth::acts_for(headers)?);
        let caller = Caller {
            install,
            actor: Actor::on_behalf(service, of),
            request_id,
            may_use_storage: true,
            operation_id,
        };
        let answer = self.gate.answer(&caller, request).await;
        let answer = answer.map_err(ApiError::Storage)?;
        Ok(Json(answer).into_response())
    }

    /// Fails as for an install that there is not.
    async fn ensure_may_act_for(
        &self,
        principal: &Principal,
        install: InstallId,
    ) -> Result<(), ApiError> {
        if principal.is_unlimited() {
            return Ok(());
        }
        let found = self.grants.snapshot(install).await.map_err(refused)?;
        let tenant = found.map(|found| found.tenant);
        if tenant.is_some_and(|tenant| principal.may_call(tenant, install)) {
            Ok(())
        } else {
            Err(refused(Error::CapabilityDenied))
        }
    }
}

fn refused(error: Error) -> ApiError {
    ApiError::Storage(error.into())
}

/// Says what went wrong in the host; whoever asked learns its code alone.
pub(super) fn log_fault(failed: &BulkError) {
    match &failed.error {
        Error::Unavailable(cause) => {
            tracing::warn!(error = %ErrorChain(&**cause), error.blame = "host", "the storage is unavailable");
        }
        Error::Internal(cause) => {
            tracing::error!(error = %ErrorChain(&**cause), error.blame = "host", "a storage operation failed");
        }
        _ => {}
    }
}
