//! The tasks of the project: `cargo xtask VERB`.
//!
//! One table says which verbs exist. Each verb is a file of its own with a
//! `run` that gets the arguments after its name; everything a person or the
//! continuous integration does to the project goes through here, so that both
//! do the same.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a task talks to the person at the terminal"
)]

mod bench;
mod deb;
mod demo;
mod drill;
mod follow;
mod fuzz;
mod golden;
mod model;
mod monitor;
mod s3;
mod scale;
mod setup;
mod shell;
mod stress;
mod test;
mod tidy;
mod tour;

use std::process::ExitCode;

/// One verb: its name, its line of help, and what it does.
struct Verb {
    name: &'static str,
    help: &'static str,
    run: fn(&[String]) -> anyhow::Result<()>,
}

/// Every verb, in the order of the help.
const VERBS: &[Verb] = &[
    Verb {
        name: "setup",
        help: "install the programs the tests need",
        run: setup::run,
    },
    Verb {
        name: "test",
        help: "everything the continuous integration checks",
        run: test::run,
    },
    Verb {
        name: "demo",
        help: "back up a running machine, restore, compare (--dev: the unoptimised build)",
        run: demo::run,
    },
    Verb {
        name: "drill",
        help: "recover everything from a repository and its recovery kit alone, as the guide shows",
        run: drill::run,
    },
    Verb {
        name: "bench",
        help: "what a backup of a disk costs, beside other tools, as a report (trees: of file trees; s3: to a bucket)",
        run: bench::run,
    },
    Verb {
        name: "deb",
        help: "the package for Debian and Proxmox VE (--profile dev; --check: install, use and purge it)",
        run: deb::run,
    },
    Verb {
        name: "fuzz",
        help: "look for bytes from an NBD peer that cause a panic, for --seconds N",
        run: fuzz::run,
    },
    Verb {
        name: "golden",
        help: "the golden repositories: --remake them, add that of a --release, or --exhaustive damage to them",
        run: golden::run,
    },
    Verb {
        name: "model",
        help: "every order of operations of the protocol without locks, in larger universes (--traces)",
        run: model::run,
    },
    Verb {
        name: "s3",
        help: "strict: the tests of S3 with Ceph's gateway; cluster: nodes that die during backup and restore",
        run: s3::run,
    },
    Verb {
        name: "scale",
        help: "what backups of a sparse disk of 16 TiB cost; index: what an index of 1 to 50 million chunks does",
        run: scale::run,
    },
    Verb {
        name: "stress",
        help: "many processes in one repository, killed now and then, for --minutes N (--s3: in a bucket)",
        run: stress::run,
    },
    Verb {
        name: "tidy",
        help: "the project's own rules (--update: rewrite docs/FORMAT.md's hash)",
        run: tidy::run,
    },
    Verb {
        name: "tour",
        help: "run the tour of README.md and compare its output",
        run: tour::run,
    },
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some(name) = args.first() else {
        print!("{}", help());
        return ExitCode::SUCCESS;
    };
    if name == "help" || name == "--help" || name == "-h" {
        print!("{}", help());
        return ExitCode::SUCCESS;
    }
    let Some(verb) = VERBS.iter().find(|verb| verb.name == name) else {
        eprint!("there is no verb {name:?}\n{}", help());
        return ExitCode::from(2);
    };
    match (verb.run)(&args[1..]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask {name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn help() -> String {
    let lines: Vec<String> = VERBS
        .iter()
        .map(|verb| format!("  {:8} {}\n", verb.name, verb.help))
        .collect();
    format!("usage: cargo xtask VERB\n\n{}", lines.concat())
}

#[cfg(test)]
mod tests {
    use super::{VERBS, help};

    #[test]
    fn the_help_names_every_verb() {
        for verb in VERBS {
            assert!(
                help().contains(verb.help),
                "{} is not in the help",
                verb.name
            );
        }
    }
}
