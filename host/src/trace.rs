//! Which request something is done for: known from its arrival through tasks, queues and batches down to the call of a plugin.
//!
//! A request has an id, which is in the log and in its answer, and a span. What it sets off in other tasks is wrapped in
//! [`carried`]; what it puts into a queue takes its [`Origin`] along. One call of a plugin may be made for many requests: its span
//! is the child of a single one, and linked to several.

mod otlp;

use std::sync::Arc;

use futures::future::Either;
use tracing::{Instrument as _, Span, field};

pub use self::otlp::{Exporter, adopt, answered};

/// How many requests a call names. A batch of more is told apart by its links.
const MOST_NAMED: usize = 16;

/// The route of requests whose path is no route's.
pub const NO_ROUTE: &str = "none";

tokio::task_local! {
    static REQUEST: Arc<str>;
}

/// The request that is being worked for, if it is one.
#[derive(Debug, Clone)]
pub struct Origin {
    request: Option<Arc<str>>,
    span: Span,
}

impl Origin {
    /// That of this task.
    pub fn current() -> Self {
        Self { request: REQUEST.try_with(Arc::clone).ok(), span: Span::current() }
    }

    /// Nobody's.
    pub fn none() -> Self {
        Self { request: None, span: Span::none() }
    }
}

/// Works for the request with this id.
pub async fn for_request<T>(id: Arc<str>, work: impl Future<Output = T>) -> T {
    REQUEST.scope(id, work).await
}

/// Work that is to be done in a task of its own for the same request.
pub fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let work = work.in_current_span();
    match REQUEST.try_with(Arc::clone) {
        Ok(request) => Either::Left(REQUEST.scope(request, work)),
        Err(_) => Either::Right(work),
    }
}

/// What a span of a plugin's call says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) backend: &'a str,
    pub(crate) shard: u32,
    pub(crate) function: &'static str,
    pub(crate) items: usize,
}

/// The span of a call that is made for all of these.
pub(crate) fn of_call<'o>(call: Call<'_>, origins: impl ExactSizeIterator<Item = &'o Origin> + Clone) -> Span {
    let Call { backend, shard, function, items } = call;
    let parent = origins.clone().next().filter(|_| origins.len() == 1).and_then(|origin| origin.span.id());
    let span =
        tracing::debug_span!(parent: parent, "kv_call", backend, shard, function, items, requests = field::Empty);
    if span.is_disabled() {
        return span;
    }
    let mut named: Vec<&str> = Vec::new();
    for request in origins.clone().filter_map(|origin| origin.request.as_deref()) {
        if named.len() < MOST_NAMED && !named.contains(&request) {
            named.push(request);
        }
    }
    if !named.is_empty() {
        span.record("requests", named.join(" "));
    }
    if origins.len() > 1 {
        for origin in origins {
            span.follows_from(&origin.span);
        }
    }
    span
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tasks_of_a_request_know_it() {
        assert!(Origin::current().request.is_none());
        let seen = for_request("r-1".into(), async {
            let carried = tokio::spawn(carried(async { Origin::current() }));
            let lost = tokio::spawn(async { Origin::current() });
            (Origin::current(), carried.await.unwrap(), lost.await.unwrap())
        });
        let (here, carried, lost) = seen.await;
        assert_eq!((here.request.as_deref(), carried.request.as_deref()), (Some("r-1"), Some("r-1")));
        assert_eq!(lost.request, None);
        assert_eq!(tokio::spawn(super::carried(async { Origin::current() })).await.unwrap().request, None);
    }
}
