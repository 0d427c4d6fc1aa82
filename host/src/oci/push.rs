//! Bringing a component to a registry: its layer, its configuration, and at last the manifest that names them.

use bytes::Bytes;
use hyper::header::LOCATION;
use hyper::{Method, StatusCode, Uri};

use super::error::Problem;
use super::http::{Ask, resolve};
use super::manifest::{self, Description, MANIFEST_TYPE};
use super::session::{Purpose, Session};
use super::token::escaped;
use super::{blocking, digest_of};
use crate::config::{OciName, OciReference, RegistryConfig};
use crate::hex;

/// Pushes a component under the tag of `name`; without one, it can be had by its digest alone.
pub(super) async fn push(
    name: &OciName,
    registry: &RegistryConfig,
    component: Vec<u8>,
    description: &Description,
) -> Result<OciReference, Problem> {
    let mut session = Session::new(registry, &name.repository, Purpose::Push).await?;
    let size = component.len() as u64;
    let (layer, component) = blocking(move || (digest_of(&component), component)).await?;
    let config = manifest::config(&layer, description);
    let (config_digest, config_size) = (digest_of(&config), config.len() as u64);
    upload(&mut session, &layer, component.into()).await?;
    upload(&mut session, &config_digest, config.into()).await?;

    let manifest = manifest::build(&config_digest, config_size, &layer, size);
    let digest = digest_of(&manifest);
    let version = name.tag.clone().unwrap_or_else(|| format!("sha256:{}", hex::encode(&digest)));
    let put = Ask {
        method: Method::PUT,
        uri: session.uri(&format!("manifests/{version}"))?,
        accept: None,
        content_type: Some(MANIFEST_TYPE),
        body: manifest.into(),
    };
    session.expect(put, StatusCode::CREATED).await?;
    let OciName { registry, repository, tag, .. } = name.clone();
    Ok(OciReference { registry, repository, tag, digest })
}

/// Uploads a blob in one piece, unless the registry has it.
async fn upload(session: &mut Session, digest: &[u8; 32], bytes: Bytes) -> Result<(), Problem> {
    let digest = format!("sha256:{}", hex::encode(digest));
    let look = Ask { method: Method::HEAD, ..Ask::get(session.uri(&format!("blobs/{digest}"))?) };
    if session.ask(look).await?.status == StatusCode::OK {
        return Ok(());
    }
    let begin = Ask { method: Method::POST, ..Ask::get(session.uri("blobs/uploads/")?) };
    let from = begin.uri.clone();
    let begun = session.expect(begin, StatusCode::ACCEPTED).await?;
    let uri = upload_uri(&resolve(&from, begun.headers.get(LOCATION))?, &digest)?;
    drop(begun);
    let content_type = Some("application/octet-stream");
    let put = Ask { method: Method::PUT, uri, accept: None, content_type, body: bytes };
    session.expect(put, StatusCode::CREATED).await.map(drop)
}

fn upload_uri(location: &Uri, digest: &str) -> Result<Uri, Problem> {
    let separator = if location.query().is_some() { '&' } else { '?' };
    let text = format!("{location}{separator}digest={}", escaped(digest));
    text.parse().map_err(|_| Problem::NoRegistry("it wants the upload at no place that there is".to_owned()))
}
