//! `[validation]`, which changes at once.

use anyhow::{Context, Result, ensure};
use memcell_tests::host::TestHost;
use memcell_tests::operations::memcell;

use super::{VALIDATION, changes, in_memory, status};

async fn outcome(host: &TestHost, path: &str) -> Result<String> {
    let answer = host.request("GET", path).await?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(answer.header("x-memcell-validation").to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_key_takes_effect_at_once() -> Result<()> {
    let local = in_memory("local", "")?;
    let host = TestHost::start_from_file(&format!("{VALIDATION}{local}")).await?;
    host.live().await?;
    let path = format!("/v1/memcells/{}", host.append(&memcell("x")).await?);
    host.settled().await?;
    let mirror = host.store.mirror("local").context("local")?;
    assert_eq!(outcome(&host, &path).await?, "consistent");

    let changed = |key| [(key, "changed")];
    let background = format!("{VALIDATION}mode = \"background\"\n{local}");
    changes(&host, &background, &changed("validation.mode")).await?;
    assert_eq!(outcome(&host, &path).await?, "deferred");
    changes(&host, &format!("{VALIDATION}{local}"), &changed("validation.mode")).await?;
    changes(&host, &format!("{VALIDATION}single_reads = false\n{local}"), &changed("validation.single_reads")).await?;
    assert_eq!(outcome(&host, &path).await?, "");
    assert_eq!(outcome(&host, &format!("{path}?validate=true")).await?, "consistent");
    changes(&host, &format!("{VALIDATION}{local}"), &changed("validation.single_reads")).await?;
    changes(&host, &format!("{VALIDATION}sample = 0.0\n{local}"), &changed("validation.sample")).await?;
    assert_eq!(outcome(&host, &path).await?, "");
    assert!(std::sync::Arc::ptr_eq(&mirror, &host.store.mirror("local").context("local")?));
    host.stop().await?;
    Ok(())
}

/// Without `validation.backend`, the first that is enabled is compared with: which one that is can change with the order alone, and
/// is told then.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_backend_is_compared_with_unless_one_is_named() -> Result<()> {
    let (a, b) = (in_memory("a", "")?, in_memory("b", "")?);
    let host = TestHost::start_from_file(&format!("{VALIDATION}{a}{b}")).await?;
    host.live().await?;
    let path = format!("/v1/memcells/{}", host.append(&memcell("x")).await?);
    host.settled().await?;
    let told = [("validation.backend", "changed")];
    for (sections, compared) in [(format!("{VALIDATION}{b}{a}"), "b"), (format!("{VALIDATION}{a}{b}"), "a")] {
        changes(&host, &sections, &told).await?;
        assert_eq!(status(&host, compared).await?["validates"], true);
        assert_eq!(outcome(&host, &path).await?, "consistent");
    }
    // Compared with before it is live: nothing can be said until then, and nothing wrong is.
    let c = in_memory("c", "")?;
    let expected = [("validation.backend", "changed"), ("backends.c", "added")];
    changes(&host, &format!("{VALIDATION}backend = \"c\"\n{a}{b}{c}"), &expected).await?;
    let early = outcome(&host, &path).await?;
    assert!(["skipped", "consistent"].contains(&early.as_str()), "{early}");
    host.live().await?;
    assert_eq!(outcome(&host, &path).await?, "consistent");
    assert!(host.store.mismatches().is_empty());
    host.stop().await?;
    Ok(())
}
