//! Fetching, the cache in front, and what is damaged on either side.

use std::fs;

use anyhow::Result;
use memcell_host::config::OciPlugin;
use memcell_host::kv::{Engine, Plugin};
use memcell_host::oci::Components;

use crate::{LIMIT, Stage, final_failure, has, name, passing_failure, push};

#[tokio::test]
async fn what_was_pushed_is_pulled_and_then_comes_from_the_cache() -> Result<()> {
    let mut stage = Stage::new().await?;
    assert!(!stage.components.has(&stage.plugin.reference, LIMIT));
    let fetched = stage.fetch().await?;
    assert_eq!((&fetched.bytes, fetched.from_cache), (&stage.component, false));
    assert_eq!(fetched.reference, stage.plugin.reference);
    Plugin::from_bytes(&Engine::new(None)?, "x".as_ref(), fetched.bytes, None, &Default::default())?;

    // From now on there is no registry.
    stage.registry.stop()?;
    assert!(stage.components.has(&stage.plugin.reference, LIMIT));
    let fetched = stage.fetch().await?;
    assert_eq!((&fetched.bytes, fetched.from_cache), (&stage.component, true));
    has(&passing_failure(Components::new(None).fetch(&stage.plugin, LIMIT).await), &["can't be reached", "refused"]);
    Ok(())
}

#[tokio::test]
async fn the_same_component_is_the_same_artifact() -> Result<()> {
    let stage = Stage::new().await?;
    assert_eq!(push(&stage.plugin.registry, &stage.component).await?, stage.plugin.reference);
    let other = push(&stage.plugin.registry, b"something else").await?;
    assert_ne!(other.digest, stage.plugin.reference.digest);
    // The tag means the other one by now; the digest still means what it did.
    let by_tag = name(&format!("oci://{}/team/in-memory:1.0", stage.registry.address()))?;
    let resolved = stage.components.resolve(&by_tag, &stage.plugin.registry, LIMIT).await?;
    assert_eq!((resolved.bytes.as_slice(), resolved.reference), (&b"something else"[..], other));
    assert_eq!(stage.fetch().await?.bytes, stage.component);
    Ok(())
}

#[tokio::test]
async fn a_damaged_cache_is_fetched_anew() -> Result<()> {
    let mut stage = Stage::new().await?;
    stage.fetch().await?;
    let blob = stage.cache.path().join("blobs/sha256").join(stage.layer()?);
    for damage in [&b"\0asm, but not this one"[..], b""] {
        fs::write(&blob, damage)?;
        let fetched = stage.fetch().await?;
        assert_eq!((&fetched.bytes, fetched.from_cache), (&stage.component, false));
        assert!(stage.fetch().await?.from_cache, "it is whole again");
    }
    fs::write(&blob, "damaged")?;
    stage.registry.stop()?;
    has(&passing_failure(stage.fetch().await), &["can't be reached"]);
    Ok(())
}

#[tokio::test]
async fn many_fetch_the_same_at_a_time() -> Result<()> {
    let stage = Stage::new().await?;
    let fetching = (0..8).map(|_| stage.fetch());
    for fetched in futures::future::join_all(fetching).await {
        assert_eq!(fetched?.bytes, stage.component);
    }
    let files = fs::read_dir(stage.cache.path().join("blobs/sha256"))?.count();
    assert_eq!(files, 1, "nothing is left over");
    Ok(())
}

#[tokio::test]
async fn a_cache_that_cannot_be_written_costs_only_time() -> Result<()> {
    let stage = Stage::new().await?;
    let file = stage.cache.path().join("file");
    fs::write(&file, "no directory")?;
    let components = Components::new(Some(file));
    for _ in 0..2 {
        let fetched = components.fetch(&stage.plugin, LIMIT).await?;
        assert_eq!((&fetched.bytes, fetched.from_cache), (&stage.component, false));
    }
    Ok(())
}

#[tokio::test]
async fn what_the_registry_holds_is_not_believed() -> Result<()> {
    let stage = Stage::new().await?;
    stage.fetch().await?;
    let layer = stage.registry.blob(&stage.layer()?);
    let mut damaged = stage.component.clone();
    damaged.last_mut().into_iter().for_each(|byte| *byte ^= 1);
    fs::write(&layer, &damaged)?;
    let uncached = Components::new(None);
    let text = final_failure(uncached.fetch(&stage.plugin, LIMIT).await);
    has(&text, &["the component has the SHA-256 digest", &stage.layer()?, "is asked for"]);

    fs::write(&layer, [stage.component.as_slice(), b"more"].concat())?;
    has(&final_failure(uncached.fetch(&stage.plugin, LIMIT).await), &["longer than the"]);
    fs::write(&layer, stage.component.get(..100).unwrap_or_default())?;
    has(&final_failure(uncached.fetch(&stage.plugin, LIMIT).await), &["the component has the SHA-256 digest"]);
    assert!(stage.fetch().await?.from_cache, "the cache has it as it was");
    Ok(())
}

#[tokio::test]
async fn another_digest_is_another_artifact() -> Result<()> {
    let stage = Stage::new().await?;
    let mut plugin = stage.plugin.clone();
    plugin.reference.digest = [7; 32];
    let text = final_failure(stage.components.fetch(&plugin, LIMIT).await);
    has(
        &text,
        &[
            &plugin.reference.to_string(),
            "doesn't have it: 404",
            "MANIFEST_UNKNOWN",
            "check the name, and the tag or the digest",
        ],
    );
    let mut plugin: OciPlugin = stage.plugin.clone();
    plugin.reference.repository = "team/nothing".to_owned();
    has(&final_failure(stage.components.fetch(&plugin, LIMIT).await), &["doesn't have it: 404"]);
    Ok(())
}

#[tokio::test]
async fn a_component_that_is_too_large_is_not_fetched() -> Result<()> {
    let stage = Stage::new().await?;
    let size = stage.component.len() as u64;
    let text = final_failure(stage.components.fetch(&stage.plugin, size - 1).await);
    has(&text, &[&format!("of {size} bytes, more than {}", size - 1), "raise `limits.component`"]);
    assert!(fs::read_dir(stage.cache.path())?.next().is_none(), "nothing was kept");
    stage.components.fetch(&stage.plugin, size).await?;
    let text = final_failure(stage.components.fetch(&stage.plugin, size - 1).await);
    has(&text, &["raise `limits.component`"]);
    Ok(())
}
