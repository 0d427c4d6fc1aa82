//! Who asks, and what a route needs of whoever asks.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use utoipa_axum::router::OpenApiRouter;

use super::Api;
use super::error::ApiError;
use super::openapi;
use crate::config::Role;
use crate::security::Access;

/// What a route asks of whoever asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// Nothing: it says nothing that is worth protecting.
    Nothing,
    /// A token that may read, unless metrics are open.
    Metrics,
    /// A token with this role, or one that includes it.
    Role(Role),
}

impl Needs {
    /// The role, where one is needed.
    pub(super) fn role(self) -> Option<Role> {
        match self {
            Self::Nothing => None,
            Self::Metrics => Some(Role::Read),
            Self::Role(role) => Some(role),
        }
    }
}

/// Who asks. Every request bears one, as an extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Caller {
    /// Anybody: there is no authentication.
    Anybody,
    /// Whoever has this token.
    Token {
        /// What the configuration calls it.
        name: Arc<str>,
        /// What it may do.
        role: Role,
    },
    /// Somebody without a token.
    Stranger {
        /// Whether metrics are open to strangers.
        open_metrics: bool,
    },
    /// Somebody with something else in the place of a token.
    Impostor {
        /// Whether metrics are open to strangers.
        open_metrics: bool,
    },
}

impl Caller {
    /// Recognizes the token that a request brings.
    pub(super) fn of(headers: &HeaderMap, access: &Access) -> Self {
        if access.is_open() {
            return Self::Anybody;
        }
        let open_metrics = access.has_open_metrics();
        let mut given = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = given.next() else { return Self::Stranger { open_metrics } };
        let token = value.to_str().ok().and_then(|value| value.split_once(' ')).filter(|_| given.next().is_none());
        let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        match token.and_then(|(_, token)| access.find(token.trim_matches(' '))) {
            Some(token) => Self::Token { name: Arc::clone(token.name()), role: token.role() },
            None => Self::Impostor { open_metrics },
        }
    }

    /// Whether this caller gets what needs this, and otherwise what is answered.
    fn check(&self, needs: Needs) -> Result<(), ApiError> {
        let Some(role) = needs.role() else { return Ok(()) };
        match self {
            Self::Anybody => Ok(()),
            Self::Token { role: own, .. } if *own >= role => Ok(()),
            Self::Token { name, role: own } => Err(forbidden(name, *own, role)),
            Self::Stranger { open_metrics } | Self::Impostor { open_metrics }
                if *open_metrics && needs == Needs::Metrics =>
            {
                Ok(())
            }
            Self::Stranger { .. } => {
                let detail = "a token is needed: send the header \"authorization: Bearer TOKEN\"";
                Err(unauthorized("unauthenticated", detail, "Bearer realm=\"memcell\""))
            }
            Self::Impostor { .. } => {
                let detail = "the authorization header has no token of this host: it may have been replaced";
                Err(unauthorized("invalid_token", detail, "Bearer realm=\"memcell\", error=\"invalid_token\""))
            }
        }
    }
}

fn unauthorized(code: &'static str, detail: &str, challenge: &'static str) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, code, detail)
        .with_header(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
}

fn forbidden(name: &str, own: Role, role: Role) -> ApiError {
    let detail =
        format!("this needs a token with the role {}, and {name} has the role {}", role.as_str(), own.as_str());
    let challenge = match role {
        Role::Read => "Bearer realm=\"memcell\", error=\"insufficient_scope\", scope=\"read\"",
        Role::Write => "Bearer realm=\"memcell\", error=\"insufficient_scope\", scope=\"write\"",
        Role::Admin => "Bearer realm=\"memcell\", error=\"insufficient_scope\", scope=\"admin\"",
    };
    ApiError::new(StatusCode::FORBIDDEN, "forbidden", detail)
        .with_header(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
}

/// Routes that all need the same. Their descriptions say so too.
pub(super) fn group(needs: Needs, mut routes: OpenApiRouter<Api>) -> OpenApiRouter<Api> {
    openapi::describe_access(routes.get_openapi_mut(), needs);
    if needs == Needs::Nothing {
        return routes;
    }
    // Around the routes, and not the fallbacks: what isn't there needs no protection.
    routes.route_layer(middleware::from_fn(move |request: Request, next: Next| require(needs, request, next)))
}

async fn require(needs: Needs, request: Request, next: Next) -> Response {
    // A request that nobody has looked at is nobody's.
    let stranger = Caller::Stranger { open_metrics: false };
    let caller = request.extensions().get::<Caller>().unwrap_or(&stranger);
    if let Err(error) = caller.check(needs) {
        tracing::info!(?caller, ?needs, "request refused");
        return error.into_response();
    }
    if let (Caller::Token { name, .. }, Needs::Role(Role::Admin)) = (caller, needs) {
        tracing::info!(token = &**name, method = %request.method(), path = request.uri().path(), "admin request");
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_includes_the_former() {
        let roles = [Role::Read, Role::Write, Role::Admin];
        for (rank, own) in roles.into_iter().enumerate() {
            let caller = Caller::Token { name: "t".into(), role: own };
            for (needed, role) in roles.into_iter().enumerate() {
                assert_eq!(caller.check(Needs::Role(role)).is_ok(), rank >= needed, "{own:?} {role:?}");
            }
            assert!(caller.check(Needs::Metrics).is_ok());
        }
    }

    #[test]
    fn strangers_get_what_is_open() {
        for open_metrics in [true, false] {
            for caller in [Caller::Stranger { open_metrics }, Caller::Impostor { open_metrics }] {
                assert!(caller.check(Needs::Nothing).is_ok());
                assert_eq!(caller.check(Needs::Metrics).is_ok(), open_metrics);
                let refused = caller.check(Needs::Role(Role::Read)).unwrap_err();
                assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
            }
        }
        assert!(Caller::Anybody.check(Needs::Role(Role::Admin)).is_ok());
    }
}
