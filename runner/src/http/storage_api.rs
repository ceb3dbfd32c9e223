//! The storage of extensions, for the services that run them: `POST
//! /api/internal/ext-storage/install/{install_id}`.

use std::sync::Arc;
use std::time::Instant;

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
    pub fn new(gate: Gate, grants: Arc<dyn GrantSource>) -> Self {
        Self { gate, grants }
    }

    /// Who asks about which install, before the request itself is read.
    pub(super) async fn caller(
        &self,
        principal: Principal<'_>,
        install: &str,
        headers: &HeaderMap,
        RequestId(request_id): RequestId,
    ) -> Result<Caller, ApiError> {
        let service = principal.service()?;
        if headers.get(VERSION).is_some_and(|it| it != SPOKEN) {
            let message = format!("this service speaks version {SPOKEN}");
            return Err(refused(Violation::argument(VERSION.as_str(), message)));
        }
        let install: InstallId = install
            .parse()
            .map_err(|_| refused(Violation::argument("installId", "it is no UUID")))?;
        self.ensure_may_act_for(principal, install).await?;
        let acts_for = auth::acts_for(headers)?;
        Ok(Caller {
            install,
            // Only who runs extensions for everybody is believed to speak of an invocation.
            actor: match acts_for.and_then(Actor::of_invocation) {
                Some(invocation) if principal.is_unlimited() => invocation,
                _ => Actor::of_service(service, acts_for),
            },
            request_id,
            may_use_storage: true,
            operation_id: None,
        })
    }

    /// Answers a request.
    pub(super) async fn answer(&self, caller: Caller, body: &[u8]) -> Result<Response, ApiError> {
        let Asked {
            request,
            operation_id,
        } = Asked::parse(body).map_err(ApiError::Storage)?;
        let caller = Caller {
            operation_id,
            ..caller
        };
        let answer = self.gate.answer(&caller, request).await;
        let answer = answer.map_err(|failed| self.failed(failed))?;
        Ok(Json(answer).into_response())
    }

    /// Says what went wrong in the host, when that begins; whoever asked learns its code alone.
    fn failed(&self, failed: BulkError) -> ApiError {
        let code = failed.error.code();
        if let Error::Unavailable(cause) | Error::Internal(cause) = &failed.error
            && let Some(unsaid) = self.gate.outages().unsaid(&failed.error, Instant::now())
        {
            tracing::warn!(error = %ErrorChain(&**cause), error.code = %code, error.blame = "host", unsaid, "the storage failed");
        }
        ApiError::Storage(failed)
    }

    /// Fails as for an install that there is not.
    async fn ensure_may_act_for(
        &self,
        principal: Principal<'_>,
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
