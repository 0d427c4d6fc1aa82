//! `cargo xtask docs`: writes what is documented in one place and shown in another.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::args::Args;
use crate::process::say;
use crate::workspace;

pub(crate) const SUMMARY: &str = "write docs/configuration.md from memcell.example.toml";
pub(crate) const HELP: &str = "\
usage: cargo xtask docs [--check]

Writes docs/configuration.md: every key of memcell.example.toml with its default and its explanation there.

  --check  only says whether it is up to date, and fails if it isn't
";

/// What is made of the example.
const OUTPUT: &str = "docs/configuration.md";
/// The comments of this file are the documentation of the keys; a test of the host checks that it has all of them.
const SOURCE: &str = "memcell.example.toml";

/// Runs the command.
pub(crate) fn command(mut args: Args) -> Result<()> {
    let check = args.flag("--check");
    args.finish()?;
    let root = workspace::root();
    let source = fs::read_to_string(root.join(SOURCE)).with_context(|| format!("{SOURCE} can't be read"))?;
    let text = configuration(&source)?;
    let output = root.join(OUTPUT);
    if check {
        let present = fs::read_to_string(&output).unwrap_or_default();
        if present != text {
            bail!("{OUTPUT} is not what `cargo xtask docs` makes of {SOURCE}: run it and commit the result");
        }
        say(&format!("{OUTPUT} is up to date"));
        return Ok(());
    }
    fs::write(&output, text).with_context(|| format!("{OUTPUT} can't be written"))?;
    say(&format!("{OUTPUT} is written"));
    Ok(())
}

/// One table of the example.
struct Table {
    name: String,
    explanation: Vec<String>,
    rows: Vec<Row>,
}

/// Keys that are explained together.
struct Row {
    /// Each with its value, or its example if it has no default.
    keys: Vec<(String, Value)>,
    explanation: Vec<String>,
}

enum Value {
    Default(String),
    Example(String),
}

/// The page. The example's comments are its text: those before a table introduce it, those before a key explain it and the
/// keys that follow without one.
fn configuration(source: &str) -> Result<String> {
    let (head, tables) = read(source)?;
    let mut page = String::from(
        "<!-- Written by `cargo xtask docs` from memcell.example.toml: change it there. -->\n\n# Configuration\n\n",
    );
    page += &paragraphs(&head);
    for table in &tables {
        write!(page, "\n## `[{}]`\n\n", table.name)?;
        page += &paragraphs(&table.explanation);
        if table.rows.is_empty() {
            continue;
        }
        if !table.explanation.is_empty() {
            page.push('\n');
        }
        page += "| Key | Default | Meaning |\n| --- | --- | --- |\n";
        for row in &table.rows {
            let cell =
                |show: &dyn Fn(&(String, Value)) -> String| row.keys.iter().map(show).collect::<Vec<_>>().join("<br>");
            let keys = cell(&|(key, _)| format!("`{key}`"));
            let values = cell(&|(_, value)| match value {
                Value::Default(value) => format!("`{}`", escape(value)),
                Value::Example(value) => format!("none; such as `{}`", escape(value)),
            });
            writeln!(page, "| {keys} | {values} | {} |", in_cell(&row.explanation))?;
        }
    }
    Ok(page)
}

fn read(source: &str) -> Result<(Vec<String>, Vec<Table>)> {
    let mut head = Vec::new();
    let mut tables: Vec<Table> = Vec::new();
    let mut comment: Vec<String> = Vec::new();
    for (line, number) in source.lines().zip(1..) {
        let row = line.strip_prefix('#').filter(|key| key.starts_with(|c: char| c.is_ascii_lowercase()));
        if line.is_empty() {
            if tables.is_empty() && head.is_empty() {
                head = std::mem::take(&mut comment);
            }
        } else if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            tables.push(Table { name: name.to_owned(), explanation: std::mem::take(&mut comment), rows: Vec::new() });
        } else if let Some((key, value)) =
            row.unwrap_or(line).split_once(" = ").filter(|_| row.is_some() || !line.starts_with('#'))
        {
            let value = if row.is_some() { Value::Example(value.to_owned()) } else { Value::Default(value.to_owned()) };
            let table = tables.last_mut().with_context(|| format!("{SOURCE}:{number}: a key before any table"))?;
            let key = (key.to_owned(), value);
            match table.rows.last_mut().filter(|_| comment.is_empty()) {
                Some(before) => before.keys.push(key),
                None => table.rows.push(Row { keys: vec![key], explanation: std::mem::take(&mut comment) }),
            }
        } else if let Some(text) = line.strip_prefix('#') {
            comment.push(text.strip_prefix(' ').unwrap_or(text).to_owned());
        } else {
            bail!("{SOURCE}:{number}: neither a comment nor a table nor a key: {line}");
        }
    }
    Ok((head, tables))
}

/// Comment lines as paragraphs; an empty one ends a paragraph.
fn paragraphs(lines: &[String]) -> String {
    let mut text = String::new();
    for line in lines {
        text += line;
        text.push('\n');
    }
    text
}

/// Comment lines in a cell of a table: running text, but lines that are set in stay lines.
fn in_cell(lines: &[String]) -> String {
    let mut text = String::new();
    for line in lines {
        let is_set_in = line.starts_with("  ");
        if !text.is_empty() {
            text += if is_set_in { "<br>" } else { " " };
        }
        text += &escape(line.trim());
    }
    text
}

fn escape(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_become_the_text() {
        let source = "# Head.\n#\n# More.\n\n# About a.\n[a]\n# One of:\n#   \"x\"   for x|y\n#   \"z\"\n# End.\nk = \"x\"\nl = 2\n#m = 3\n\n[a.b]\n";
        let page = configuration(source).unwrap();
        let text = page.split_once("# Configuration\n\n").unwrap().1;
        assert_eq!(
            text,
            "Head.\n\nMore.\n\n## `[a]`\n\nAbout a.\n\n| Key | Default | Meaning |\n| --- | --- | --- |\n\
             | `k`<br>`l`<br>`m` | `\"x\"`<br>`2`<br>none; such as `3` | One of:<br>\"x\"   for x\\|y<br>\"z\" End. |\n\
             \n## `[a.b]`\n\n"
        );
        for wrong in ["k = 1\n", "[a]\nnonsense\n"] {
            assert!(configuration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_page_is_up_to_date() {
        let read = |name: &str| fs::read_to_string(workspace::root().join(name)).unwrap();
        assert!(read(OUTPUT) == configuration(&read(SOURCE)).unwrap(), "run `cargo xtask docs`");
    }
}
