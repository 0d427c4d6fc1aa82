//! The program itself: what it refuses to start with, and its commands that ask a running host.

use std::process::Output;

use anyhow::{Result, ensure};

use super::tls::Authority;
use super::{ADMIN, Program, READ, WRITE, all_roles, secret};

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_door_is_refused_unless_it_is_meant() -> Result<()> {
    let program = Program::new("").await?;
    program.configure("0.0.0.0:0", "")?;
    for arguments in [("config", &["check"][..]), ("serve", &[])] {
        let refused = program.memcell.run(arguments.0, arguments.1, None).await?;
        let text = said(&refused);
        ensure!(refused.status.code() == Some(64), "{text}");
        ensure!(text.contains("http.listen") && text.contains("auth.unauthenticated = true"), "{text}");
        ensure!(text.contains("auth.tokens.NAME"), "it says how to mend it: {text}");
    }
    program.configure("0.0.0.0:0", "[auth]\nunauthenticated = true\n")?;
    program.serve().await?.stop().await?;
    ensure!(program.log().contains("whoever can reach this address can read and change everything"));
    program.configure("0.0.0.0:0", &all_roles(program.path())?)?;
    program.serve().await?.stop().await?;
    ensure!(program.log().contains("cross the network in the clear"), "{}", program.log());
    ensure!(program.log().contains("open files"), "{}", program.log());

    // A token that isn't there keeps it from starting, and is named.
    std::fs::remove_file(program.path().join("admin.token"))?;
    for arguments in [("config", &["check"][..]), ("serve", &[])] {
        let refused = program.memcell.run(arguments.0, arguments.1, None).await?;
        let text = said(&refused);
        ensure!(refused.status.code() == Some(64) && text.contains("auth.tokens.admin.file"), "{text}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_ask_a_protected_host() -> Result<()> {
    let authority = Authority::new()?;
    authority.issue()?;
    let program = Program::new("").await?;
    let port = memcell_tests::child::free_port()?;
    let listen = format!("127.0.0.1:{port}");
    let sections = format!("{}{}", authority.section(""), all_roles(program.path())?);
    program.configure(&listen, &sections)?;
    let host = program.serve().await?;
    let run = async |command: &str, arguments: &[&str], token: Option<&str>| {
        let output = program.memcell.run(command, arguments, token).await?;
        Ok::<_, anyhow::Error>((output.status.code(), said(&output)))
    };
    memcell_tests::host::eventually("the backend is live", async || Ok(run("status", &[], None).await?.0 == Some(0)))
        .await?;

    // By itself: the token that suffices, and the certificate, are those of the configuration.
    let (code, text) = run("verify", &[], None).await?;
    ensure!(code == Some(0), "{text}");
    let (code, text) = run("config", &["reload"], None).await?;
    ensure!(code == Some(0) && text.contains("\"changes\":[]"), "{text}");
    // With a token that is given, in either way.
    let file = secret(program.path(), "given.token", WRITE)?;
    let given = ["--token-file", file.as_str()];
    ensure!(run("status", &given, None).await?.0 == Some(0));
    let (code, text) = run("verify", &given, Some(ADMIN)).await?;
    ensure!(code == Some(1) && text.contains("the host refuses") && text.contains("admin"), "{text}");
    ensure!(text.contains(&file) && !text.contains(WRITE), "{text}");
    let (code, text) = run("config", &["reload"], Some(READ)).await?;
    ensure!(code == Some(1) && text.contains("that of MEMCELL_TOKEN"), "{text}");
    let (code, text) = run("status", &[], Some("short")).await?;
    ensure!(code == Some(2) && text.contains("MEMCELL_TOKEN must have 20"), "{text}");

    // At a URL: nobody is trusted, and no token is sent, without having been told.
    let url = format!("https://localhost:{port}");
    let (code, text) = run("status", &["--url", &url], Some(READ)).await?;
    ensure!(code == Some(1) && text.contains("--ca-file"), "{text}");
    let ca = authority.path();
    let trusted = ["--url", url.as_str(), "--ca-file", ca.as_str()];
    let (code, text) = run("status", &trusted, Some(READ)).await?;
    ensure!(code == Some(0) && text.contains(&url), "{text}");
    let (code, text) = run("status", &trusted, None).await?;
    ensure!(code == Some(1) && text.contains("no token was sent") && text.contains("--token-file"), "{text}");
    // Somebody else's certificate is not taken for the host's.
    let other = Authority::new()?;
    other.issue()?;
    let (code, text) = run("status", &["--url", &url, "--ca-file", &other.path()], Some(READ)).await?;
    ensure!(code == Some(1) && text.contains("certificate is not trusted"), "{text}");
    program.configure(&listen, &format!("{}{}", other.section(""), all_roles(program.path())?))?;
    let (code, text) = run("status", &[], None).await?;
    ensure!(code == Some(1) && text.contains("another certificate"), "{text}");
    host.stop().await
}
