//! The certificate that the API shows, and its replacement while connections go on: those that exist keep the one they
//! began with, new ones get the new one. One that can't be used changes nothing, and is said.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256};
use tokio_rustls::TlsAcceptor;

use crate::config::TlsConfig;
use crate::shutdown::Shutdown;

/// A file of certificates larger than this is none.
const MOST_BYTES: u64 = 1 << 20;

/// Whoever replaces two files has replaced one of them a moment before the other.
const SECOND_LOOK: Duration = Duration::from_secs(2);

/// The key that is wrong, and why.
type Refused = (&'static str, String);

/// A certificate and its key as they were read.
pub(super) struct Loaded {
    config: TlsConfig,
    certified: Arc<CertifiedKey>,
    /// Of both files: it tells whether they have changed.
    digest: [u8; 32],
}

/// The contents of both files.
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Files {
    fn read(config: &TlsConfig) -> Result<Self, Refused> {
        let read = |key, path: &Path| read_file(path).map_err(|reason| (key, reason));
        Ok(Self {
            certificate: read("http.tls.certificate", &config.certificate)?,
            key: read("http.tls.key", &config.key)?,
        })
    }

    fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(self.certificate.len().to_le_bytes());
        digest.update(&self.certificate);
        digest.update(&self.key);
        digest.finalize().into()
    }

    fn certified(&self, config: &TlsConfig) -> Result<CertifiedKey, Refused> {
        let chain = parse_chain(&self.certificate)
            .map_err(|reason| ("http.tls.certificate", format!("{}: {reason}", config.certificate.display())))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| {
            // The error names what is wrong with the form, and quotes nothing.
            ("http.tls.key", format!("{}: no private key in PEM: {error}", config.key.display()))
        })?;
        CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|error| {
            let message =
                format!("{} does not go with the certificate, or can't be used: {error}", config.key.display());
            ("http.tls.key", message)
        })
    }
}

impl Loaded {
    /// Reads and checks both files.
    ///
    /// # Errors
    /// The key that is wrong, and why.
    pub(super) fn read(config: &TlsConfig) -> Result<Self, Refused> {
        Self::of(&Files::read(config)?, config)
    }

    fn of(files: &Files, config: &TlsConfig) -> Result<Self, Refused> {
        let certified = Arc::new(files.certified(config)?);
        Ok(Self { certified, digest: files.digest(), config: config.clone() })
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let shown = path.display();
    let cannot = |error: std::io::Error| format!("{shown} can't be read: {error}");
    let metadata = std::fs::metadata(path).map_err(cannot)?;
    if !metadata.is_file() || metadata.len() > MOST_BYTES {
        return Err(format!("{shown} is no file of a certificate or key"));
    }
    std::fs::read(path).map_err(cannot)
}

fn parse_chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("no certificates in PEM: {error}"))?;
    if chain.is_empty() { Err("no certificate in PEM".to_owned()) } else { Ok(chain) }
}

/// The certificates of a file, the first of them being that of whom it is about.
///
/// # Errors
/// Why there are none.
pub(crate) fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    parse_chain(&read_file(path)?).map_err(|reason| format!("{}: {reason}", path.display()))
}

/// The certificate of a host that runs.
pub(super) struct Certificates {
    current: Arc<Current>,
    server: Arc<ServerConfig>,
}

/// What new connections get.
struct Current {
    loaded: RwLock<Loaded>,
}

impl Certificates {
    /// Serves with what was loaded.
    ///
    /// # Errors
    /// If the cryptography can't be used.
    pub(super) fn new(loaded: Loaded) -> Result<Self, Refused> {
        let current = Arc::new(Current { loaded: RwLock::new(loaded) });
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| ("http.tls", error.to_string()))?;
        let mut server = builder.with_no_client_auth().with_cert_resolver(Arc::clone(&current) as _);
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { current, server: Arc::new(server) })
    }

    pub(super) fn acceptor(&self) -> (TlsAcceptor, Duration) {
        (TlsAcceptor::from(Arc::clone(&self.server)), self.with(|loaded| loaded.config.handshake_timeout))
    }

    fn with<T>(&self, look: impl FnOnce(&Loaded) -> T) -> T {
        look(&self.current.loaded.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Answers whether it is another certificate or key than before.
    pub(super) fn replace(&self, new: Loaded) -> bool {
        let mut loaded = self.current.loaded.write().unwrap_or_else(PoisonError::into_inner);
        let differs = loaded.digest != new.digest;
        *loaded = new;
        differs
    }

    /// Looks at the files from time to time until the shutdown is requested.
    pub(super) async fn watch(self: &Arc<Self>, shutdown: &Shutdown) {
        // What was found and can't be used is said once.
        let mut refused = None;
        loop {
            let interval = self.with(|loaded| loaded.config.check_interval);
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = shutdown.requested() => return,
            }
            let mut checked = self.check().await;
            if checked.is_err() {
                tokio::time::sleep(SECOND_LOOK.min(interval)).await;
                checked = self.check().await;
            }
            let found = checked.err();
            if let Some((key, reason)) = &found
                && refused != found
            {
                tracing::error!(key, reason, "the new certificate can't be used; the one from before stays");
            }
            refused = found;
        }
    }

    /// Takes over what the files have now, if that is something else than before.
    async fn check(self: &Arc<Self>) -> Result<(), Refused> {
        let this = Arc::clone(self);
        let checking = tokio::task::spawn_blocking(move || {
            let (config, digest) = this.with(|loaded| (loaded.config.clone(), loaded.digest));
            let files = Files::read(&config)?;
            if files.digest() == digest {
                return Ok(());
            }
            if this.replace(Loaded::of(&files, &config)?) {
                let file = config.certificate.display();
                tracing::info!(%file, "new connections get the new certificate");
            }
            Ok(())
        });
        checking.await.unwrap_or_else(|error| Err(("http.tls", error.to_string())))
    }
}

/// Without the key.
impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with(|loaded| write!(f, "Certificates({})", loaded.config.certificate.display()))
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Current")
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&loaded.certified))
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey as Generated, generate_simple_self_signed};

    use super::*;

    fn generated() -> (String, String) {
        let Generated { cert, signing_key } = generate_simple_self_signed(vec!["memcell.test".to_owned()]).unwrap();
        (cert.pem(), signing_key.serialize_pem())
    }

    #[test]
    fn a_certificate_needs_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let config = TlsConfig {
            certificate: folder.path().join("cert.pem"),
            key: folder.path().join("key.pem"),
            handshake_timeout: Duration::from_secs(1),
            check_interval: Duration::from_secs(1),
        };
        let ((certificate, key), (_, other)) = (generated(), generated());
        let load = |certificate: &str, key: &str| {
            std::fs::write(&config.certificate, certificate).unwrap();
            std::fs::write(&config.key, key).unwrap();
            Loaded::read(&config).map(|loaded| loaded.digest)
        };
        let first = load(&certificate, &key).unwrap();
        assert_eq!(load(&certificate, &key).unwrap(), first);
        for (certificate, key, wrong, part) in [
            (certificate.as_str(), other.as_str(), "http.tls.key", "does not go with the certificate"),
            ("", &key, "http.tls.certificate", "no certificate in PEM"),
            ("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----", &key, "http.tls.certificate", "PEM"),
            (&certificate, "nonsense", "http.tls.key", "no private key in PEM"),
            (&certificate, &certificate, "http.tls.key", "no private key in PEM"),
        ] {
            let (found, reason) = load(certificate, key).unwrap_err();
            assert_eq!(found, wrong, "{reason}");
            assert!(reason.contains(part), "{reason}");
            assert!(!reason.contains("nonsense"), "{reason}");
        }
        std::fs::remove_file(&config.key).unwrap();
        assert!(Loaded::read(&config).err().unwrap().1.contains("can't be read"));
    }
}
