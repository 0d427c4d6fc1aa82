//! What an artifact with a component looks like (<https://tag-runtime.cncf.io/wgs/wasm/deliverables/wasm-oci-artifact/>), and
//! what it looked like before that was agreed on.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::error::Problem;
use crate::hex;
use crate::kv::shown;

/// Most bytes of a manifest: what registries have to take at least (OCI distribution specification, "Pushing Manifests").
pub(super) const MANIFEST_BYTES: u64 = 4 << 20;

pub(super) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX_TYPES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
const CONFIG_TYPE: &str = "application/vnd.wasm.config.v0+json";
/// As it is agreed on, and as it was before.
const LAYER_TYPES: [&str; 2] = ["application/wasm", "application/vnd.wasm.content.layer.v1+wasm"];

/// What is asked for: indexes as well, so that they can be told from what is missing.
pub(super) fn accepted() -> String {
    let [index, list] = INDEX_TYPES;
    format!("{MANIFEST_TYPE}, {index}, {list}")
}

/// What a component imports and exports, for those who look at the artifact.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Description {
    /// Names of interfaces.
    pub exports: Vec<String>,
    /// Names of interfaces.
    pub imports: Vec<String>,
}

/// The layer with the component.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layer {
    pub(super) digest: [u8; 32],
    pub(super) size: u64,
}

impl Layer {
    pub(super) fn check_size(&self, limit: u64) -> Result<(), Problem> {
        if self.size > limit { Err(Problem::TooLarge { bytes: self.size, limit }) } else { Ok(()) }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    media_type: Option<String>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    manifests: Option<Vec<Descriptor>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
}

/// The layer of the component in a manifest whose bytes are what they ought to be.
///
/// # Errors
/// If it is another kind of artifact; the text says which.
pub(super) fn component(manifest: &[u8]) -> Result<Layer, Problem> {
    let none = |what: String| Problem::NoComponent(format!("the artifact is no component: {what}"));
    let manifest: Manifest = serde_json::from_slice(manifest)
        .map_err(|error| none(format!("its manifest can't be read: {}", shown(&error.to_string()))))?;
    if let Some(manifests) = &manifest.manifests {
        let listed: Vec<&str> = manifests.iter().map(|one| one.digest.as_str()).take(8).collect();
        return Err(none(format!(
            "it is an index of {} manifests, for several platforms; use the digest of one of them: {}",
            manifests.len(),
            shown(&listed.join(", "))
        )));
    }
    let media_type = manifest.media_type.as_deref().unwrap_or(MANIFEST_TYPE);
    if manifest.schema_version != 2 || media_type != MANIFEST_TYPE {
        return Err(none(format!("its manifest is of the type {}", shown(media_type))));
    }
    let [layer] = manifest.layers.as_slice() else {
        let types: Vec<&str> = manifest.layers.iter().map(|layer| layer.media_type.as_str()).collect();
        return Err(none(format!("one layer is expected, it has {} ({})", types.len(), shown(&types.join(", ")))));
    };
    if !LAYER_TYPES.contains(&layer.media_type.as_str()) {
        return Err(none(format!(
            "its layer is of the type {}, where {} is expected",
            shown(&layer.media_type),
            LAYER_TYPES.join(" or ")
        )));
    }
    let digest = layer.digest.strip_prefix("sha256:").and_then(hex::sha256);
    let digest =
        digest.ok_or_else(|| none(format!("its layer has no SHA-256 digest, but {}", shown(&layer.digest))))?;
    Ok(Layer { digest, size: layer.size })
}

/// The configuration that goes with a component. It has no date in it, so that the same component is always the same artifact.
pub(super) fn config(layer: &[u8; 32], component: &Description) -> Vec<u8> {
    let config = json!({
        "created": "1970-01-01T00:00:00Z",
        "architecture": "wasm",
        "os": "wasip2",
        "layerDigests": [format!("sha256:{}", hex::encode(layer))],
        "component": component,
    });
    config.to_string().into_bytes()
}

/// The manifest of a component, with the digests and sizes of its configuration and of itself.
pub(super) fn build(config: &[u8; 32], config_size: u64, layer: &[u8; 32], layer_size: u64) -> Vec<u8> {
    let descriptor = |media_type: &str, digest: &[u8; 32], size: u64| {
        let digest = format!("sha256:{}", hex::encode(digest));
        json!({ "mediaType": media_type, "digest": digest, "size": size })
    };
    let [layer_type, _] = LAYER_TYPES;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": descriptor(CONFIG_TYPE, config, config_size),
        "layers": [descriptor(layer_type, layer, layer_size)],
    });
    manifest.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_understood() {
        let layer = component(&build(&[1; 32], 2, &[3; 32], 4)).unwrap();
        assert_eq!(layer, Layer { digest: [3; 32], size: 4 });
        assert!(layer.check_size(4).is_ok() && layer.check_size(3).is_err());
    }

    #[test]
    fn the_layout_of_before_is_understood() {
        let layer = format!(
            r#"{{"mediaType":"application/vnd.wasm.content.layer.v1+wasm","digest":"sha256:{}","size":5}}"#,
            "ab".repeat(32)
        );
        let config = r#"{"mediaType":"application/vnd.wasm.config.v1+json","digest":"sha256:00","size":2}"#;
        let manifest = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]}}"#);
        assert_eq!(component(manifest.as_bytes()).unwrap(), Layer { digest: [0xab; 32], size: 5 });
    }

    #[test]
    fn other_artifacts_are_named() {
        let check = |manifest: &str, why: &str| {
            let error = component(manifest.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(why), "{manifest}: {error}");
        };
        check("", "its manifest can't be read");
        check("<html>", "its manifest can't be read");
        check("{}", "its manifest can't be read");
        check(r#"{"schemaVersion":1}"#, "its manifest is of the type");
        check(r#"{"schemaVersion":2,"layers":[]}"#, "one layer is expected, it has 0");
        let one =
            |media_type: &str, digest: &str| format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":1}}"#);
        let tar = one("application/vnd.oci.image.layer.v1.tar+gzip", "sha256:00");
        check(&format!(r#"{{"schemaVersion":2,"layers":[{tar},{tar}]}}"#), "it has 2 (application/vnd.oci.image");
        check(&format!(r#"{{"schemaVersion":2,"layers":[{tar}]}}"#), "its layer is of the type application/vnd.oci");
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, one(MANIFEST_TYPE, "sha256:abc"));
        check(&index, "an index of 1 manifests, for several platforms; use the digest of one of them: sha256:abc");
        let sha512 = one("application/wasm", "sha512:abc");
        check(&format!(r#"{{"schemaVersion":2,"layers":[{sha512}]}}"#), "no SHA-256 digest, but sha512:abc");
    }

    #[test]
    fn the_configuration_says_what_the_component_is() {
        let description = Description { exports: vec!["a:b/c@1.0.0".into()], imports: Vec::new() };
        let config: serde_json::Value = serde_json::from_slice(&config(&[0xcd; 32], &description)).unwrap();
        assert_eq!(config["layerDigests"][0], format!("sha256:{}", "cd".repeat(32)));
        assert_eq!(config["component"]["exports"][0], "a:b/c@1.0.0");
        assert_eq!((&config["architecture"], &config["os"]), (&"wasm".into(), &"wasip2".into()));
    }
}
