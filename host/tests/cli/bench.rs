//! A folder with a configuration, commands that run in it, and a host that is running there.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take before the test gives up on it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A folder with a configuration in it.
pub(crate) struct Bench {
    pub(crate) folder: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("memcell.toml"), config).unwrap();
        Self { folder }
    }

    /// With a MongoDB server of its own, which each command starts and stops.
    pub(crate) fn with_server() -> Self {
        Self::new("[mongodb]\nuri = \"embedded\"\ndata_directory = \"data\"\n[http]\nlisten = \"127.0.0.1:0\"\n")
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_memcell"));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        for variable in ["MEMCELL_CONFIG", "MEMCELL_LOG", "MEMCELL_MONGODB_URI", "MEMCELL_HTTP_LISTEN"] {
            command.env_remove(variable);
        }
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        Ended::from(self.command(arguments).output().unwrap())
    }

    pub(crate) fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Ended {
        let mut command = self.command(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // A command that ends early closes its input; what it says about that is looked at, not the failed write.
        let _ = child.stdin.take().unwrap().write_all(input);
        Ended::from(child.wait_with_output().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ended {
    #[track_caller]
    pub(crate) fn with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// The standard output as one JSON value a line.
    #[track_caller]
    pub(crate) fn lines(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{self:#?}"))).collect()
    }

    /// The summary of an import: read, imported, already there, invalid, failed.
    #[track_caller]
    pub(crate) fn figures(&self) -> [u64; 5] {
        let summary = &self.lines()[0];
        ["read", "imported", "already_there", "invalid", "failed"].map(|name| summary[name].as_u64().unwrap())
    }
}

/// A running host, ended when dropped.
pub(crate) struct Host {
    pub(crate) child: Child,
    pub(crate) address: String,
}

impl Host {
    pub(crate) fn start(bench: &Bench) -> Self {
        let mut child = bench.command(&["serve"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://").map(str::to_owned);
        let Some(address) = address else {
            let _ = child.kill();
            panic!("{line:?} {:#?}", Ended::from(child.wait_with_output().unwrap()));
        };
        Self { child, address }
    }

    /// The status and the body of an answer.
    pub(crate) fn ask(&self, method: &str, path: &str) -> (u16, String) {
        let mut connection = TcpStream::connect(&self.address).unwrap();
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(connection, "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    pub(crate) fn status_of(&self, path: &str) -> u16 {
        self.ask("GET", path).0
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits until what is answered for this path contains `text`.
    #[track_caller]
    pub(crate) fn comes_to_answer(&self, path: &str, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.ask("GET", path).1.contains(text) {
            assert!(Instant::now() < deadline, "{path} does not come to answer {text}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until an event with this message is logged. The log is read here and nowhere else from then on.
    #[track_caller]
    pub(crate) fn wait_for_event(&mut self, message: &str) -> Value {
        let log = BufReader::new(self.child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || log.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        loop {
            let event: Value = serde_json::from_str(&lines.recv_timeout(PATIENCE).unwrap()).unwrap();
            if event["message"] == message {
                return event;
            }
        }
    }

    /// Ends it as a crash would. The server that belongs to it ends by itself, and its address and data are free then.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM and waits.
    pub(crate) fn terminate(mut self) -> Ended {
        self.signal("TERM");
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the host does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        Ended { code: self.child.wait().unwrap().code(), stdout: String::new(), stderr }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
