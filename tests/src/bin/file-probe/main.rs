//! A process for the tests of the file backend to kill, or to run with file systems of its own:
//!
//! - `file-probe write DIRECTORY SEED FROM DURABILITY`: applies batch after batch, and says on standard output which ones `flush`
//!   has acknowledged, until it is killed
//! - `file-probe full DIRECTORY ROOM DURABILITY`: fills the file system of the directory, and checks what goes on and what
//!   comes back; `ROOM` is a file on it whose removal makes room
//! - `file-probe mirror DIRECTORY ROOM DURABILITY`: the same of a host, which goes on and loses nothing
//! - `file-probe catch-up DIRECTORY ROOM DURABILITY`: checks that a host's backend catches up with changes of everything where there is
//!   little more room than its copies need
//! - `file-probe read-only DIRECTORY`: checks how a directory on a read-only file system is refused
//!
//! Exits 0 if all is as it should be.

mod catch_up;
mod full;
mod mirror;
mod read_only;
mod write;

use std::path::Path;

use anyhow::{Result, bail};

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["write", directory, seed, from, durability] => {
            write::run(Path::new(directory), seed.parse()?, from.parse()?, durability).await
        }
        ["full", directory, room, durability] => full::run(Path::new(directory), Path::new(room), durability).await,
        ["mirror", directory, room, durability] => mirror::run(Path::new(directory), Path::new(room), durability).await,
        ["catch-up", directory, room, durability] => {
            catch_up::run(Path::new(directory), Path::new(room), durability).await
        }
        ["read-only", directory] => read_only::run(Path::new(directory)).await,
        other => bail!("unknown arguments {other:?}"),
    }
}
