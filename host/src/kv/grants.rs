//! What a backend's instances are granted, made ready: the directory locked, variables read, names resolved.

use std::collections::{HashMap, HashSet};
use std::fs::{File, TryLockError};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use super::error::{GrantError, KvError};
use crate::config::{Destination, GrantsConfig};
use crate::metrics::BackendMetrics;

/// Where the granted directory is, as the guest sees it.
pub(super) const GUEST_DIRECTORY: &str = "/data";

/// What all instances of one backend are granted. As long as it lives, the directory is locked.
#[derive(Debug)]
pub(super) struct Grants {
    pub(super) directory: Option<Directory>,
    pub(super) environment: Vec<(String, String)>,
    pub(super) log: bool,
    /// Where refusals of what isn't granted are counted, if anywhere.
    pub(super) metrics: Option<BackendMetrics>,
    connect: Vec<Destination>,
}

/// A granted directory.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
    pub(super) read_only: bool,
    /// Open on the directory itself, so that there is no file that the guest could remove; the lock goes with it.
    _lock: File,
}

/// The addresses that one instance may connect to. They are looked up once, when it is opened: whatever a name comes to mean
/// later, this instance gets nowhere else.
#[derive(Debug, Default)]
pub(super) struct Pins {
    addresses: HashSet<SocketAddr>,
    names: HashMap<String, Vec<IpAddr>>,
}

impl Grants {
    /// Makes and locks the directory, and reads the variables. Blocks on the file system.
    pub(super) fn prepare(config: &GrantsConfig) -> Result<Self, GrantError> {
        let directory = config.directory.as_deref().map(|path| Directory::lock(path, config.read_only)).transpose()?;
        let read = |name: &String| match std::env::var(name) {
            Ok(value) => Ok((name.clone(), value)),
            Err(std::env::VarError::NotPresent) => Err(GrantError::VariableUnset { name: name.clone() }),
            Err(std::env::VarError::NotUnicode(_)) => Err(GrantError::VariableNotUnicode { name: name.clone() }),
        };
        let environment = config.environment.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Self { directory, environment, log: config.log, metrics: None, connect: config.connect.clone() })
    }

    /// Counts what is refused to the instances from now on.
    pub(super) fn counted_in(self, metrics: BackendMetrics) -> Self {
        Self { metrics: Some(metrics), ..self }
    }

    /// Looks the granted names up. One that can't be found is left out, and said; if none can be found, there is no point in
    /// opening an instance.
    pub(super) async fn pin(&self, backend: &str) -> Result<Pins, KvError> {
        let mut pins = Pins::default();
        let mut failure = None;
        for destination in &self.connect {
            if let Some(address) = destination.address() {
                pins.addresses.insert(SocketAddr::new(address, destination.port));
                continue;
            }
            match tokio::net::lookup_host((destination.host.as_str(), destination.port)).await {
                Ok(found) => {
                    for address in found {
                        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
                        pins.addresses.insert(address);
                        let known = pins.names.entry(destination.host.clone()).or_default();
                        if !known.contains(&address.ip()) {
                            known.push(address.ip());
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(backend, %destination, %error, "a granted destination can't be resolved");
                    failure = Some(format!("the granted destination {destination} can't be resolved: {error}"));
                }
            }
        }
        match failure {
            Some(reason) if pins.addresses.is_empty() => Err(KvError::Down(reason)),
            _ => Ok(pins),
        }
    }

    /// Whether there is anything to connect to.
    pub(super) fn any_network(&self) -> bool {
        !self.connect.is_empty()
    }
}

impl Pins {
    /// Whether this exact address may be connected to. An IPv4 address dressed up as an IPv6 one is another address.
    pub(super) fn allow(&self, address: &SocketAddr) -> bool {
        self.addresses.contains(&SocketAddr::new(address.ip(), address.port()))
    }

    /// The addresses of a granted name.
    pub(super) fn resolve(&self, name: &str) -> Option<&[IpAddr]> {
        self.names.get(name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase().as_str()).map(Vec::as_slice)
    }
}

impl Directory {
    fn lock(path: &Path, read_only: bool) -> Result<Self, GrantError> {
        let failed = |what, source| GrantError::Directory { path: path.to_path_buf(), what, source };
        if !read_only {
            std::fs::create_dir_all(path).map_err(|source| failed("made", source))?;
        }
        let lock = File::open(path).map_err(|source| failed("opened", source))?;
        if !lock.metadata().map_err(|source| failed("looked at", source))?.is_dir() {
            return Err(failed("opened", std::io::ErrorKind::NotADirectory.into()));
        }
        // Several readers may share a directory, but not with a writer.
        let locked = if read_only { lock.try_lock_shared() } else { lock.try_lock() };
        match locked {
            Ok(()) => Ok(Self { path: path.to_path_buf(), read_only, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(GrantError::DirectoryInUse { path: path.to_path_buf() }),
            Err(TryLockError::Error(source)) => Err(failed("locked", source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(path: &Path, read_only: bool) -> Result<Grants, GrantError> {
        Grants::prepare(&GrantsConfig { directory: Some(path.to_path_buf()), read_only, ..GrantsConfig::default() })
    }

    #[test]
    fn a_directory_is_made_and_locked_until_it_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let first = directory(&path, false).unwrap();
        let second = directory(&path, false).unwrap_err();
        assert!(second.to_string().contains("another process") && second.is_passing(), "{second}");
        assert!(directory(&path, true).is_err());
        drop(first);
        let reader = directory(&path, true).unwrap();
        assert!(directory(&path, true).is_ok() && directory(&path, false).is_err());
        drop(reader);
        assert!(directory(&path, false).is_ok());
    }

    #[test]
    fn what_is_no_directory() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(!directory(&file, false).unwrap_err().is_passing());
        assert!(directory(&file, true).unwrap_err().to_string().contains("file"));
        assert!(directory(&folder.path().join("absent"), true).is_err(), "nothing is made for a reader");
    }

    #[test]
    fn variables_must_be_set() {
        let config = |name: &str| GrantsConfig { environment: vec![name.to_owned()], ..GrantsConfig::default() };
        assert_eq!(Grants::prepare(&config("PATH")).unwrap().environment.len(), 1);
        let error = Grants::prepare(&config("MEMCELL_NO_SUCH_VARIABLE")).unwrap_err().to_string();
        assert!(error.contains("MEMCELL_NO_SUCH_VARIABLE"), "{error}");
    }

    fn connect(destinations: &[&str]) -> Grants {
        let connect = destinations.iter().map(|text| Destination::parse(text).unwrap()).collect();
        Grants::prepare(&GrantsConfig { connect, ..GrantsConfig::default() }).unwrap()
    }

    #[tokio::test]
    async fn only_what_was_granted_is_allowed() {
        let pins = connect(&["127.0.0.1:6379", "[::1]:7000", "localhost:8000"]).pin("test").await.unwrap();
        let allowed = |address: &str| pins.allow(&address.parse().unwrap());
        assert!(allowed("127.0.0.1:6379") && allowed("[::1]:7000") && allowed("127.0.0.1:8000"));
        for denied in [
            "127.0.0.1:6380",
            "127.0.0.2:6379",
            "[::ffff:127.0.0.1]:6379",
            "169.254.169.254:80",
            "[::1]:6379",
            "0.0.0.0:6379",
        ] {
            assert!(!allowed(denied), "{denied}");
        }
        assert!(pins.resolve("LocalHost.").unwrap().contains(&"127.0.0.1".parse().unwrap()));
        assert_eq!(pins.resolve("example.org"), None);
    }

    #[tokio::test]
    async fn a_name_that_means_nothing() {
        let grants = connect(&["no-such-host.invalid:1"]);
        let error = grants.pin("test").await.unwrap_err().to_string();
        assert!(error.contains("no-such-host.invalid:1"), "{error}");
        assert!(connect(&["no-such-host.invalid:1", "127.0.0.1:1"]).pin("test").await.is_ok());
    }
}
