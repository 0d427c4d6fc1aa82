//! `cargo xtask COMMAND`: sets the repository up, builds its components, tests, lints, measures and demonstrates it.

mod args;
mod bench;
mod browser;
mod crash;
mod demo;
mod docs;
mod examples;
mod fuzz;
mod lint;
mod plugins;
mod process;
mod prometheus;
mod python;
mod redis;
mod registry;
mod server;
mod setup;
mod test;
mod workspace;

use std::io::Write as _;
use std::process::ExitCode;

use args::{Args, Usage};
use process::ChildFailed;

/// One command of the list that `cargo xtask --help` prints.
struct Command {
    name: &'static str,
    summary: &'static str,
    help: &'static str,
    run: fn(Args) -> anyhow::Result<()>,
}

/// In the order a newcomer meets them.
const COMMANDS: &[Command] = &[
    Command { name: "setup", summary: setup::SUMMARY, help: setup::HELP, run: setup::command },
    Command { name: "demo", summary: demo::SUMMARY, help: demo::HELP, run: demo::command },
    Command { name: "plugins", summary: plugins::SUMMARY, help: plugins::HELP, run: plugins::command },
    Command { name: "test", summary: test::SUMMARY, help: test::HELP, run: test::command },
    Command { name: "lint", summary: lint::SUMMARY, help: lint::HELP, run: lint::command },
    Command { name: "docs", summary: docs::SUMMARY, help: docs::HELP, run: docs::command },
    Command { name: "python", summary: python::SUMMARY, help: python::HELP, run: python::command },
    Command { name: "crash", summary: crash::SUMMARY, help: crash::HELP, run: crash::command },
    Command { name: "fuzz", summary: fuzz::SUMMARY, help: fuzz::HELP, run: fuzz::command },
    Command { name: "bench", summary: bench::SUMMARY, help: bench::HELP, run: bench::command },
];

/// What a command line asks for.
enum Request {
    Help(String),
    Run(&'static Command, Args),
}

fn main() -> ExitCode {
    let done = match std::env::var_os(fuzz::WRAPPER_VARIABLE) {
        Some(_) => fuzz::rustc(std::env::args_os().skip(1)),
        None => understand(std::env::args().skip(1).collect()).and_then(carry_out),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Usage>() => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
        // The program that failed has said why, and what it printed last is what the user should see last.
        Err(error) if error.downcast_ref::<ChildFailed>().is_some_and(|failed| failed.is_runner) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn understand(mut words: Vec<String>) -> anyhow::Result<Request> {
    if words.is_empty() {
        return Err(Usage::new(format!("a command is missing\n\n{}", overview())).into());
    }
    let mut name = words.remove(0);
    if matches!(name.as_str(), "help" | "--help" | "-h") {
        if words.is_empty() {
            return Ok(Request::Help(overview()));
        }
        name = words.remove(0);
        words = vec!["--help".to_owned()];
    }
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        return Err(Usage::new(format!("there is no command {name:?}\n\n{}", overview())).into());
    };
    if args::asks_for_help(&words) {
        return Ok(Request::Help(command.help.to_owned()));
    }
    Ok(Request::Run(command, Args::new(command.name, words)))
}

fn carry_out(request: Request) -> anyhow::Result<()> {
    match request {
        Request::Help(text) => std::io::stdout().write_all(text.as_bytes()).map_err(Into::into),
        Request::Run(command, args) => (command.run)(args),
    }
}

/// The text of `cargo xtask --help`.
fn overview() -> String {
    let width = COMMANDS.iter().map(|command| command.name.len()).max().unwrap_or(0);
    let mut text = String::from("usage: cargo xtask COMMAND [OPTION…]\n\n");
    for command in COMMANDS {
        text.push_str(&format!("  {:width$}  {}\n", command.name, command.summary));
    }
    text.push_str("\n`cargo xtask COMMAND --help` tells more about one of them.\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn every_command_is_listed_and_has_a_usage_line() {
        for command in COMMANDS {
            assert!(overview().contains(command.summary), "{}", command.name);
            assert!(command.help.starts_with(&format!("usage: cargo xtask {}", command.name)), "{}", command.name);
            assert!(command.help.ends_with('\n'), "{}", command.name);
        }
    }

    #[test]
    fn what_is_unknown_is_a_usage_error() {
        for line in [
            "",
            "tset",
            "help tset",
            "setup --now",
            "setup now",
            "plugins --guest",
            "demo --port many",
            "lint x",
            "crash --kills 0",
        ] {
            let error = understand(words(line)).and_then(carry_out).unwrap_err();
            assert!(error.is::<Usage>(), "{line:?}: {error:#}");
        }
    }

    #[test]
    fn help_is_given_instead_of_running() {
        for line in ["help", "--help", "test --help", "help demo", "bench x -h", "lint --fast --help"] {
            let Request::Help(text) = understand(words(line)).unwrap() else { panic!("{line:?} runs something") };
            assert!(text.starts_with("usage: cargo xtask"), "{text}");
        }
    }
}
