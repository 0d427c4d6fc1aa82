//! Guests that want files beyond their directory, or to change what they may only read.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use memcell_host::config::GrantsConfig;
use memcell_host::kv::KvError;
use memcell_tests::host::hostile;
use tempfile::TempDir;

use crate::prober::Prober;
use crate::stage::{Stage, log_lines};

/// A directory with something to be kept (`secret`) and one to be granted, in which links lead out of it.
struct World {
    folder: TempDir,
}

impl World {
    fn make() -> Result<Self> {
        let folder = TempDir::new()?;
        let world = Self { folder };
        std::fs::write(world.secret(), "secret")?;
        std::fs::create_dir_all(world.granted().join("sub"))?;
        std::fs::write(world.granted().join("inside"), "inside")?;
        symlink(world.secret(), world.granted().join("absolute-link"))?;
        symlink("../secret", world.granted().join("relative-link"))?;
        symlink("..", world.granted().join("parent-link"))?;
        symlink("inside", world.granted().join("inside-link"))?;
        Ok(world)
    }

    fn secret(&self) -> PathBuf {
        self.folder.path().join("secret")
    }

    fn granted(&self) -> PathBuf {
        self.folder.path().join("granted")
    }

    async fn prober(&self, read_only: bool) -> Result<Prober> {
        Prober::start(self.grants(read_only)).await
    }

    fn grants(&self, read_only: bool) -> GrantsConfig {
        GrantsConfig { directory: Some(self.granted()), read_only, ..GrantsConfig::default() }
    }

    /// Nothing outside of the granted directory came, went or changed.
    fn is_unharmed_outside(&self) -> Result<()> {
        ensure!(std::fs::read_to_string(self.secret())? == "secret");
        ensure!(names(self.folder.path())? == ["granted", "secret"]);
        Ok(())
    }
}

fn names(path: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}

/// A test for each escape: first the same within the directory, which works, then out of it, which is refused and counted.
macro_rules! escapes {
    ($($name:ident: $granted:literal => $done:literal, $denied:expr => $code:literal;)*) => {
        $(
            #[tokio::test]
            async fn $name() -> Result<()> {
                let world = World::make()?;
                let prober = world.prober(false).await?;
                assert_eq!(prober.ask($granted).await?, $done, $granted);
                assert_eq!(prober.refusals("file"), 0);
                let denied: fn(&World) -> String = $denied;
                let denied = denied(&world);
                assert_eq!(prober.ask(&denied).await?, concat!("refused: ", $code), "{denied}");
                assert_eq!(prober.refusals("file"), 1);
                world.is_unharmed_outside()
            }
        )*
    };
}

escapes! {
    read_of_the_parent: "read inside" => "done: inside", |_| "read ../secret".into() => "not-permitted";
    read_through_a_subdirectory: "read sub/../inside" => "done: inside",
        |_| "read sub/../../secret".into() => "not-permitted";
    read_of_an_absolute_path: "read ./inside" => "done: inside",
        |world| format!("read {}", world.secret().display()) => "not-permitted";
    read_through_an_absolute_symlink: "read inside-link" => "done: inside",
        |_| "read absolute-link".into() => "not-permitted";
    read_through_a_relative_symlink: "read inside-link" => "done: inside",
        |_| "read relative-link".into() => "not-permitted";
    read_through_a_symlink_to_the_parent: "read sub/../inside-link" => "done: inside",
        |_| "read parent-link/secret".into() => "not-permitted";
    write_to_the_parent: "write new" => "done: 20 bytes", |_| "write ../new".into() => "not-permitted";
    write_through_a_symlink: "write inside-link" => "done: 20 bytes", |_| "write relative-link".into() => "not-permitted";
    look_at_the_parent: "stat inside" => "done: 6 bytes", |_| "stat ../secret".into() => "not-permitted";
    list_the_parent: "list sub" => "done", |_| "list ..".into() => "not-permitted";
    list_the_root: "list ." => "done: absolute-link,inside,inside-link,parent-link,relative-link,sub",
        |_| "list /".into() => "not-permitted";
    directory_in_the_parent: "mkdir new" => "done", |_| "mkdir ../new".into() => "not-permitted";
    removal_in_the_parent: "remove inside" => "done", |_| "remove ../secret".into() => "not-permitted";
    hard_link_from_outside: "link inside twin" => "done", |_| "link ../secret stolen".into() => "not-permitted";
    hard_link_to_outside: "link inside twin" => "done", |_| "link inside ../leaked".into() => "not-permitted";
    rename_to_outside: "rename inside moved" => "done", |_| "rename moved ../leaked".into() => "not-permitted";
    rename_from_outside: "rename inside moved" => "done", |_| "rename ../secret stolen".into() => "not-permitted";
    symlink_to_an_absolute_path: "symlink inside good" => "done", |_| "symlink /etc/passwd evil".into() => "not-permitted";
}

/// A guest may make a symbolic link that leads out; it leads the guest nowhere.
#[tokio::test]
async fn a_symlink_of_its_own_making_leads_nowhere() -> Result<()> {
    let world = World::make()?;
    let prober = world.prober(false).await?;
    assert_eq!(prober.ask("symlink inside good").await?, "done");
    assert_eq!(prober.ask("read good").await?, "done: inside");
    prober.ask("symlink ../secret evil").await?;
    assert_ne!(prober.ask("read evil").await?, "done: secret");
    // A hard link to such a link, and the link under another name, are the same.
    prober.ask("link relative-link twin").await?;
    assert_eq!(prober.ask("read twin").await?, "refused: not-permitted");
    prober.ask("rename relative-link sub/renamed").await?;
    assert_ne!(prober.ask("read sub/renamed").await?, "done: secret");
    world.is_unharmed_outside()
}

/// Every way to change something, refused under a grant to read, and possible under one to write.
#[tokio::test]
async fn a_grant_to_read_is_none_to_write() -> Result<()> {
    let changes = [
        "write new",
        "write inside",
        "truncate inside",
        "mkdir new-directory",
        "symlink inside new-link",
        "link inside twin",
        "rename inside-link renamed",
        "remove sub/../relative-link",
    ];
    let world = World::make()?;
    let before = names(&world.granted())?;
    let reader = world.prober(true).await?;
    assert_eq!(reader.ask("read inside").await?, "done: inside");
    assert_eq!(reader.ask("list sub").await?, "done");
    for (change, refusals) in changes.into_iter().zip(1..) {
        assert_eq!(reader.ask(change).await?, "refused: not-permitted", "{change}");
        assert_eq!(reader.refusals("file"), refusals, "{change}");
    }
    assert_eq!(names(&world.granted())?, before);
    assert_eq!(std::fs::read_to_string(world.granted().join("inside"))?, "inside");
    drop(reader);
    // The directory is unlocked once the shard's thread has ended.
    let writer = loop {
        match world.prober(false).await {
            Ok(writer) => break writer,
            Err(error) if error.to_string().contains("in use") => {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            Err(error) => return Err(error),
        }
    };
    for change in changes {
        assert!(writer.ask(change).await?.starts_with("done"), "{change}");
    }
    world.is_unharmed_outside()
}

#[tokio::test]
async fn without_a_grant_there_is_no_directory() -> Result<()> {
    let prober = Prober::start(GrantsConfig::default()).await?;
    assert_eq!(prober.ask("directories").await?, "done");
    assert_eq!(prober.ask("read inside").await?, "refused: no directory");
    let world = World::make()?;
    assert_eq!(world.prober(false).await?.ask("directories").await?, "done: /data");
    Ok(())
}

#[tokio::test]
async fn a_flood_of_open_files_is_stopped() -> Result<()> {
    let world = World::make()?;
    let prober = world.prober(false).await?;
    assert_eq!(prober.ask("open-many inside 100").await?, "done: 100 files");
    let error = prober.try_ask("open-many inside 1000").await.expect_err("a thousand files are open");
    assert_eq!(error, KvError::Limit { function: "get-many", limit: "handles" });
    Ok(())
}

/// The names of a large directory are never all in the host's memory; the guest gets every one of them all the same.
#[tokio::test]
async fn a_large_directory_is_listed_completely() -> Result<()> {
    let world = World::make()?;
    let prober = world.prober(false).await?;
    assert_eq!(prober.ask("make-many 3000").await?, "done: 3000 files");
    assert_eq!(prober.ask("list .").await?, "done: 3006 names");
    assert_eq!(prober.ask("list inside").await?, "refused: not-directory");
    Ok(())
}

/// Within a whole host: the refusals are in its metrics and log, and nobody is disturbed.
#[tokio::test(flavor = "multi_thread")]
async fn escapes_are_told_to_the_operator() -> Result<()> {
    let world = World::make()?;
    let mut config = hostile(&[])?;
    config.grants = world.grants(false);
    let stage = Stage::set(config).await?;
    stage.host.live().await?;
    let probes: Vec<String> =
        ["read ../secret", "write ../new", "read relative-link"].map(|probe| format!("probe {probe}")).into();
    let answers = stage.read_hostile(&probes).await?;
    ensure!(answers.iter().all(|answer| answer.as_deref() == Some("refused: not-permitted")), "{answers:?}");
    ensure!(stage.figure("memcell_kv_refusals_total{backend=\"hostile\",kind=\"file\"}").await? > 2.5);
    let told = log_lines(&["the plugin wanted what it was not granted", "open-at ../secret", "backend=\"hostile\""]);
    ensure!(told.len() == 1, "{told:?}");
    stage.others_are_well().await?;
    let status = stage.status("hostile").await?;
    ensure!(status["state"] == "live" && status["restarts"] == 0, "{status}");
    world.is_unharmed_outside()?;
    stage.strike().await
}
