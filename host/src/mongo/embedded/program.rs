//! Which server program to start, and with which arguments.

use std::env;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::directory::{DataDirectory, failed};
use crate::error::{Error, ErrorKind, Result};

/// Names a program to use instead of looking for one.
const VARIABLE: &str = "MEMCELL_MONGOD";

/// The development server's program.
const SECANTUS: &str = "secantusd-rs";

/// Where `cargo xtask setup` installs the development server, in the user's cache directory.
const INSTALLED: &str = "memcell/tools/secantus/bin/secantusd-rs";

/// Memory for cached data. The default of both programs is gigabytes, which a guest on somebody's machine shouldn't
/// take.
const CACHE_MIB: u32 = 512;

/// A program that speaks MongoDB's protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    path: PathBuf,
    kind: Kind,
}

/// Whose arguments and data format it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// MongoDB's own server.
    Mongod,
    /// The development server: always the primary of a replica set of its own.
    Secantus,
}

impl Kind {
    pub(super) const ALL: [Self; 2] = [Self::Mongod, Self::Secantus];

    /// The name of the program, and of the folder with its data.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Mongod => "mongod",
            Self::Secantus => SECANTUS,
        }
    }
}

impl Program {
    /// The program to use on this machine.
    pub(super) fn find() -> Result<Self> {
        Self::find_in(env::var_os(VARIABLE), env::var_os("PATH"), cache_directory())
    }

    fn find_in(named: Option<OsString>, path: Option<OsString>, cache: Option<PathBuf>) -> Result<Self> {
        if let Some(named) = named.filter(|named| !named.is_empty()) {
            let path = PathBuf::from(named);
            if !is_executable(&path) {
                let message = format!("{VARIABLE} names {}, which is no executable file", path.display());
                return Err(Error::new(ErrorKind::Config, message));
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let kind = if name.starts_with("secantusd") { Kind::Secantus } else { Kind::Mongod };
            return Self::new(&path, kind);
        }
        let folders: Vec<PathBuf> = path.iter().flat_map(env::split_paths).collect();
        for kind in Kind::ALL {
            let mut candidates = folders.iter().map(|folder| folder.join(kind.name()));
            if let Some(path) = candidates.find(|path| is_executable(path)) {
                return Self::new(&path, kind);
            }
        }
        let installed = cache.map(|cache| cache.join(INSTALLED));
        if let Some(path) = installed.as_deref().filter(|path| is_executable(path)) {
            return Self::new(path, Kind::Secantus);
        }
        let installed = installed.map(|path| format!(", nor is {} there", path.display())).unwrap_or_default();
        let message = format!(
            "found no MongoDB server to start: {VARIABLE} is not set, there is neither mongod nor {SECANTUS} on the \
             PATH{installed}; run `cargo xtask setup`, install MongoDB, or name a running one in mongodb.uri"
        );
        Err(Error::new(ErrorKind::Config, message))
    }

    fn new(path: &Path, kind: Kind) -> Result<Self> {
        // Absolute, because the server runs in a folder of its own.
        let path = std::path::absolute(path).map_err(|error| failed("find", path, error))?;
        Ok(Self { path, kind })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// The command that serves `data` on `address`, with its output going to the log of `directory`.
    pub(super) fn command(&self, address: SocketAddr, data: &Path, directory: &DataDirectory) -> Result<Command> {
        let mut command = Command::new(&self.path);
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        match self.kind {
            Kind::Mongod => {
                command.args(["--replSet", super::replica_set::NAME, "--bind_ip", &host, "--port", &port, "--quiet"]);
                command.args(["--wiredTigerCacheSizeGB", &(f64::from(CACHE_MIB) / 1024.0).to_string()]);
                command.arg("--dbpath").arg(data);
            }
            Kind::Secantus => {
                // Otherwise it would pick up a configuration of the user's, with authentication or another data format.
                let config = directory.write("secantusd.toml", "")?;
                command.arg("--config").arg(config);
                command.args(["--host", &host, "--port", &port, "--log-level", "WARNING"]);
                command.args(["--cache-size", &format!("{CACHE_MIB}M"), "--log-file-max", "128MB"]);
                command.arg("--storage-path").arg(data);
            }
        }
        let log = directory.open_log()?;
        let second = log.try_clone().map_err(|error| failed("write", &directory.log_path(), error))?;
        command.stdin(Stdio::null()).stdout(log).stderr(second).current_dir(data);
        Ok(command)
    }
}

fn cache_directory() -> Option<PathBuf> {
    // The specification of XDG_CACHE_HOME says that a relative path is to be ignored.
    let named = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    named.or_else(|| Some(env::home_dir()?.join(".cache")))
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn install(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn programs_are_looked_for_in_order() {
        let root = tempfile::tempdir().unwrap();
        let [first, second, cache] = ["first", "second", "cache"].map(|name| root.path().join(name));
        let find = |named: Option<&Path>| {
            let path = env::join_paths([&first, &second]).unwrap();
            Program::find_in(named.map(Into::into), Some(path), Some(cache.clone()))
        };
        let found = |path: PathBuf, kind| Program { path, kind };

        let error = find(None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        for part in [VARIABLE, "mongod", SECANTUS, INSTALLED, "cargo xtask setup"] {
            assert!(error.message().contains(part), "{error}");
        }
        fs::create_dir_all(first.join("mongod")).unwrap();
        assert!(find(None).is_err(), "a folder is no program");

        install(&cache.join(INSTALLED));
        assert_eq!(find(None).unwrap(), found(cache.join(INSTALLED), Kind::Secantus));
        install(&first.join(SECANTUS));
        assert_eq!(find(None).unwrap(), found(first.join(SECANTUS), Kind::Secantus));
        install(&second.join("mongod"));
        assert_eq!(find(None).unwrap(), found(second.join("mongod"), Kind::Mongod));
        assert_eq!(find(Some(Path::new(""))).unwrap(), found(second.join("mongod"), Kind::Mongod));
        let named = root.path().join("mongod-8.2");
        assert!(find(Some(&named)).unwrap_err().message().contains("mongod-8.2"));
        install(&named);
        assert_eq!(find(Some(&named)).unwrap(), found(named, Kind::Mongod));
    }
}
