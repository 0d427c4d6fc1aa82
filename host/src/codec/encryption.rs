//! Keeping payloads from whoever has the store and not the key.

use std::fmt;
use std::sync::Arc;

use aes_gcm_siv::{AeadInOut as _, Aes256GcmSiv, KeyInit as _, Nonce, Tag};
use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::header::{CHECKED_BYTES, Corrupt, HEADER_BYTES};
use crate::{Error, ErrorKind, Result};

/// Bytes of a nonce.
pub(super) const NONCE_BYTES: usize = 12;

/// Bytes of a tag.
pub(super) const TAG_BYTES: usize = 16;

const KEY_BYTES: usize = 32;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What values name their key by: the first bytes of a SHA-256 digest made of it, never all of them zero. It tells nothing else about
/// the key, and a wrong key under the same name from damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; 8]);

impl KeyId {
    fn of(key: &[u8; KEY_BYTES]) -> Self {
        let digest = Sha256::new().chain_update(b"memcell key id\0").chain_update(key).finalize();
        let id: [u8; 8] = digest.first_chunk().copied().unwrap_or_default();
        Self(if id == [0; 8] { [0, 0, 0, 0, 0, 0, 0, 1] } else { id })
    }

    pub(super) fn from_bytes(bytes: [u8; 8]) -> Option<Self> {
        (bytes != [0; 8]).then_some(Self(bytes))
    }

    pub(super) fn to_bytes(self) -> [u8; 8] {
        self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

/// A key of AES-256-GCM-SIV, under the name that the configuration gives it. Cheap to clone; wiped when the last clone goes.
///
/// Nonces are random, of 96 bits. Of this cipher, even two equal ones would tell no more than whether two payloads are the same.
#[derive(Clone)]
pub struct EncryptionKey(Arc<Named>);

struct Named {
    name: String,
    id: KeyId,
    /// Wipes itself when it is dropped.
    cipher: Aes256GcmSiv,
}

impl EncryptionKey {
    /// Reads a key of 32 bytes from 64 hexadecimal digits or from base64; white space around it doesn't matter.
    ///
    /// # Errors
    /// What was expected. Never quotes what was found.
    pub fn parse(name: impl Into<String>, text: &[u8]) -> Result<Self, &'static str> {
        const EXPECTED: &str = "must be 32 random bytes, as 64 hexadecimal digits or in base64, such as `openssl rand -hex 32` prints them";
        let text = text.trim_ascii();
        let mut key = Zeroizing::new([0_u8; KEY_BYTES]);
        if text.len() == 2 * KEY_BYTES {
            for (byte, digits) in key.iter_mut().zip(text.chunks_exact(2)) {
                let value =
                    digits.iter().try_fold(0, |value, digit| Some(value << 4 | char::from(*digit).to_digit(16)?));
                *byte = value.and_then(|value| u8::try_from(value).ok()).ok_or(EXPECTED)?;
            }
        } else {
            // The decoder may want room for what would follow.
            let mut decoded = Zeroizing::new([0_u8; KEY_BYTES + 4]);
            let bytes = BASE64.decode_slice(text, decoded.as_mut_slice()).map_err(|_| EXPECTED)?;
            let decoded = decoded.get(..bytes).and_then(|decoded| <&[u8; KEY_BYTES]>::try_from(decoded).ok());
            key.copy_from_slice(decoded.ok_or(EXPECTED)?);
        }
        Ok(Self::new(name, &key))
    }

    fn new(name: impl Into<String>, key: &[u8; KEY_BYTES]) -> Self {
        let cipher = Aes256GcmSiv::new(key.into());
        Self(Arc::new(Named { name: name.into(), id: KeyId::of(key), cipher }))
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What values that are encrypted with it name it by.
    pub fn id(&self) -> KeyId {
        self.0.id
    }

    /// Encrypts what follows the first `prefix` bytes of a value, whose last [`NONCE_BYTES`] become the nonce, and appends the tag. All
    /// of the prefix but checksum and nonce is authenticated with it, and so is the key that it will be stored under.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if the system has no random numbers.
    pub(super) fn encrypt(&self, key: &str, prefix: usize, value: &mut Vec<u8>) -> Result<()> {
        let internal =
            |reason: String| Error::new(ErrorKind::Internal, format!("a value can't be encrypted: {reason}"));
        let mut nonce = Nonce::default();
        getrandom::fill(&mut nonce).map_err(|error| internal(error.to_string()))?;
        if let Some(place) = value.get_mut(prefix - NONCE_BYTES..prefix) {
            place.copy_from_slice(&nonce);
        }
        let associated = associated_data(key, prefix, value);
        let payload = value.get_mut(prefix..).unwrap_or_default();
        let tag = self.0.cipher.encrypt_inout_detached(&nonce, &associated, payload.into());
        let tag = tag.map_err(|_| internal("it is too large".to_owned()))?;
        value.extend_from_slice(&tag);
        Ok(())
    }

    /// The payload of a value, if it was encrypted for this key of the store with this prefix.
    ///
    /// # Errors
    /// [`Corrupt::Forged`] if it wasn't.
    pub(super) fn decrypt(&self, key: &str, prefix: usize, value: &[u8]) -> Result<Vec<u8>, Corrupt> {
        let nonce: Option<[u8; NONCE_BYTES]> =
            value.get(prefix - NONCE_BYTES..prefix).and_then(|nonce| nonce.try_into().ok());
        let payload = value.get(prefix..).and_then(<[u8]>::split_last_chunk::<TAG_BYTES>);
        let (Some(nonce), Some((payload, tag))) = (nonce, payload) else {
            return Err(Corrupt::TooShort { bytes: value.len() });
        };
        let associated = associated_data(key, prefix, value);
        let mut payload = payload.to_vec();
        let (nonce, tag) = (Nonce::from(nonce), Tag::from(*tag));
        let opened = self.0.cipher.decrypt_inout_detached(&nonce, &associated, payload.as_mut_slice().into(), &tag);
        opened.map_err(|_| Corrupt::Forged)?;
        Ok(payload)
    }
}

/// The header without its checksum, the id of the dictionary if there is one (a flag in the header says so, so that it can't be taken
/// for a part of the key), and the key.
fn associated_data(key: &str, prefix: usize, value: &[u8]) -> Vec<u8> {
    let header = value.get(..CHECKED_BYTES).unwrap_or_default();
    let dictionary = value.get(HEADER_BYTES..prefix - NONCE_BYTES).unwrap_or_default();
    [header, dictionary, key.as_bytes()].concat()
}

impl PartialEq for EncryptionKey {
    fn eq(&self, other: &Self) -> bool {
        (self.id(), self.name()) == (other.id(), other.name())
    }
}

impl Eq for EncryptionKey {}

impl fmt::Debug for EncryptionKey {
    /// Shows its name and id only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncryptionKey({} {})", self.name(), self.id())
    }
}
