//! Whoever reads what is printed may have seen enough, as `head` has.

use std::process::Stdio;

use crate::support::{program, ran, sh, shell};
use crate::{Lab, damage};

/// Makes folders whose lists are longer than what waits to be written, each name long.
const FILL: &str =
    "fill() { mkdir $1; for i in {1..2000}; do printf -v name %0200d $i; : > $1/$name; done; }";

/// Archives of which the beginning can be read and not the end: `empty` and `full`, whose content of
/// `/b` and list of `/z` are damaged.
struct Cut {
    lab: Lab,
    empty: String,
    full: String,
}

impl Cut {
    fn new() -> Self {
        let make = "mkdir empty tree; cd tree; fill z; head -c 8M /dev/urandom > b";
        let lab = Lab::new(&format!("{FILL}; {make}"));
        lab.back_up("other", "tree");
        let packs = lab.packs();
        let empty = lab.back_up("web", "empty");
        let make = "fill a; head -c 8M /dev/urandom > new; cat b >> new; mv new b";
        sh(&lab.path("tree"), &format!("{FILL}; {make}"));
        let full = lab.back_up("web", "tree");
        damage(&packs);
        Self { lab, empty, full }
    }

    /// What is read to its end fails; what nobody reads ends before it, as if all were good.
    #[track_caller]
    fn ends_early(&self, args: &[&str], code: i32) {
        let done = ran(self.lab.folder(), args, 3);
        assert!(
            done.stdout.len() > 200_000,
            "{args:?}: {}",
            done.stdout.len()
        );
        let (reader, closed) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = program(self.lab.folder(), args);
        let done = command.stdout(Stdio::from(closed)).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(code), "{args:?}: {said}");
        assert_eq!(said, "", "{args:?}");
    }
}

#[test]
fn what_nobody_reads_any_more_is_not_looked_for_and_nobody_complains() {
    let cut = Cut::new();
    for json in [&[][..], &["--json"]] {
        let with = |args: &[&'static str]| [args, json].concat();
        cut.ends_early(&with(&["ls", "-R", "web"]), 0);
        cut.ends_early(&with(&["find", "web", "*"]), 0);
        let diff = ["diff", &cut.empty, &cut.full];
        cut.ends_early(&[&diff[..], json].concat(), 8);
    }
    cut.ends_early(&["cat", "web", "/b"], 0);

    // What head wanted was written.
    let program = env!("CARGO_BIN_EXE_snapkeep");
    for (args, code) in [
        (vec!["ls", "-R", "web"], 0),
        (vec!["find", "web", "*"], 0),
        (vec!["diff", &cut.empty, &cut.full], 8),
        (vec!["cat", "web", "/b"], 0),
    ] {
        let all = ran(cut.lab.folder(), &args, 3).stdout;
        let line = format!(
            "set +e; {program} -r repo '{}' | head -c 100; exit ${{PIPESTATUS[0]}}",
            args.join("' '")
        );
        let done = shell(cut.lab.folder(), &line).output().unwrap();
        assert_eq!(done.status.code(), Some(code), "{args:?}: {done:?}");
        assert!(done.stdout == all[..100], "{args:?}: {done:?}");
        assert_eq!(String::from_utf8_lossy(&done.stderr), "", "{args:?}");
    }
}
