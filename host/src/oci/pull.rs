//! Fetching a component: its manifest, then its layer.

use hyper::StatusCode;

use super::error::Problem;
use super::http::Ask;
use super::manifest::{self, Layer, MANIFEST_BYTES};
use super::session::{Purpose, Session};
use super::{blocking, digest_of};
use crate::config::{OciName, RegistryConfig};
use crate::hex;

/// A component and what describes it, both as their digests say.
pub(super) struct Pulled {
    /// That of the manifest.
    pub(super) digest: [u8; 32],
    pub(super) manifest: Vec<u8>,
    pub(super) component: Vec<u8>,
}

/// Fetches a component of at most `limit` bytes.
pub(super) async fn pull(name: &OciName, registry: &RegistryConfig, limit: u64) -> Result<Pulled, Problem> {
    let mut session = Session::new(registry, &name.repository, Purpose::Pull).await?;
    let (digest, manifest) = manifest_of(&mut session, name).await?;
    let layer = manifest::component(&manifest)?;
    layer.check_size(limit)?;
    let component = blob(&mut session, &layer).await?;
    Ok(Pulled { digest, manifest, component })
}

async fn manifest_of(session: &mut Session, name: &OciName) -> Result<([u8; 32], Vec<u8>), Problem> {
    let version = match &name.digest {
        Some(digest) => format!("sha256:{}", hex::encode(digest)),
        None => name.tag.clone().unwrap_or_else(|| "latest".to_owned()),
    };
    let ask = Ask { accept: Some(manifest::accepted()), ..Ask::get(session.uri(&format!("manifests/{version}"))?) };
    let answer = session.expect(ask, StatusCode::OK).await?;
    let too_long = |_| Problem::NoRegistry(format!("its manifest is longer than {MANIFEST_BYTES} bytes"));
    let manifest = answer.bytes(MANIFEST_BYTES).await?.map_err(too_long)?;
    let actual = digest_of(&manifest);
    match name.digest {
        Some(expected) if expected != actual => Err(Problem::Digest { what: "the manifest", expected, actual }),
        _ => Ok((actual, manifest)),
    }
}

async fn blob(session: &mut Session, layer: &Layer) -> Result<Vec<u8>, Problem> {
    let expected = layer.digest;
    let ask = Ask::get(session.uri(&format!("blobs/sha256:{}", hex::encode(&expected)))?);
    let answer = session.expect(ask, StatusCode::OK).await?;
    let too_long =
        |_| Problem::NoComponent(format!("the component is longer than the {} bytes of its manifest", layer.size));
    let component = answer.bytes(layer.size).await?.map_err(too_long)?;
    let (actual, component) = blocking(move || (digest_of(&component), component)).await?;
    let (has, says) = (component.len() as u64, layer.size);
    if actual != expected {
        return Err(Problem::Digest { what: "the component", expected, actual });
    }
    if has != says {
        return Err(Problem::NoComponent(format!("the component has {has} bytes, and its manifest says {says}")));
    }
    Ok(component)
}
