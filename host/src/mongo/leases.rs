//! Leases: what one holder at a time may do, for as long as it keeps saying that it is there.
//!
//! No clock is asked for the date, neither those of the hosts nor MongoDB's: a holder renews its lease by counting up a *beat*, and
//! whoever wants the lease may take it once he has seen the same beat for as long as the lease lasts, by his own monotonic clock.
//! A holder that was paused learns of the loss of its lease when it asks. What it did in ignorance is kept harmless by the
//! *token*: each time that a lease is taken, the token is a larger one, and whatever is written under a lease bears it.

use std::time::{Duration, Instant};

use bson::{Document, doc};
use mongodb::Collection;
use mongodb::options::ReturnDocument;

use super::connect::bounded;
use super::error::is_duplicate_key;
use super::repository::Repository;
use crate::{Error, ErrorKind, Result};

/// A lease that is held, as far as the holder knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    name: String,
    holder: String,
    token: u64,
    valid_until: Instant,
    loss_noted: bool,
}

impl Lease {
    /// Larger than that of everybody who held it before.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// A token twice as large; `None`: there is none.
    pub fn doubled_token(&self) -> Option<u64> {
        self.token.checked_mul(2).filter(|token| i64::try_from(*token).is_ok())
    }

    /// Whether somebody has noted that what the lease is for has lost data, as far as is known. See [`Repository::note_loss`].
    pub fn loss_noted(&self) -> bool {
        self.loss_noted
    }

    /// Until when nobody else can have got it: counted from before it was asked for, so that the answer's way is on the safe side.
    pub fn valid_until(&self) -> Instant {
        self.valid_until
    }
}

/// What a holder lets others know.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeaseNote {
    /// Up to when (Unix milliseconds, by the holder's clock) everything is certain to be done that the lease is for.
    pub passed_millis: u64,
    /// When the newest change of what is done happened, or there was nothing to do (Unix milliseconds). What is older has been done
    /// as well but for what clocks may differ by.
    pub newest_millis: u64,
    /// Whether what the lease is for is complete.
    pub complete: bool,
    /// What tells what the lease is for from another one of its kind; empty if that isn't known yet.
    pub store: String,
}

/// Who has a lease, or had it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its name; empty if it gave the lease back.
    pub name: String,
    /// What it last said.
    pub note: LeaseNote,
}

/// What came of asking for a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// It is ours.
    Held(Lease),
    /// Somebody else has it.
    Taken(Holder),
}

/// Since when somebody has seen no sign of life of a holder.
#[derive(Debug, Clone, Default)]
pub struct Sighting {
    last: Option<(i64, i64, Instant)>,
}

impl Sighting {
    /// Takes notice of a beat, and answers whether there was no other one for so long.
    pub(super) fn is_abandoned(&mut self, token: i64, beat: i64, length: Duration) -> bool {
        match self.last {
            Some((last_token, last_beat, since)) if (last_token, last_beat) == (token, beat) => {
                since.elapsed() >= length
            }
            _ => {
                self.last = Some((token, beat, Instant::now()));
                false
            }
        }
    }
}

impl Repository {
    /// Takes the lease if nobody else holds it. `holder` names a process, not only a machine; `sighting` is what this process has
    /// seen of the lease so far: keep it from one attempt to the next.
    ///
    /// # Errors
    /// Those of MongoDB being away.
    pub async fn acquire_lease(
        &self,
        name: &str,
        holder: &str,
        length: Duration,
        sighting: &mut Sighting,
    ) -> Result<Claim> {
        let leases = self.leases();
        let Some(found) = bounded(self.timeout, leases.find_one(doc! { "_id": name })).await? else {
            let first = doc! {
                "_id": name, "holder": "", "token": 0_i64, "beat": 0_i64, "passed_millis": 0_i64, "newest_millis": 0_i64,
                "complete": false, "lost": false,
            };
            return match bounded(self.timeout, leases.insert_one(first)).await {
                // Whoever made it first: it is there now, and free.
                Err(error) if !is_duplicate_key(&error) => Err(error),
                _ => Box::pin(self.acquire_lease(name, holder, length, sighting)).await,
            };
        };
        let (token, beat) = (number(&found, "token")?, number(&found, "beat")?);
        let current = read(&found)?;
        if !current.name.is_empty() && !sighting.is_abandoned(token, beat, length) {
            return Ok(Claim::Taken(current));
        }
        let asked = Instant::now();
        let unchanged = doc! { "_id": name, "token": token, "beat": beat };
        let taken = doc! { "$set": { "holder": holder }, "$inc": { "token": 1_i64, "beat": 1_i64 } };
        let update = leases.find_one_and_update(unchanged, taken).return_document(ReturnDocument::After);
        match bounded(self.timeout, update).await? {
            Some(now) => Ok(Claim::Held(Lease {
                name: name.to_owned(),
                holder: holder.to_owned(),
                token: u64::try_from(number(&now, "token")?).map_err(|_| malformed())?,
                valid_until: asked + length,
                loss_noted: has_lost(&now),
            })),
            // Somebody was faster, and the next attempt will tell who.
            None => Ok(Claim::Taken(current)),
        }
    }

    /// Says that the holder is still there. `None`: somebody else has the lease, or had it meanwhile.
    ///
    /// # Errors
    /// Those of MongoDB being away. The lease may have been renewed.
    pub async fn renew_lease(&self, lease: &Lease, length: Duration, note: LeaseNote) -> Result<Option<Lease>> {
        let asked = Instant::now();
        let millis = |millis: u64| i64::try_from(millis).unwrap_or(i64::MAX);
        let (passed, newest) = (millis(note.passed_millis), millis(note.newest_millis));
        let renewed = doc! {
            "$set": { "passed_millis": passed, "newest_millis": newest, "complete": note.complete, "store": note.store },
            "$inc": { "beat": 1_i64 },
        };
        let leases = self.leases();
        let update = leases.find_one_and_update(owned(lease)?, renewed).return_document(ReturnDocument::After);
        let now = bounded(self.timeout, update).await?;
        Ok(now.map(|now| Lease { valid_until: asked + length, loss_noted: has_lost(&now), ..lease.clone() }))
    }

    /// Gives the lease a larger token: the store knows of larger ones than its own, though nobody else has the lease. `None`: somebody
    /// has, or had it meanwhile.
    ///
    /// # Errors
    /// Those of MongoDB being away.
    pub async fn raise_lease(&self, lease: &Lease, token: u64, length: Duration) -> Result<Option<Lease>> {
        let asked = Instant::now();
        let number = i64::try_from(token).map_err(|_| malformed())?;
        let raised = doc! { "$set": { "token": number }, "$inc": { "beat": 1_i64 } };
        let updated = bounded(self.timeout, self.leases().update_one(owned(lease)?, raised)).await?;
        let raised = Lease { token, valid_until: asked + length, ..lease.clone() };
        Ok((updated.matched_count > 0).then_some(raised))
    }

    /// Notes for the holder, be it this process or another one, now or later, that what the lease is for has lost data; or that this
    /// was seen to.
    ///
    /// # Errors
    /// Those of MongoDB being away.
    pub async fn note_loss(&self, name: &str, has_lost: bool) -> Result<()> {
        let note = doc! { "$set": { "lost": has_lost } };
        bounded(self.timeout, self.leases().update_one(doc! { "_id": name }, note)).await?;
        Ok(())
    }

    /// Gives the lease back, if it is still held.
    ///
    /// # Errors
    /// Those of MongoDB being away; others get it a while later then.
    pub async fn release_lease(&self, lease: &Lease) -> Result<()> {
        let free = doc! { "$set": { "holder": "" }, "$inc": { "beat": 1_i64 } };
        bounded(self.timeout, self.leases().update_one(owned(lease)?, free)).await?;
        Ok(())
    }

    /// Who has the lease, or had it last; `None` if nobody ever did.
    ///
    /// # Errors
    /// Those of MongoDB being away.
    pub async fn lease_holder(&self, name: &str) -> Result<Option<Holder>> {
        let found = bounded(self.timeout, self.leases().find_one(doc! { "_id": name })).await?;
        found.as_ref().map(read).transpose()
    }

    fn leases(&self) -> Collection<Document> {
        self.beside("leases")
    }
}

fn owned(lease: &Lease) -> Result<Document> {
    let token = i64::try_from(lease.token).map_err(|_| malformed())?;
    Ok(doc! { "_id": &lease.name, "holder": &lease.holder, "token": token })
}

fn read(document: &Document) -> Result<Holder> {
    let passed_millis = u64::try_from(number(document, "passed_millis")?).unwrap_or(0);
    // Holders of versions before there was such a note say nothing.
    let newest = document.get_i64("newest_millis").ok().and_then(|millis| u64::try_from(millis).ok());
    Ok(Holder {
        name: document.get_str("holder").map_err(|_| malformed())?.to_owned(),
        note: LeaseNote {
            passed_millis,
            newest_millis: newest.unwrap_or(0).max(passed_millis),
            complete: document.get_bool("complete").map_err(|_| malformed())?,
            store: document.get_str("store").unwrap_or_default().to_owned(),
        },
    })
}

/// Leases of versions before there was such a note have none.
fn has_lost(document: &Document) -> bool {
    document.get_bool("lost").unwrap_or(false)
}

fn number(document: &Document, name: &str) -> Result<i64> {
    document.get_i64(name).map_err(|_| malformed())
}

fn malformed() -> Error {
    Error::new(ErrorKind::Internal, "a lease in mongodb is not of the form that this program writes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sign_of_life_counts_anew() {
        let mut sighting = Sighting::default();
        assert!(!sighting.is_abandoned(1, 1, Duration::ZERO), "seen for the first time");
        assert!(sighting.is_abandoned(1, 1, Duration::ZERO));
        assert!(!sighting.is_abandoned(1, 1, Duration::from_secs(60)));
        assert!(!sighting.is_abandoned(1, 2, Duration::ZERO));
        assert!(!sighting.is_abandoned(2, 2, Duration::ZERO));
        assert!(sighting.is_abandoned(2, 2, Duration::ZERO));
    }
}
