//! A MongoDB server for one test, killed at its end.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tempfile::TempDir;

pub(crate) struct Server {
    child: Option<Child>,
    directory: TempDir,
    port: u16,
    flags: Vec<String>,
}

impl Server {
    pub(crate) fn start(flags: &[&str]) -> Self {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mut server = Self { child: None, directory: tempfile::tempdir().unwrap(), port: 0, flags };
        server.launch();
        server
    }

    pub(crate) fn uri(&self) -> String {
        format!("mongodb://127.0.0.1:{}/", self.port)
    }

    /// Kills it, as a crash would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts it again, on the same data and port.
    pub(crate) fn launch(&mut self) {
        let program = program();
        let mut child = Command::new(&program)
            .args(["--host", "127.0.0.1", "--log-level", "WARNING", "--cache-size", "64M", "--log-file-max", "16MB"])
            .args(["--port", &self.port.to_string(), "--storage-path"])
            .arg(self.directory.path())
            .args(&self.flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{} can't be started: {error}", program.display()));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let announced = lines.find_map(|line| line.ok()?.rsplit_once("listening on 127.0.0.1:")?.1.trim().parse().ok());
        // The pipe has to be emptied for as long as the server writes to it.
        std::thread::spawn(move || lines.for_each(drop));
        self.child = Some(child);
        self.port = announced.expect("the server ended before it listened");
    }

    /// Lets it hang, from now on: a signal alone is on its way for a while on a busy machine.
    pub(crate) fn freeze(&self) {
        kill_process(self.pid(), Signal::STOP).unwrap();
        waitid(WaitId::Pid(self.pid()), WaitIdOptions::STOPPED).unwrap();
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        kill_process(self.pid(), Signal::CONT).unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The development server, where `cargo xtask setup` puts it.
fn program() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"))).unwrap();
    let program = cache.join("memcell/tools/secantus/bin/secantusd-rs");
    assert!(program.is_file(), "{} is missing; `cargo xtask setup` installs it", program.display());
    program
}
