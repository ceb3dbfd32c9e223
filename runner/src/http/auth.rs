//! Who calls.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};

use alga_model::{InstallId, TenantId};

use super::AppState;
use super::error::ApiError;
use super::request_id::RequestId;
use crate::admin::Author;
use crate::config::{TokenScope, own_ids};
use crate::tokens::{Role, Token};

/// The service header of older gateways; the same tokens as `Authorization: Bearer`.
const RUNNER_AUTH: &str = "x-runner-auth";
/// Says that a service acts as an administrator.
const ALGA_ADMIN: &str = "x-alga-admin";
/// For whom a service acts.
const ALGA_ACTOR: &str = "x-alga-actor";
/// The audit takes 256 bytes, of which the token's id has up to 64.
const MAX_ACTOR_BYTES: usize = 128;

/// A caller whose token was accepted.
#[derive(Debug, Clone, Copy)]
pub(super) enum Principal<'a> {
    /// Known by a token.
    Token(&'a Token),
    /// Anybody: the process runs in the insecure development mode.
    Anybody,
}

impl<'a> Principal<'a> {
    /// Who sends a request with these headers.
    pub(super) fn of(headers: &HeaderMap, state: &'a AppState) -> Result<Self, ApiError> {
        let Some(tokens) = &state.tokens else {
            ensure_local(headers)?;
            return Ok(Self::Anybody);
        };
        let presented = presented(headers).ok_or(ApiError::Unauthorized)?;
        let token = tokens.authenticate(presented);
        token.map(Self::Token).ok_or(ApiError::Unauthorized)
    }

    /// Whether the caller may act on an install of a tenant.
    pub(super) fn may_call(self, tenant: TenantId, install: InstallId) -> bool {
        match self {
            Self::Token(token) => token.allows(tenant, install),
            Self::Anybody => true,
        }
    }

    /// Whether the caller may act on every install.
    pub(super) fn is_unlimited(self) -> bool {
        match self {
            Self::Token(token) => token.is_unlimited(),
            Self::Anybody => true,
        }
    }

    /// What the caller is called in logs and audit, if it is a service.
    pub(super) fn service(self) -> Result<&'a str, ApiError> {
        match self {
            Self::Token(token) if token.role == Role::Service => Ok(&token.id),
            Self::Token(_) => Err(ApiError::Forbidden("this is for service tokens")),
            Self::Anybody => Ok(own_ids::ANYBODY),
        }
    }

    /// Fails unless the caller may see what concerns the whole process.
    pub(super) fn ensure_operator(self) -> Result<(), ApiError> {
        if self.is_unlimited() {
            Ok(())
        } else {
            Err(ApiError::Forbidden(
                "the token is limited to some tenants or installs",
            ))
        }
    }
}

/// A caller who may do what administrators do.
#[derive(Debug, Clone)]
pub(super) struct Administrator(pub(super) Author);

impl FromRequestParts<AppState> for Administrator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let principal = Principal::of(&parts.headers, state)?;
        let request_id = parts.extensions.get::<RequestId>();
        let request_id = request_id.map(|id| Arc::clone(&id.0));
        let (who, scope) = match principal {
            Principal::Anybody => (own_ids::ANYBODY.to_owned(), TokenScope::default()),
            Principal::Token(token) => (who(token, &parts.headers)?, token.scope().clone()),
        };
        Ok(Self(Author {
            actor: format!("admin:{who}"),
            request_id,
            scope,
        }))
    }
}

/// Whom the audit names. A service says so where it acts as an administrator, and may say for whom.
fn who(token: &Token, headers: &HeaderMap) -> Result<String, ApiError> {
    match token.role {
        Role::Admin => Ok(token.id.clone()),
        Role::Service if is_repeated(headers, ALGA_ADMIN) => Err(repeated()),
        Role::Service if headers.get(ALGA_ADMIN).is_some_and(|it| it == "true") => {
            let actor = acts_for(headers)?;
            Ok(actor.map_or_else(|| token.id.clone(), |actor| format!("{}/{actor}", token.id)))
        }
        Role::Service => Err(ApiError::Forbidden(
            "administration needs an admin token, or a service token with `x-alga-admin: true`",
        )),
    }
}

/// For whom a service says that it acts.
pub(super) fn acts_for(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let Some(actor) = headers.get(ALGA_ACTOR) else {
        return Ok(None);
    };
    if is_repeated(headers, ALGA_ACTOR) {
        return Err(repeated());
    }
    let fine = |actor: &&str| {
        (1..=MAX_ACTOR_BYTES).contains(&actor.len())
            && actor.bytes().all(|byte| byte.is_ascii_graphic())
    };
    let actor = actor.to_str().ok().filter(fine);
    actor.map(Some).ok_or_else(|| {
        ApiError::BadRequest("x-alga-actor must be 1 to 128 visible ASCII characters".to_owned())
    })
}

/// Whoever adds one of these behind that of a caller must not be taken for having said it.
fn repeated() -> ApiError {
    ApiError::BadRequest("x-alga-admin and x-alga-actor may be there once".to_owned())
}

fn is_repeated(headers: &HeaderMap, name: &str) -> bool {
    headers.get_all(name).iter().nth(1).is_some()
}

/// Where no token is asked for, a page that the developer's browser happens to show must not be able
/// to call: neither from its own origin, nor from one that was made to resolve to this machine.
fn ensure_local(headers: &HeaderMap) -> Result<(), ApiError> {
    let of = |name: HeaderName| {
        headers
            .get(name)
            .map(|value| value.to_str().unwrap_or_default())
    };
    let host_is_local = of(HOST).is_none_or(is_loopback);
    let origin_is_local = of(ORIGIN).is_none_or(|origin| {
        origin
            .split_once("://")
            .is_some_and(|(_, host)| is_loopback(host))
    });
    if host_is_local && origin_is_local {
        Ok(())
    } else {
        Err(ApiError::Forbidden(
            "in the insecure mode only this machine may call, and no foreign page",
        ))
    }
}

/// Whether a host, with or without a port, is this machine by name or address.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(address, _)| address),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    name == "localhost"
        || name
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
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
    fn without_tokens_only_this_machine_may_call() {
        for host in [
            "localhost",
            "localhost:7410",
            "127.0.0.1:7410",
            "127.9.9.9",
            "[::1]:7410",
            "[::1]",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "example.com",
            "localhost.example.com",
            "127.0.0.1.example.com",
            "10.0.0.1:7410",
            "[::2]",
            "[::1",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
        assert!(ensure_local(&of("origin", "http://localhost:3000")).is_ok());
        for headers in [
            of("origin", "https://evil.example"),
            of("origin", "null"),
            of("host", "evil.example:7410"),
        ] {
            assert!(ensure_local(&headers).is_err(), "{headers:?}");
        }
    }

    #[test]
    fn a_service_says_when_it_acts_as_an_administrator_and_may_say_for_whom() {
        let of_role = |role| Token::for_test("gateway", role);
        let acting = |headers: &[(&'static str, &str)]| {
            let headers = headers.iter().map(|(name, value)| {
                let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
                (HeaderName::from_static(name), value)
            });
            who(&of_role(Role::Service), &headers.collect()).ok()
        };
        let admin = (ALGA_ADMIN, "true");
        assert_eq!(acting(&[admin]).as_deref(), Some("gateway"));
        let ann = acting(&[admin, (ALGA_ACTOR, "ann@example.com")]);
        assert_eq!(ann.as_deref(), Some("gateway/ann@example.com"));
        assert!(acting(&[admin, (ALGA_ACTOR, &"a".repeat(MAX_ACTOR_BYTES))]).is_some());
        for refused in [
            &[][..],
            &[(ALGA_ADMIN, "yes")],
            &[(ALGA_ACTOR, "ann")],
            &[admin, (ALGA_ACTOR, "")],
            &[admin, (ALGA_ACTOR, "a b")],
            &[admin, (ALGA_ACTOR, "\u{e4}")],
            &[admin, (ALGA_ACTOR, &"a".repeat(MAX_ACTOR_BYTES + 1))],
        ] {
            assert_eq!(acting(refused), None, "{refused:?}");
        }
        // Nobody vouches for what an administrator's own client says.
        let headers = of(ALGA_ACTOR, "somebody-else");
        let who = who(&of_role(Role::Admin), &headers).ok();
        assert_eq!(who.as_deref(), Some("gateway"));
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
