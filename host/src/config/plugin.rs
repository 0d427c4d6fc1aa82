//! Where the component of a backend comes from: a file, or a registry.

use std::fmt;
use std::path::{Path, PathBuf};

use super::grants::Destination;
use super::registry::RegistryConfig;
use crate::hex;

/// What begins every reference to a registry.
const SCHEME: &str = "oci://";

/// Where a component is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PluginSource {
    /// In a file.
    File(PathBuf),
    /// In a registry.
    Oci(Box<OciPlugin>),
}

/// A component in a registry, and how the registry is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OciPlugin {
    /// Which component.
    pub reference: OciReference,
    /// What the file says about its registry.
    pub registry: RegistryConfig,
}

/// A component that can only be one: `oci://HOST[:PORT]/NAME[:TAG]@sha256:DIGEST`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OciReference {
    /// `host` or `host:port`, in lower case.
    pub registry: String,
    /// The name of the repository, such as `team/redis`.
    pub repository: String,
    /// For people; the digest is what counts.
    pub tag: Option<String>,
    /// The SHA-256 digest of the manifest.
    pub digest: [u8; 32],
}

/// What may be written where a registry is asked which component a tag means: the digest may be left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OciName {
    /// See [`OciReference`].
    pub registry: String,
    /// See [`OciReference`].
    pub repository: String,
    /// See [`OciReference`].
    pub tag: Option<String>,
    /// The SHA-256 digest of the manifest, if it is known.
    pub digest: Option<[u8; 32]>,
}

impl PluginSource {
    /// The file, if it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Oci(_) => None,
        }
    }
}

impl From<PathBuf> for PluginSource {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl From<&str> for PluginSource {
    fn from(path: &str) -> Self {
        Self::File(path.into())
    }
}

impl fmt::Display for PluginSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Oci(plugin) => plugin.reference.fmt(f),
        }
    }
}

impl OciReference {
    /// The name of the manifest: `sha256:` and 64 digits.
    pub fn digest_text(&self) -> String {
        format!("sha256:{}", hex::encode(&self.digest))
    }
}

impl fmt::Display for OciReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = OciName {
            registry: self.registry.clone(),
            repository: self.repository.clone(),
            tag: self.tag.clone(),
            digest: Some(self.digest),
        };
        name.fmt(f)
    }
}

impl fmt::Display for OciName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@sha256:{}", hex::encode(digest)),
            None => Ok(()),
        }
    }
}

impl OciName {
    /// Whether a text is meant to be one, rather than the path of a file.
    pub fn is_meant_by(text: &str) -> bool {
        text.starts_with(SCHEME)
    }

    /// Reads `oci://HOST[:PORT]/NAME[:TAG][@sha256:DIGEST]`, with the grammar of the OCI distribution specification.
    ///
    /// # Errors
    /// What is wrong with the text, to be put behind the name of what it was given for.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            let example = "oci://registry.example.com/team/redis@sha256: and 64 hexadecimal digits";
            format!("must be such as {example}; {what}, found {text:?}")
        };
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| wrong("it begins with oci://"))?;
        let (rest, digest) = match rest.split_once('@') {
            None => (rest, None),
            Some((rest, digest)) => {
                let digest = digest.strip_prefix("sha256:").ok_or_else(|| wrong("the digest begins with sha256:"))?;
                let digest = hex::sha256(digest).ok_or_else(|| wrong("a digest has 64 hexadecimal digits"))?;
                (rest, Some(digest))
            }
        };
        let (registry, name) = rest.split_once('/').ok_or_else(|| wrong("the name of the repository is missing"))?;
        let registry = registry_name(registry).ok_or_else(|| wrong("that is no host of a registry"))?;
        let (repository, tag) = match name.split_once(':') {
            None => (name, None),
            Some((name, tag)) => (name, Some(tag)),
        };
        if !is_repository(repository) {
            return Err(wrong("a repository is named with a-z, 0-9, and . _ - between them, in parts separated by /"));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(wrong("a tag has up to 128 letters, digits and . _ -, and doesn't begin with . or -"));
        }
        Ok(Self { registry, repository: repository.to_owned(), tag: tag.map(str::to_owned), digest })
    }

    /// The component that it is sure to mean.
    ///
    /// # Errors
    /// If it has no digest; the text says how to get it.
    pub fn pinned(self) -> Result<OciReference, String> {
        let Some(digest) = self.digest else {
            return Err(format!(
                "needs the digest of the manifest, for a tag may come to mean something else: \
                 `memcell plugin pull {self}` prints the reference with it"
            ));
        };
        let Self { registry, repository, tag, .. } = self;
        Ok(OciReference { registry, repository, tag, digest })
    }
}

/// The name of a registry as references and `[registries]` have it: `host` or `host:port`, in lower case.
pub(super) fn registry_name(text: &str) -> Option<String> {
    if let Ok(destination) = Destination::parse(text) {
        return Some(destination.to_string());
    }
    let with_port = Destination::parse(&format!("{text}:443")).ok()?;
    with_port.to_string().strip_suffix(":443").map(str::to_owned)
}

fn is_repository(name: &str) -> bool {
    let part = |part: &str| {
        let ends = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = part.as_bytes();
        bytes.first().is_some_and(ends)
            && bytes.last().is_some_and(ends)
            && bytes.iter().all(|byte| ends(byte) || matches!(byte, b'.' | b'_' | b'-'))
    };
    name.len() <= 255 && name.split('/').all(part)
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=128).contains(&tag.len())
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "000102030405060708090a0b0c0d0e0f000102030405060708090a0b0c0d0eff";

    #[test]
    fn references() {
        let check = |text: &str, expect: &str| {
            let parsed = OciName::parse(text).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(parsed.to_string(), expect);
            assert_eq!(OciName::parse(expect), Ok(parsed));
        };
        let pinned = format!("oci://registry.example.com/team/redis@sha256:{DIGEST}");
        check(&pinned, &pinned);
        let tagged = format!("oci://localhost:5000/a/b-c.d__e/f:v1.0-RC@sha256:{DIGEST}");
        check(&tagged, &tagged);
        check("oci://Example.COM:5000/a:1", "oci://example.com:5000/a:1");
        check("oci://[::1]:5000/a", "oci://[::1]:5000/a");
        check("oci://192.0.2.1/a", "oci://192.0.2.1/a");
        let reference = OciName::parse(&tagged).unwrap().pinned().unwrap();
        assert_eq!(reference.to_string(), tagged);
        assert_eq!(reference.digest_text(), format!("sha256:{DIGEST}"));
    }

    #[test]
    fn what_is_no_reference() {
        let upper = format!("oci://h/A@sha256:{DIGEST}");
        for (wrong, why) in [
            ("redis", "begins with oci://"),
            ("oci://", "the name of the repository is missing"),
            ("oci://host", "the name of the repository is missing"),
            ("oci:///a", "no host of a registry"),
            ("oci://user@host/a", "the digest begins with sha256:"),
            ("oci://h_:x/a", "no host of a registry"),
            ("oci://h/", "a repository is named"),
            ("oci://h/a//b", "a repository is named"),
            ("oci://h/../a", "a repository is named"),
            ("oci://h/a?b", "a repository is named"),
            (&upper, "a repository is named"),
            ("oci://h/a:", "a tag has"),
            ("oci://h/a:-x", "a tag has"),
            ("oci://h/a:b/c", "a tag has"),
            ("oci://h/a@md5:00", "the digest begins with sha256:"),
            ("oci://h/a@sha256:00", "64 hexadecimal digits"),
        ] {
            let error = OciName::parse(wrong).unwrap_err();
            assert!(error.contains(why) && error.contains("found"), "{wrong}: {error}");
        }
        let error = OciName::parse("oci://h/a:1").unwrap().pinned().unwrap_err();
        assert!(error.contains("`memcell plugin pull oci://h/a:1` prints"), "{error}");
    }
}
