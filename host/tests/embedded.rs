//! The embedded MongoDB server, with a real server process: it keeps its data, and never outlives its host.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use memcell_host::ErrorKind;
use memcell_host::mongo::embedded::EmbeddedServer;
use mongodb::bson::{Document, doc};
use mongodb::{Client, Collection};

/// Where the process that [`a_killed_host_leaves_no_server`] kills finds its data directory.
const HELPER_DIRECTORY: &str = "MEMCELL_TEST_EMBEDDED_DIRECTORY";

async fn cells(server: &EmbeddedServer) -> Collection<Document> {
    Client::with_uri_str(server.uri()).await.unwrap().database("test").collection("cells")
}

async fn count(server: &EmbeddedServer) -> u64 {
    cells(server).await.count_documents(doc! {}).await.unwrap()
}

/// Waits until the process is gone; one that is dead and that nobody has waited for yet counts as gone.
async fn gone(pid: u32) -> bool {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // After the name, which is in parentheses, comes the state.
        match stat.rsplit_once(") ") {
            Some((_, rest)) if !rest.starts_with('Z') => tokio::time::sleep(Duration::from_millis(20)).await,
            _ => return true,
        }
    }
    false
}

#[tokio::test]
async fn data_outlives_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("deep/data");
    let server = EmbeddedServer::start(&directory).await.unwrap();
    let (pid, uri) = (server.pid(), server.uri());
    cells(&server).await.insert_one(doc! { "_id": 1 }).await.unwrap();
    server.stop().await;
    assert!(gone(pid).await);

    let server = EmbeddedServer::start(&directory).await.unwrap();
    assert_eq!(server.uri(), uri, "a free port is used again");
    assert_eq!(count(&server).await, 1);
    let pid = server.pid();
    cells(&server).await.insert_one(doc! { "_id": 2 }).await.unwrap();
    drop(server);
    assert!(gone(pid).await);

    let server = EmbeddedServer::start(&directory).await.unwrap();
    assert_eq!(count(&server).await, 2, "a server that is dropped loses nothing either");
    server.stop().await;
}

#[tokio::test]
async fn it_is_a_primary_with_transactions() {
    let folder = tempfile::tempdir().unwrap();
    let server = EmbeddedServer::start(folder.path()).await.unwrap();
    let client = Client::with_uri_str(server.uri()).await.unwrap();
    let hello = client.database("admin").run_command(doc! { "hello": 1 }).await.unwrap();
    assert!(hello.get_bool("isWritablePrimary").unwrap());
    assert!(!hello.get_str("setName").unwrap().is_empty());
    let cells: Collection<Document> = client.database("test").collection("cells");
    cells.insert_one(doc! { "_id": 0 }).await.unwrap();
    for commit in [true, false] {
        let mut session = client.start_session().await.unwrap();
        session.start_transaction().await.unwrap();
        cells.insert_one(doc! { "committed": commit }).session(&mut session).await.unwrap();
        if commit {
            session.commit_transaction().await.unwrap();
        } else {
            session.abort_transaction().await.unwrap();
        }
    }
    assert_eq!(cells.count_documents(doc! {}).await.unwrap(), 2);
    server.stop().await;
}

#[tokio::test]
async fn a_taken_port_is_not_insisted_on() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    std::fs::write(folder.path().join("port"), taken.local_addr().unwrap().port().to_string()).unwrap();
    let server = EmbeddedServer::start(folder.path()).await.unwrap();
    assert!(!server.uri().contains(&taken.local_addr().unwrap().to_string()));
    assert_eq!(count(&server).await, 0);
    server.stop().await;
}

#[tokio::test]
async fn a_directory_has_one_server() {
    let folder = tempfile::tempdir().unwrap();
    let server = EmbeddedServer::start(folder.path()).await.unwrap();
    let error = EmbeddedServer::start(folder.path()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "it passes");
    assert!(error.message().contains("in use by another MongoDB server"), "{error}");
    assert_eq!(count(&server).await, 0, "the first one is unharmed");
    server.stop().await;
    EmbeddedServer::start(folder.path()).await.unwrap().stop().await;
}

#[tokio::test]
async fn a_directory_of_another_program_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    EmbeddedServer::start(folder.path()).await.unwrap().stop().await;
    let names = ["mongod", "secantusd-rs"].map(|name| folder.path().join(name));
    let [own, other] = if names[0].exists() { names } else { [names[1].clone(), names[0].clone()] };
    std::fs::rename(own, other).unwrap();
    let error = EmbeddedServer::start(folder.path()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("was written by"), "{error}");
}

#[tokio::test]
async fn a_server_that_fails_shows_its_log() {
    let folder = tempfile::tempdir().unwrap();
    EmbeddedServer::start(folder.path()).await.unwrap().stop().await;
    for name in ["mongod", "secantusd-rs"] {
        let file = folder.path().join(name).join("WiredTiger.turtle");
        if file.exists() {
            std::fs::write(file, "damaged").unwrap();
        }
    }
    let error = EmbeddedServer::start(folder.path()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("it ended with"), "{error}");
    assert!(error.message().contains("which ends with:\n  "), "{error}");
}

#[tokio::test]
async fn a_future_that_is_dropped_leaves_no_server() {
    let folder = tempfile::tempdir().unwrap();
    let start = EmbeddedServer::start(folder.path());
    assert!(tokio::time::timeout(Duration::from_millis(1), start).await.is_err());
    // The lock is free only if the server is gone as well.
    EmbeddedServer::start(folder.path()).await.unwrap().stop().await;
}

#[tokio::test]
async fn a_server_that_hangs_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let server = EmbeddedServer::start(folder.path()).await.unwrap();
    let pid = server.pid();
    freeze(pid);
    drop(server);
    assert!(gone(pid).await);
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn a_killed_host_leaves_no_server() {
    let folder = tempfile::tempdir().unwrap();
    let (host, pid) = helper(folder.path()).await;
    drop(host);
    // At once: it waits for the one that is on its way out.
    let server = EmbeddedServer::start(folder.path()).await.unwrap();
    assert!(gone(pid).await, "the server {pid} has outlived its host");
    assert_eq!(count(&server).await, 1, "what was acknowledged is there");
    server.stop().await;
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn a_server_that_hangs_and_was_left_behind_is_killed_by_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let (host, pid) = helper(folder.path()).await;
    freeze(pid);
    drop(host);
    let server = EmbeddedServer::start(folder.path()).await.unwrap();
    assert!(gone(pid).await, "the server {pid} is still there");
    assert_ne!(server.pid(), pid);
    server.stop().await;
}

/// Makes the process stop where it is, so that it doesn't act on any signal but SIGKILL.
fn freeze(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
}

/// A process that is killed, as by SIGKILL from outside, when it is dropped.
struct KilledHost(Child);

impl Drop for KilledHost {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A process that has started a server on `directory` and written one document, and the server's id.
async fn helper(directory: &Path) -> (KilledHost, u32) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "the_host_that_is_killed", "--ignored", "--nocapture"]).env(HELPER_DIRECTORY, directory);
    let host = KilledHost(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let text = std::fs::read_to_string(directory.join("pid")).unwrap_or_default();
        if let Some(pid) = text.strip_suffix('\n') {
            return (host, pid.parse().unwrap());
        }
        assert!(Instant::now() < deadline, "the helper has not started its server");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
#[ignore = "the process that a_killed_host_leaves_no_server starts and kills"]
async fn the_host_that_is_killed() {
    let directory = std::env::var_os(HELPER_DIRECTORY).expect("only runs as a helper of another test");
    let directory = Path::new(&directory);
    // In a thread that ends at once, as a worker of a runtime may: the server must not end with it.
    let owned = directory.to_owned();
    let start = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(EmbeddedServer::start(&owned)).unwrap()
    };
    let server = std::thread::spawn(start).join().unwrap();
    cells(&server).await.insert_one(doc! { "_id": 1 }).await.unwrap();
    std::fs::write(directory.join("pid"), format!("{}\n", server.pid())).unwrap();
    std::future::pending::<()>().await;
}
