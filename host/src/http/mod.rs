//! The HTTP API: thin handlers between requests and the store. Each file has one group of routes; what all of them
//! share is in `serve` and `connection` (below every request), `requests` and `gate` (around every request), `uri` and `body` (what comes in), `answers`, `listing` and `error`
//! (what goes out).

mod access;
mod answers;
mod batch;
mod body;
mod browser;
mod connection;
mod dashboard;
mod error;
mod gate;
mod jobs;
mod listing;
mod lists;
mod memcells;
mod observe;
mod openapi;
mod overview;
mod parameters;
mod rate;
mod reload;
mod requests;
mod schemas;
mod serve;
mod transactions;
mod uri;
mod users;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::{Router, middleware};
use bytes::Bytes;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use serve::serve;

use self::access::{Needs, group};
use self::gate::Gate;
use crate::config::{HttpConfig, Role};
use crate::jobs::Jobs;
use crate::reload::Reloader;
use crate::security::Security;
use crate::store::MemCellStore;

/// What every handler has at hand.
#[derive(Clone)]
struct Api {
    store: MemCellStore,
    jobs: Jobs,
    reloader: Option<Reloader>,
    gate: Arc<Gate>,
    max_body: u64,
    request_timeout: Duration,
    openapi: Bytes,
}

/// The API as a service, for [`serve`] or to be called directly. Without a `reloader`, the configuration can't be reloaded.
pub fn router(
    store: MemCellStore,
    jobs: Jobs,
    reloader: Option<Reloader>,
    config: &HttpConfig,
    security: Security,
) -> Router {
    let (routes, document) = routes().split_for_parts();
    let api = Api {
        store,
        jobs,
        reloader,
        gate: Arc::new(Gate::new(config, security)),
        max_body: config.max_body,
        request_timeout: config.request_timeout,
        openapi: openapi::render(document),
    };
    routes
        .merge(dashboard::routes())
        .fallback(requests::unknown_route)
        .method_not_allowed_fallback(requests::method_not_allowed)
        .layer(middleware::from_fn_with_state(api.clone(), requests::surround))
        .with_state(api)
}

/// Every route, with what it says of itself, in groups by what whoever asks must be allowed to. A route is in a group or
/// nowhere.
fn routes() -> OpenApiRouter<Api> {
    let read = OpenApiRouter::new()
        .routes(routes!(lists::list))
        .routes(routes!(lists::count))
        .routes(routes!(batch::get_many))
        .routes(routes!(memcells::get))
        .routes(routes!(users::latest))
        .routes(routes!(users::activity))
        .routes(routes!(jobs::list))
        .routes(routes!(jobs::get))
        .routes(routes!(overview::config))
        .routes(routes!(overview::overview))
        .routes(routes!(observe::backends))
        .routes(routes!(observe::mismatches));
    let write = OpenApiRouter::new()
        .routes(routes!(memcells::append, lists::delete_many))
        .routes(routes!(batch::append_many))
        .routes(routes!(lists::restore_many))
        .routes(routes!(memcells::update, memcells::delete))
        .routes(routes!(memcells::restore))
        .routes(routes!(transactions::transact));
    let admin = OpenApiRouter::new()
        .routes(routes!(jobs::order))
        .routes(routes!(jobs::cancel))
        .routes(routes!(observe::repair))
        .routes(routes!(reload::reload));
    let metrics = OpenApiRouter::new().routes(routes!(observe::metrics));
    let open = OpenApiRouter::new()
        .routes(routes!(observe::health))
        .routes(routes!(observe::ready))
        .routes(routes!(openapi::document));
    OpenApiRouter::with_openapi(openapi::base())
        .merge(group(Needs::Role(Role::Read), read))
        .merge(group(Needs::Role(Role::Write), write))
        .merge(group(Needs::Role(Role::Admin), admin))
        .merge(group(Needs::Metrics, metrics))
        .merge(group(Needs::Nothing, open))
}
