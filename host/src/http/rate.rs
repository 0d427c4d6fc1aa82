//! How many requests each client may make: a bucket of `burst` requests that fills again at `rate` a second.
//!
//! A bucket is kept as the moment at which it will be full again (the generic cell rate algorithm), so a full one needn't
//! be kept at all. The number of buckets is bounded; when there are too many clients at once, those beyond share one.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Buckets at the most: some megabytes.
const MOST: usize = 65_536;

/// How long a sweep that found nothing to remove stays true enough.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// Who counts as one client.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Client {
    /// Whoever has this token, from wherever.
    Token(Arc<str>),
    /// Whoever is at this address; of IPv6 in this network, for whoever has one address there has all of them.
    Address(IpAddr),
    /// All others, when there are too many.
    Others,
}

impl Client {
    /// Whoever is at this address.
    pub(super) fn at(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
        })
    }
}

/// The buckets of all clients.
#[derive(Debug)]
pub(super) struct RateLimiter {
    /// The time in which one request is made good.
    interval: Duration,
    /// How far from full a bucket may be for there to be something in it.
    tolerance: Duration,
    buckets: Mutex<Buckets>,
}

#[derive(Debug, Default)]
struct Buckets {
    full_at: HashMap<Client, Instant>,
    swept: Option<Instant>,
}

impl RateLimiter {
    /// `rate` requests a second, and `burst` at once.
    pub(super) fn new(rate: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1) / rate.max(1);
        Self { interval, tolerance: interval * burst.saturating_sub(1), buckets: Mutex::default() }
    }

    /// Takes a request out of the client's bucket.
    ///
    /// # Errors
    /// If there is none: how long it takes until there is.
    pub(super) fn take(&self, client: Client, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let client = if buckets.has_room_for(&client, now) { client } else { Client::Others };
        let full_at = buckets.full_at.get(&client).copied().unwrap_or(now).max(now);
        let missing = full_at.duration_since(now);
        if missing > self.tolerance {
            return Err(missing - self.tolerance);
        }
        buckets.full_at.insert(client, full_at + self.interval);
        Ok(())
    }
}

impl Buckets {
    fn has_room_for(&mut self, client: &Client, now: Instant) -> bool {
        if self.full_at.len() < MOST || self.full_at.contains_key(client) {
            return true;
        }
        if self.swept.is_none_or(|swept| now.duration_since(swept) >= SWEEP_INTERVAL) {
            self.full_at.retain(|_, full_at| *full_at > now);
            self.swept = Some(now);
        }
        self.full_at.len() < MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> Client {
        Client::at(IpAddr::from(number.to_be_bytes()))
    }

    #[test]
    fn a_bucket_empties_and_fills_again() {
        let limiter = RateLimiter::new(10, 3);
        let start = Instant::now();
        let take = |client, after| limiter.take(address(client), start + Duration::from_millis(after));
        assert!((0..3).all(|_| take(1, 0).is_ok()));
        assert_eq!(take(1, 0), Err(Duration::from_millis(100)));
        assert_eq!(take(1, 60), Err(Duration::from_millis(40)), "a refusal costs nothing");
        assert!(take(2, 60).is_ok(), "others are not concerned");
        assert!(take(1, 100).is_ok());
        assert!(take(1, 150).is_err());
        assert!((0..3).all(|_| take(1, 10_000).is_ok()));
        assert!(take(1, 10_000).is_err(), "it never holds more than the burst");
    }

    #[test]
    fn a_network_is_one_client() {
        let at = |text: &str| Client::at(text.parse().unwrap());
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:0:0:1"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_eq!(at("::ffff:10.0.0.1"), at("10.0.0.1"));
        assert_ne!(at("10.0.0.1"), at("10.0.0.2"));
    }

    #[test]
    fn many_clients_take_bounded_memory() {
        let limiter = RateLimiter::new(1, 1);
        let start = Instant::now();
        let most = u32::try_from(MOST).unwrap();
        assert!((0..most).all(|number| limiter.take(address(number), start).is_ok()));
        assert!(limiter.take(address(most), start).is_ok(), "of the bucket that the others share");
        assert!(limiter.take(address(most + 1), start).is_err());
        assert_eq!(limiter.buckets.lock().unwrap().full_at.len(), MOST + 1);
        let later = start + Duration::from_secs(2);
        assert!(limiter.take(address(most + 1), later).is_ok());
        assert_eq!(limiter.buckets.lock().unwrap().full_at.len(), 1, "those that are full again are forgotten");
    }
}
