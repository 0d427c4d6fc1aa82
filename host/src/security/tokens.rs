//! Bearer tokens: read from where the configuration says they are, kept as digests, compared in constant time.
//!
//! A token itself is in memory only while it is read or presented. What is kept can't be presented in its place, and says
//! nothing about a token that is long and random.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};

use super::problem;
use crate::config::{AuthConfig, Problem, Role, TokenSource};
use crate::secret_file::{self, SecretFile};

/// Twenty characters of base64 are 120 bits, which nobody can try out.
const FEWEST_BYTES: usize = 20;

/// More than any issuer's tokens have, and well within the head of a request.
const MOST_BYTES: usize = 4096;

/// A token that is let in, without the token.
pub struct Token {
    name: Arc<str>,
    role: Role,
    digest: [u8; 32],
}

impl Token {
    /// What the configuration calls it.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What it may do.
    pub fn role(&self) -> Role {
        self.role
    }
}

/// Without its digest, which it would be something to try tokens against.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.role.as_str())
    }
}

/// A token in the clear, which is never shown.
pub(crate) struct Secret(String);

impl Secret {
    /// Checks the form. A line break at the end, as editors and `echo` leave it, isn't part of the token.
    ///
    /// # Errors
    /// What is wrong, without the text.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let token = secret_file::line(text);
        if token.is_empty() {
            return Err("is empty; `openssl rand -base64 32` makes a good token".to_owned());
        }
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("must be one word of printable ASCII characters".to_owned());
        }
        if !(FEWEST_BYTES..=MOST_BYTES).contains(&token.len()) {
            let has = token.len();
            return Err(format!(
                "must have {FEWEST_BYTES} to {MOST_BYTES} characters, and has {has}; `openssl rand -base64 32` makes a good token"
            ));
        }
        Ok(Self(token.to_owned()))
    }

    /// The token, to be presented or digested and nothing else.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

/// Reads a file that has a token in it.
///
/// # Errors
/// What is wrong, without the content.
pub(crate) fn read_file(path: &Path) -> Result<Secret, String> {
    let shown = path.display();
    let wrong = |reason: String| format!("{shown} {reason}");
    // With a line break at its end.
    let file = SecretFile::read(path, MOST_BYTES + 2).map_err(wrong)?;
    if file.mode & 0o022 != 0 {
        return Err(format!("{shown} can be written by others than its owner: run `chmod go-w {shown}`"));
    }
    // What belongs to somebody else, such as a secret that was mounted, is not ours to change.
    if file.is_ours && file.mode & 0o044 != 0 {
        tracing::warn!(file = %shown, "a token can be read by others than the owner of its file; chmod 600 mends that");
    }
    let text = file.text().map_err(wrong)?;
    Secret::parse(text).map_err(|reason| format!("{shown}: the token {reason}"))
}

/// Reads a token from where it is; `None` if only its bearer has it.
///
/// # Errors
/// What is wrong, without the token.
pub(crate) fn read_source(source: &TokenSource) -> Result<Option<Secret>, String> {
    match source {
        TokenSource::File(path) => read_file(path).map(Some),
        TokenSource::Environment(name) => match std::env::var(name) {
            Ok(text) => Secret::parse(&text).map(Some).map_err(|reason| format!("the token in {name} {reason}")),
            Err(std::env::VarError::NotPresent) => Err(format!("the environment has no variable {name}")),
            Err(std::env::VarError::NotUnicode(_)) => Err(format!("the variable {name} is no text")),
        },
        TokenSource::Sha256(_) => Ok(None),
    }
}

/// All tokens that are let in.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    tokens: Vec<Token>,
}

impl Tokens {
    /// Reads all tokens; what is wrong with any of them is added to `problems`.
    pub(super) fn read(config: &AuthConfig, problems: &mut Vec<Problem>) -> Self {
        let mut tokens: Vec<Token> = Vec::with_capacity(config.tokens.len());
        for token in &config.tokens {
            let key = match token.source {
                TokenSource::File(_) => "file",
                TokenSource::Environment(_) => "environment",
                TokenSource::Sha256(_) => "sha256",
            };
            let key = format!("auth.tokens.{}.{key}", token.name);
            let digest = match (&token.source, read_source(&token.source)) {
                (_, Ok(Some(secret))) => digest(secret.expose()),
                (TokenSource::Sha256(digest), Ok(None)) => *digest,
                (_, Ok(None)) => continue,
                (_, Err(reason)) => {
                    problems.push(problem(key, reason));
                    continue;
                }
            };
            if let Some(same) = tokens.iter().find(|other| other.digest == digest) {
                problems.push(problem(key, format_args!("is the same token as auth.tokens.{}", same.name)));
            }
            tokens.push(Token { name: token.name.as_str().into(), role: token.role, digest });
        }
        Self { tokens }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The names of those that are other tokens than before, under the same name.
    pub(super) fn rotated_since(&self, before: &Self) -> impl Iterator<Item = Arc<str>> {
        let differs =
            |token: &&Token| before.tokens.iter().any(|other| other.name == token.name && other.digest != token.digest);
        self.tokens.iter().filter(differs).map(|token| Arc::clone(&token.name)).collect::<Vec<_>>().into_iter()
    }

    /// The token that this text is. Takes as long whichever it is, and however much of it is right. One that is too short to be safe
    /// is none, whoever made a digest of it.
    pub(super) fn find(&self, presented: &str) -> Option<&Token> {
        if presented.len() < FEWEST_BYTES {
            return None;
        }
        let digest = digest(presented);
        let mut found = u32::MAX;
        for (index, token) in (0_u32..).zip(&self.tokens) {
            found.conditional_assign(&index, token.digest.as_slice().ct_eq(digest.as_slice()));
        }
        self.tokens.get(usize::try_from(found).ok()?)
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::config::TokenConfig;

    const GOOD: &str = "0123456789abcdefghij";

    fn config(sources: Vec<(&str, Role, TokenSource)>) -> AuthConfig {
        let token =
            |(name, role, source): (&str, Role, TokenSource)| TokenConfig { name: name.to_owned(), role, source };
        AuthConfig { tokens: sources.into_iter().map(token).collect(), ..AuthConfig::default() }
    }

    fn read(config: &AuthConfig) -> Result<Tokens, String> {
        let mut problems = Vec::new();
        let tokens = Tokens::read(config, &mut problems);
        let texts: Vec<String> =
            problems.iter().map(|problem| format!("{}: {}", problem.key, problem.message)).collect();
        if texts.is_empty() { Ok(tokens) } else { Err(texts.join("\n")) }
    }

    #[test]
    fn a_token_is_found_by_all_of_its_text_and_nothing_less() {
        let other = "another token of no less length".replace(' ', "-");
        let tokens = read(&config(vec![
            ("a", Role::Read, TokenSource::Sha256(digest(GOOD))),
            ("b", Role::Admin, TokenSource::Sha256(digest(&other))),
        ]))
        .unwrap();
        assert_eq!(&**tokens.find(GOOD).unwrap().name(), "a");
        assert_eq!(tokens.find(&other).unwrap().role(), Role::Admin);
        for wrong in ["", &GOOD[1..], &format!("{GOOD} "), &GOOD.to_uppercase(), &"x".repeat(100_000)] {
            assert!(tokens.find(wrong).is_none());
        }
        assert!(Tokens::default().find(GOOD).is_none());
        assert_eq!(format!("{tokens:?}"), "Tokens { tokens: [a (read), b (admin)] }");
    }

    #[test]
    fn tokens_have_a_form() {
        for text in [GOOD.to_owned(), format!("{GOOD}\n"), format!("{GOOD}\r\n")] {
            assert_eq!(Secret::parse(&text).unwrap().expose(), GOOD);
        }
        for text in
            ["", "\n", "short", &format!("{GOOD}\n\n"), &format!(" {GOOD}"), &format!("{GOOD}ä"), &GOOD.repeat(500)]
        {
            let reason = Secret::parse(text).err().unwrap();
            assert!(text.trim().is_empty() || !reason.contains(text.trim()), "{reason}");
        }
    }

    #[test]
    fn files_are_read_with_care() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let write = |text: &str, mode: u32| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        write(&format!("{GOOD}\n"), 0o600);
        assert_eq!(read_file(&path).unwrap().expose(), GOOD);
        write(GOOD, 0o644);
        assert!(read_file(&path).is_ok(), "a warning");
        for (text, mode, part) in [
            (GOOD, 0o660, "chmod go-w"),
            ("hunter2", 0o600, "must have 20 to 4096 characters, and has 7"),
            (&GOOD.repeat(1000), 0o600, "has more than 4098 bytes"),
            ("", 0o600, "is empty"),
        ] {
            write(text, mode);
            let reason = read_file(&path).err().unwrap();
            assert!(reason.contains(part) && !reason.contains("hunter2"), "{reason}");
        }
        assert!(read_file(folder.path()).err().unwrap().contains("is no file"));
        assert!(read_file(&folder.path().join("none")).err().unwrap().contains("can't be read"));
    }

    #[test]
    fn all_problems_are_reported_by_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, GOOD).unwrap();
        let config = config(vec![
            ("a", Role::Read, TokenSource::File(path)),
            ("b", Role::Read, TokenSource::Environment("MEMCELL_TEST_NO_SUCH_VARIABLE".to_owned())),
            ("c", Role::Admin, TokenSource::Sha256(digest(GOOD))),
        ]);
        let expected = "auth.tokens.b.environment: the environment has no variable MEMCELL_TEST_NO_SUCH_VARIABLE\n\
                        auth.tokens.c.sha256: is the same token as auth.tokens.a";
        assert_eq!(read(&config).unwrap_err(), expected);
    }
}
