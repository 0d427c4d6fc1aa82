//! The HTTP API: thin handlers between requests and the store. Each file has one group of routes; what all of them
//! share is in `requests` (around every request), `uri` and `body` (what comes in), `answers`, `listing` and `error`
//! (what goes out).

mod answers;
mod batch;
mod body;
mod error;
mod listing;
mod lists;
mod memcells;
mod observe;
mod openapi;
mod parameters;
mod requests;
mod schemas;
mod serve;
mod transactions;
mod uri;
mod users;

#[cfg(test)]
mod tests;

use std::time::Duration;

use axum::{Router, middleware};
use bytes::Bytes;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use serve::serve;

use crate::config::HttpConfig;
use crate::store::MemCellStore;

/// What every handler has at hand.
#[derive(Clone)]
struct Api {
    store: MemCellStore,
    max_body: u64,
    request_timeout: Duration,
    openapi: Bytes,
}

/// The API as a service, for [`serve`] or to be called directly.
pub fn router(store: MemCellStore, config: &HttpConfig) -> Router {
    let (routes, document) = routes().split_for_parts();
    let api = Api {
        store,
        max_body: config.max_body,
        request_timeout: config.request_timeout,
        openapi: openapi::render(document),
    };
    routes
        .fallback(requests::unknown_route)
        .method_not_allowed_fallback(requests::method_not_allowed)
        .layer(middleware::from_fn_with_state(api.clone(), requests::surround))
        .with_state(api)
}

/// Every route, with what it says of itself.
fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(memcells::append, lists::list, lists::delete_many))
        .routes(routes!(batch::append_many))
        .routes(routes!(batch::get_many))
        .routes(routes!(lists::count))
        .routes(routes!(lists::restore_many))
        .routes(routes!(memcells::get, memcells::update, memcells::delete))
        .routes(routes!(memcells::restore))
        .routes(routes!(users::latest))
        .routes(routes!(users::activity))
        .routes(routes!(transactions::transact))
        .routes(routes!(observe::backends))
        .routes(routes!(observe::mismatches))
        .routes(routes!(observe::health))
        .routes(routes!(observe::ready))
        .routes(routes!(observe::metrics))
        .routes(routes!(openapi::document))
}
