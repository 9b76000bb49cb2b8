//! The walker as a process of its own, in a user namespace like an unprivileged container's.
//!
//! The program is its own walker: with the argument `walker` it does what the command line does. A
//! user namespace takes a process of one thread, which the usual harness is not.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it is a test without the harness that says so"
)]

mod containers;
mod mounts;
mod processes;
mod tools;

use std::env;
use std::io;
use std::os::fd::AsFd;
use std::panic::catch_unwind;
use std::process::ExitCode;

type Test = (&'static str, fn());

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "walker") {
        let socket = io::stdin().as_fd().try_clone_to_owned().unwrap();
        return ExitCode::from(snapkeep_walk::run_walker(socket));
    }
    if arguments.first().is_some_and(|first| first == "parent") {
        processes::parent();
        return ExitCode::SUCCESS;
    }
    let all: Vec<Test> = [containers::ALL, mounts::ALL, processes::ALL].concat();
    if arguments.iter().any(|argument| argument == "--list") {
        for (name, _) in all {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let wanted = arguments.iter().find(|argument| !argument.starts_with('-'));
    let chosen: Vec<_> = all
        .iter()
        .filter(|(name, _)| wanted.is_none_or(|wanted| name.contains(wanted.as_str())))
        .collect();
    if rustix::process::geteuid().is_root() {
        mounts::unshare();
    }
    println!("\nrunning {} tests", chosen.len());
    let mut failed = 0;
    for (name, test) in &chosen {
        let good = catch_unwind(test).is_ok();
        println!("test {name} ... {}", if good { "ok" } else { "FAILED" });
        failed += usize::from(!good);
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    let (passed, filtered) = (chosen.len() - failed, all.len() - chosen.len());
    println!(
        "\ntest result: {verdict}. {passed} passed; {failed} failed; 0 ignored; 0 measured; {filtered} filtered out; finished\n"
    );
    ExitCode::from(u8::from(failed > 0))
}
