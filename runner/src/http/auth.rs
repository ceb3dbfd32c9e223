//! Who calls.

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;

use alga_model::{InstallId, TenantId};

use super::AppState;
use super::error::ApiError;
use crate::tokens::Token;

/// The service header of older gateways; the same tokens as `Authorization: Bearer`.
const RUNNER_AUTH: &str = "x-runner-auth";

/// A caller whose token was accepted.
#[derive(Debug, Clone)]
pub(super) enum Principal {
    /// Known by a token.
    Token(Token),
    /// Anybody: the process runs in the insecure development mode.
    Anybody,
}

impl Principal {
    /// Whether the caller may act on an install of a tenant.
    pub(super) fn may_call(&self, tenant: TenantId, install: InstallId) -> bool {
        match self {
            Self::Token(token) => token.allows(tenant, install),
            Self::Anybody => true,
        }
    }

    /// Fails unless the caller may see what concerns the whole process.
    pub(super) fn ensure_operator(&self) -> Result<(), ApiError> {
        match self {
            Self::Token(token) if !token.is_unlimited() => Err(ApiError::Forbidden(
                "the token is limited to some tenants or installs",
            )),
            Self::Token(_) | Self::Anybody => Ok(()),
        }
    }
}

impl FromRequestParts<AppState> for Principal {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let Some(tokens) = &state.tokens else {
            return Ok(Self::Anybody);
        };
        let presented = presented(&parts.headers).ok_or(ApiError::Unauthorized)?;
        let token = tokens
            .authenticate(presented)
            .ok_or(ApiError::Unauthorized)?;
        Ok(Self::Token(token.clone()))
    }
}

fn presented(headers: &HeaderMap) -> Option<&str> {
    let bearer = || {
        let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    };
    let runner_auth = || headers.get(RUNNER_AUTH)?.to_str().ok();
    bearer()
        .or_else(runner_auth)
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn of(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static(value))])
    }

    #[test]
    fn a_token_is_presented_in_either_header() {
        assert_eq!(presented(&of("authorization", "Bearer abc")), Some("abc"));
        assert_eq!(presented(&of("authorization", "bearer abc")), Some("abc"));
        assert_eq!(presented(&of("x-runner-auth", "abc")), Some("abc"));
        for headers in [
            of("authorization", "Basic abc"),
            of("authorization", "abc"),
            of("authorization", "Bearer "),
            of("x-runner-auth", ""),
        ] {
            assert_eq!(presented(&headers), None, "{headers:?}");
        }
    }
}
