//! What a request has to get past before anything is done for it: whether there is room, whether it is of a reasonable
//! size, whether it comes from where it may, who sends it, and whether he sends too many. Each refusal is an answer at once.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::http::header::RETRY_AFTER;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::access::Caller;
use super::browser::{Hosts, check_addressed};
use super::error::{Answer, ApiError};
use super::rate::{Client, RateLimiter};
use crate::config::HttpConfig;
use crate::security::Security;

/// Routes that have to answer when there is no room for anything else.
const ALWAYS: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// What one permit for bodies stands for.
const UNIT_BYTES: u64 = 1024;

/// Where a request comes from. Every request that comes over a connection bears one, as an extension.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// The bounds of one API, and what is left of them.
#[derive(Debug)]
pub(super) struct Gate {
    security: Security,
    hosts: Hosts,
    max_uri: usize,
    max_headers: usize,
    requests: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
    rate: Option<RateLimiter>,
}

/// A request that got past the gate, for as long as it is worked on.
pub(super) struct Admitted {
    /// Who sent it.
    pub(super) caller: Caller,
    /// The memory of its body.
    pub(super) body: BodyMemory,
    _request: Option<OwnedSemaphorePermit>,
}

impl Gate {
    /// With the bounds of the configuration, all of them unused.
    pub(super) fn new(config: &HttpConfig, security: Security) -> Self {
        let units = usize::try_from(config.max_bodies / UNIT_BYTES).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self {
            security,
            hosts: Hosts::new(&config.hosts, config.listen.ip().to_canonical().is_loopback()),
            max_uri: config.max_uri,
            max_headers: config.max_headers,
            requests: Arc::new(Semaphore::new(config.max_requests)),
            bodies: Arc::new(Semaphore::new(units)),
            rate: config.rate.map(|rate| RateLimiter::new(rate, config.burst.unwrap_or(rate))),
        }
    }

    /// Lets a request in. `route` is its pattern.
    ///
    /// # Errors
    /// What is answered instead.
    pub(super) fn admit(&self, head: &Parts, route: &str) -> Answer<Admitted> {
        let is_exempt = ALWAYS.contains(&route);
        let request = if is_exempt { None } else { Some(self.room()?) };
        self.check_size(head)?;
        check_addressed(head)?;
        let access = self.security.access();
        if access.is_open() {
            self.hosts.check(head)?;
        }
        self.hosts.check_change(head)?;
        let caller = Caller::of(&head.headers, &access);
        // Whoever tries tokens out is slowed down wherever he does.
        if !is_exempt || matches!(caller, Caller::Impostor { .. }) {
            self.check_rate(head, &caller)?;
        }
        let body = BodyMemory { bodies: Arc::clone(&self.bodies), held: Arc::default() };
        Ok(Admitted { caller, body, _request: request })
    }

    fn room(&self) -> Answer<OwnedSemaphorePermit> {
        Arc::clone(&self.requests)
            .try_acquire_owned()
            .map_err(|_| overloaded("the server works on as many requests as it takes"))
    }

    fn check_size(&self, head: &Parts) -> Answer<()> {
        let length = head.uri.path_and_query().map_or(0, |part| part.as_str().len());
        if length > self.max_uri {
            let detail = format!("the path and query have {length} bytes, and this server takes {}", self.max_uri);
            return Err(ApiError::new(StatusCode::URI_TOO_LONG, "uri_too_long", detail));
        }
        // HTTP/1 has counted them already.
        let headers = head.headers.len();
        if headers > self.max_headers {
            let detail = format!("there are {headers} headers, and this server takes {}", self.max_headers);
            return Err(ApiError::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", detail));
        }
        Ok(())
    }

    fn check_rate(&self, head: &Parts, caller: &Caller) -> Answer<()> {
        let Some(rate) = &self.rate else { return Ok(()) };
        let client = match caller {
            Caller::Token { name, .. } => Client::Token(Arc::clone(name)),
            Caller::Anybody | Caller::Stranger { .. } | Caller::Impostor { .. } => {
                let peer = head.extensions.get::<Peer>();
                Client::at(peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |Peer(address)| *address))
            }
        };
        rate.take(client, Instant::now()).map_err(|wait| {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            let detail = "this client sends more requests than it may; the retry-after header says when to go on";
            ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail)
                .with_header(RETRY_AFTER, HeaderValue::from(seconds))
        })
    }
}

fn overloaded(reason: &str) -> ApiError {
    let detail = format!("{reason}; nothing was done for this one");
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail)
        .with_header(RETRY_AFTER, HeaderValue::from_static("1"))
}

/// The memory that the body of one request takes of what there is for all of them. Given back when the last clone is gone.
#[derive(Debug, Clone)]
pub(super) struct BodyMemory {
    bodies: Arc<Semaphore>,
    held: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
}

impl BodyMemory {
    /// Sees to it that there is room for this many bytes of the body in all.
    ///
    /// # Errors
    /// If others need it: the request may be sent again.
    pub(super) fn hold(&self, bytes: u64) -> Answer<()> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let has = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let needed = usize::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(usize::MAX).saturating_sub(has);
        if needed == 0 {
            return Ok(());
        }
        let needed = u32::try_from(needed).unwrap_or(u32::MAX);
        let more = Arc::clone(&self.bodies).try_acquire_many_owned(needed);
        let more =
            more.map_err(|_| overloaded("the bodies of other requests take all the memory there is for them"))?;
        match held.as_mut() {
            Some(held) => held.merge(more),
            None => *held = Some(more),
        }
        Ok(())
    }

    /// Room for this many bytes, for tests.
    #[cfg(test)]
    pub(super) fn of(bytes: u64) -> Self {
        let units = usize::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap();
        Self { bodies: Arc::new(Semaphore::new(units)), held: Arc::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_share_what_there_is() {
        let first = BodyMemory::of(10 * UNIT_BYTES);
        let second = BodyMemory { bodies: Arc::clone(&first.bodies), held: Arc::default() };
        first.hold(1).unwrap();
        first.hold(3 * UNIT_BYTES).unwrap();
        first.hold(2 * UNIT_BYTES).unwrap();
        second.hold(7 * UNIT_BYTES).unwrap();
        let refused = second.hold(7 * UNIT_BYTES + 1).unwrap_err();
        assert_eq!((refused.status().as_u16(), refused.code()), (503, "overloaded"));
        drop(first);
        second.hold(10 * UNIT_BYTES).unwrap();
    }
}
