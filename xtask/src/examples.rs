//! The example backends in other languages: their toolchains, which go into the user's cache, and their components.
//!
//! A component is kept in the cache together with everything that it was made from, and made again when any of that changes;
//! so a fresh clone, or a CI server, finds it there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process::{output, run, step};
use crate::{plugins, python, setup, workspace};

/// A backend in another language.
struct Example {
    /// The folder in `plugins/examples`.
    language: &'static str,
    /// The files that the component depends on, besides the contract; what pins the toolchain first.
    sources: &'static [&'static str],
    /// Makes sure that the toolchain is in a folder of the cache.
    toolchain: fn(sources: &Path, tools: &Path) -> Result<()>,
    /// The command that makes the component.
    compile: fn(sources: &Path, tools: &Path, component: &Path) -> Result<Command>,
}

const EXAMPLES: &[Example] = &[
    Example {
        language: "python",
        sources: &["requirements.txt", "app.py", "records.py"],
        toolchain: python_toolchain,
        compile: compile_python,
    },
    Example {
        language: "javascript",
        sources: &["package-lock.json", "package.json", "build.js", "app.js", "records.js"],
        toolchain: javascript_toolchain,
        compile: compile_javascript,
    },
];

/// Builds the examples that changed, and returns where all of them are.
///
/// # Errors
/// If a toolchain can't be had, or one doesn't compile.
pub(crate) fn build() -> Result<Vec<PathBuf>> {
    EXAMPLES.iter().map(build_one).collect()
}

fn build_one(example: &Example) -> Result<PathBuf> {
    let language = example.language;
    let sources = workspace::root().join("plugins/examples").join(language);
    let cache = workspace::cache()?.join("examples").join(language);
    let (component, made_from) = (cache.join("component.wasm"), cache.join("made-from"));
    let inputs = inputs(example, &sources)?;
    if !component.is_file() || fs::read(&made_from).ok().as_ref() != Some(&inputs) {
        let tools = workspace::cache()?.join("tools").join(format!("example-{language}"));
        (example.toolchain)(&sources, &tools)?;
        fs::create_dir_all(&cache).with_context(|| format!("can't make {}", cache.display()))?;
        let partial = cache.join(format!("component.wasm.{}", std::process::id()));
        step(&format!("building the example in {language}"), || {
            run(&mut (example.compile)(&sources, &tools, &partial)?)
        })?;
        // What it was made from is put down last: one that was interrupted is made again.
        match fs::remove_file(&made_from) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("can't remove {}", made_from.display()));
            }
            _ => {}
        }
        fs::rename(&partial, &component).with_context(|| format!("can't replace {}", component.display()))?;
        fs::write(&made_from, &inputs).with_context(|| format!("can't write {}", made_from.display()))?;
    }
    let bytes = fs::read(&component).with_context(|| format!("can't read {}", component.display()))?;
    plugins::place(&bytes, &workspace::components().join("plugins"), &format!("example_{language}.wasm"))
}

/// Everything that a component is made from, one file after the other.
fn inputs(example: &Example, sources: &Path) -> Result<Vec<u8>> {
    let mut inputs = Vec::new();
    let files = example.sources.iter().map(|name| sources.join(name)).chain([workspace::root().join("wit/kv.wit")]);
    for file in files {
        let text = fs::read(&file).with_context(|| format!("can't read {}", file.display()))?;
        let name = file.file_name().unwrap_or_default().display();
        inputs.extend_from_slice(format!("{name} {}\n", text.len()).as_bytes());
        inputs.extend_from_slice(&text);
    }
    Ok(inputs)
}

fn python_toolchain(sources: &Path, tools: &Path) -> Result<()> {
    python::venv(&sources.join("requirements.txt"), tools, "building the example in Python", (3, 10))
}

fn compile_python(sources: &Path, tools: &Path, component: &Path) -> Result<Command> {
    let mut command = Command::new(tools.join("venv/bin/componentize-py"));
    command.env("VIRTUAL_ENV", tools.join("venv")).arg("--quiet").arg("-d").arg(workspace::root().join("wit"));
    command.args(["-w", "backend", "componentize", "app", "-p"]).arg(sources).arg("-o").arg(component);
    Ok(command)
}

fn javascript_toolchain(sources: &Path, tools: &Path) -> Result<()> {
    python::ensure(&sources.join("package-lock.json"), tools, "componentize-js", || {
        let missing = ["node", "npm"].iter().any(|program| workspace::find_program(program).is_none());
        if missing {
            let what_for = "building the example in JavaScript";
            setup::install(&["nodejs", "npm"], what_for, "put `node` and `npm` on PATH")?;
        }
        let is_new = "process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)";
        if output(Command::new("node").args(["--eval", is_new])).is_none() {
            bail!("the `node` on PATH is older than 20, which componentize-js needs: put a newer one first");
        }
        for file in ["package.json", "package-lock.json"] {
            fs::copy(sources.join(file), tools.join(file)).with_context(|| format!("can't copy {file}"))?;
        }
        let mut npm = Command::new("npm");
        npm.current_dir(tools);
        run(npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]))
    })
}

fn compile_javascript(sources: &Path, tools: &Path, component: &Path) -> Result<Command> {
    // Node.js looks for modules beside the script that asks for them.
    let script = tools.join("build.js");
    fs::copy(sources.join("build.js"), &script).with_context(|| format!("can't make {}", script.display()))?;
    let mut command = Command::new("node");
    command.arg(script).arg(sources.join("app.js")).arg(workspace::root().join("wit"));
    command.arg("backend").arg(component);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_of_an_example_counts() {
        for example in EXAMPLES {
            let sources = workspace::root().join("plugins/examples").join(example.language);
            assert!(!inputs(example, &sources).unwrap().is_empty());
            for file in fs::read_dir(&sources).unwrap() {
                let name = file.unwrap().file_name().into_string().unwrap();
                let counts = example.sources.contains(&name.as_str());
                assert!(counts || ["README.md", "__pycache__", "node_modules"].contains(&name.as_str()), "{name}");
            }
        }
    }
}
