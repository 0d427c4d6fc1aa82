//! `memcell plugin new`: a backend that builds and passes the conformance suite as it comes.
//!
//! The SDK is on no registry. A scaffold has a copy of it in a folder of its own, from this very program: so it fits the contract that the
//! program speaks, and needs no checkout of this repository. `--sdk` names a checkout instead.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::json;

use super::{Exit, Failure, output};

const AFTER_HELP: &str = "\
Writes a crate into a new folder: a backend in about thirty lines, with a test, a README that lists the commands, and a copy of the SDK and
the contract in memcell-plugin/. It needs Rust 1.95 with the target wasm32-wasip2 (`rustup target add wasm32-wasip2`).

Exit code 1: the folder is there already, or can't be written.

Examples:
  memcell plugin new my-store
  memcell plugin new my-store --path backends/my-store --sdk ../memcell/plugins/sdk";

/// Arguments of `memcell plugin new`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(in crate::cli) struct NewArgs {
    /// The name of the crate: lower-case words with hyphens
    #[arg(value_name = "NAME", value_parser = crate_name)]
    name: String,
    /// The language
    #[arg(long, value_enum, default_value = "rust")]
    lang: Language,
    /// The folder to make; NAME in the current one if left out
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// The SDK's folder in a checkout of memcell, to depend on instead of a copy
    #[arg(long, value_name = "DIR")]
    sdk: Option<PathBuf>,
}

/// The languages with a scaffold. For others, plugins/examples is where to begin.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Language {
    /// A crate on the SDK
    Rust,
}

/// A file of the scaffold, by its path there.
type Template = (&'static str, &'static str);

const TEMPLATES: [Template; 4] = [
    ("Cargo.toml", include_str!("scaffold/Cargo.toml.in")),
    ("src/lib.rs", include_str!("scaffold/lib.rs")),
    ("README.md", include_str!("scaffold/README.md.in")),
    (".gitignore", include_str!("scaffold/gitignore")),
];

macro_rules! sdk_sources {
    ($($file:literal)*) => {
        [$((concat!("memcell-plugin/src/", $file), include_str!(concat!("../../../../plugins/sdk/src/", $file)))),*]
    };
}

const SDK_SOURCES: [Template; 14] = sdk_sources! {
    "answer.rs" "backend.rs" "digest.rs" "error.rs" "guest.rs" "lib.rs" "memory.rs" "record.rs" "rules.rs" "session.rs"
    "session_tests.rs" "settings.rs" "testing.rs" "units.rs"
};

const SDK_FILES: [Template; 3] = [
    ("memcell-plugin/Cargo.toml", include_str!("scaffold/sdk.toml.in")),
    ("memcell-plugin/LICENSE", include_str!("../../../../LICENSE")),
    ("memcell-plugin/wit/kv.wit", include_str!("../../../../wit/kv.wit")),
];

/// Where the SDK says that the contract is, in this repository and in a copy.
const CONTRACT_HERE: &str = "path: \"../../wit\"";
const CONTRACT_THERE: &str = "path: \"wit\"";

/// Names that Rust or Cargo keep for themselves.
const RESERVED: &[&str] = &[
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "core",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "let",
    "loop",
    "macro",
    "match",
    "memcell-plugin",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "proc-macro",
    "pub",
    "ref",
    "return",
    "self",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "unsafe",
    "unsized",
    "use",
    "virtual",
    "where",
    "while",
    "yield",
];

/// Carries it out.
pub(super) fn run(args: &NewArgs, json: bool) -> Result<Exit, Failure> {
    let Language::Rust = args.lang;
    let folder = args.path.clone().unwrap_or_else(|| PathBuf::from(&args.name));
    let sdk = args.sdk.as_deref().map(checkout).transpose()?;
    let files = files(&args.name, sdk.as_deref());
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent).map_err(|error| Failure::io(parent.display(), &error))?;
    }
    fs::create_dir(&folder).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Failure::Work(format!("{} is there already; choose another NAME or --path, or remove it", folder.display()))
        }
        _ => Failure::io(folder.display(), &error),
    })?;
    for (path, text) in &files {
        let path = folder.join(path);
        let parent = path.parent().unwrap_or(&folder);
        fs::create_dir_all(parent).map_err(|error| Failure::io(parent.display(), &error))?;
        fs::write(&path, text).map_err(|error| Failure::io(path.display(), &error))?;
    }
    let component = format!("target/wasm32-wasip2/release/{}.wasm", args.name.replace('-', "_"));
    if json {
        let paths: Vec<&str> = files.iter().map(|(path, _)| *path).collect();
        output::json_line(&json!({ "name": args.name, "folder": folder, "files": paths, "component": component }))?;
    } else {
        let text = format!(
            "wrote {} files to {}; go on with\n  cd {}\n  cargo test\n  cargo build --release --target wasm32-wasip2\n  \
             memcell plugin test {component}\n",
            files.len(),
            folder.display(),
            folder.display()
        );
        output::write(text.as_bytes())?;
    }
    Ok(Exit::Fine)
}

/// All files of a scaffold, with the copy of the SDK if no other is to be used.
fn files(name: &str, sdk: Option<&Path>) -> Vec<(&'static str, String)> {
    let sdk_path = sdk.map_or_else(|| "memcell-plugin".to_owned(), |path| path.display().to_string());
    // In TOML's basic strings.
    let sdk_path = sdk_path.replace('\\', "\\\\").replace('"', "\\\"");
    let filled = |text: &str| {
        text.replace("__NAME__", name)
            .replace("__TYPE__", &type_name(name))
            .replace("__FILE__", &name.replace('-', "_"))
            .replace("__SDK__", &sdk_path)
            .replace("__VERSION__", env!("CARGO_PKG_VERSION"))
    };
    let mut files: Vec<(&str, String)> = TEMPLATES.iter().map(|(path, text)| (*path, filled(text))).collect();
    if sdk.is_none() {
        files.extend(SDK_FILES.iter().map(|(path, text)| (*path, filled(text))));
        files.extend(SDK_SOURCES.iter().map(|(path, text)| (*path, text.replace(CONTRACT_HERE, CONTRACT_THERE))));
    }
    files
}

/// The folder of the SDK, as a path that holds from anywhere.
fn checkout(folder: &Path) -> Result<PathBuf, Failure> {
    let manifest = folder.join("Cargo.toml");
    let text = fs::read_to_string(&manifest).map_err(|error| Failure::io(manifest.display(), &error))?;
    if !text.lines().any(|line| line.trim() == "name = \"memcell-plugin\"") {
        return Err(Failure::Work(format!("{} is not the manifest of memcell-plugin", manifest.display())));
    }
    folder.canonicalize().map_err(|error| Failure::io(folder.display(), &error))
}

/// Checks the name of a crate.
fn crate_name(text: &str) -> Result<String, String> {
    let word = |word: &str| !word.is_empty() && word.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    if text.len() > 64 || !text.starts_with(|c: char| c.is_ascii_lowercase()) || !text.split('-').all(word) {
        return Err("write lower-case letters, digits and single hyphens, a letter first, 64 at the most".to_owned());
    }
    if RESERVED.contains(&text) {
        return Err("Rust or memcell keeps that name for itself".to_owned());
    }
    Ok(text.to_owned())
}

/// `my-store` as `MyStore`.
fn type_name(name: &str) -> String {
    let word = |word: &str| {
        let mut chars = word.chars();
        chars.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(chars).collect::<String>()
    };
    let camel: String = name.split('-').map(word).collect();
    // What the scaffold imports has these names.
    match camel.as_str() {
        "Backend" | "Found" | "Header" | "Record" | "Result" | "Settings" | "Step" | "Bound" | "BTreeMap"
        | "String" | "Vec" | "Option" | "Self" | "Some" | "None" | "Ok" | "Err" => format!("{camel}Store"),
        _ => camel,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn repository() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    #[test]
    fn the_whole_sdk_is_copied() {
        let there = fs::read_dir(repository().join("plugins/sdk/src")).unwrap();
        let there: BTreeSet<String> =
            there.map(|entry| format!("memcell-plugin/src/{}", entry.unwrap().file_name().to_str().unwrap())).collect();
        assert_eq!(there, SDK_SOURCES.iter().map(|(path, _)| (*path).to_owned()).collect());
        let changed = SDK_SOURCES.iter().filter(|(_, text)| text.contains(CONTRACT_HERE)).count();
        assert_eq!(changed, 1, "the place of the contract is said once");
    }

    /// The copy asks for the same versions as the SDK itself, which the workspace tells.
    #[test]
    fn the_copy_depends_on_what_the_sdk_depends_on() {
        let workspace: toml::Table = fs::read_to_string(repository().join("Cargo.toml")).unwrap().parse().unwrap();
        let sdk: toml::Table =
            fs::read_to_string(repository().join("plugins/sdk/Cargo.toml")).unwrap().parse().unwrap();
        let copy: toml::Table = SDK_FILES[0].1.parse().unwrap();
        assert_eq!(copy["features"], sdk["features"]);
        let tables: [fn(&toml::Table) -> &toml::Value; 3] = [
            |manifest| &manifest["dependencies"],
            |manifest| &manifest["dev-dependencies"],
            |manifest| &manifest["target"]["cfg(target_family = \"wasm\")"]["dependencies"],
        ];
        for table in tables {
            let names = |manifest| table(manifest).as_table().unwrap().keys().cloned().collect::<BTreeSet<_>>();
            assert_eq!(names(&copy), names(&sdk));
            for name in names(&copy) {
                let mut copied = table(&copy)[&name].clone();
                if let Some(copied) = copied.as_table_mut() {
                    copied.remove("optional");
                }
                assert_eq!(copied, workspace["workspace"]["dependencies"][&name], "{name}");
            }
        }
        for key in ["edition", "rust-version", "license"] {
            assert_eq!(copy["package"][key], workspace["workspace"]["package"][key], "{key}");
        }
    }

    #[test]
    fn nothing_is_left_to_fill_in() {
        for (path, text) in files("my-store", None).iter().chain(&files("my-store", Some(Path::new("/a \"b\"")))) {
            assert!(
                !["__NAME__", "__TYPE__", "__FILE__", "__SDK__", "__VERSION__"].iter().any(|mark| text.contains(mark)),
                "{path}"
            );
            if path.ends_with(".toml") {
                text.parse::<toml::Table>().unwrap();
            }
        }
    }

    /// So what the guide shows has been compiled and tested.
    #[test]
    fn the_backend_in_the_guide_is_that_of_the_scaffold() {
        let guide = fs::read_to_string(repository().join("plugins/README.md")).unwrap();
        let shown = guide.split("```rust\n").nth(1).unwrap().split("```").next().unwrap();
        let (_, text) = files("my-store", None).into_iter().find(|(path, _)| *path == "src/lib.rs").unwrap();
        let code = text.split_once("\nuse ").unwrap().1.split("\n#[cfg(test)]").next().unwrap();
        assert_eq!(shown, format!("use {code}"));
    }

    #[test]
    fn names() {
        for name in ["a", "my-store", "s3", "a-1"] {
            assert_eq!(crate_name(name).as_deref(), Ok(name));
        }
        for name in [
            "",
            "A",
            "1a",
            "a_b",
            "a-",
            "-a",
            "a--b",
            "ä",
            "../x",
            "a/b",
            "fn",
            "test",
            "memcell-plugin",
            &"a".repeat(65),
        ] {
            assert!(crate_name(name).is_err(), "{name}");
        }
        assert_eq!(type_name("my-store-2"), "MyStore2");
        assert_eq!(type_name("record"), "RecordStore");
    }
}
