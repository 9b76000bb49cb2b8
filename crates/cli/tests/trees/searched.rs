//! `find` in several archives.

use std::fs;

use crate::support::{ran, sh};
use crate::{Lab, damage};

/// Three archives, of which nothing in one is in another, and the packs that only the second has.
struct Three {
    lab: Lab,
    archives: Vec<String>,
    second: Vec<std::path::PathBuf>,
}

impl Three {
    fn new() -> Self {
        let lab = Lab::new(":");
        let mut archives = Vec::new();
        let mut packs = Vec::new();
        for number in 1..=3 {
            let make = format!(
                "rm -rf tree; mkdir -p tree/sub{number}; echo {number} > tree/sub{number}/file{number}"
            );
            sh(lab.folder(), &make);
            archives.push(lab.back_up("web", "tree"));
            packs.push(lab.packs());
        }
        let second = packs[1].difference(&packs[0]).cloned().collect();
        Self {
            lab,
            archives,
            second,
        }
    }

    /// What is found to this exit code, without the archives' names; what is told.
    #[track_caller]
    fn find(&self, code: i32) -> (Vec<(usize, String)>, String) {
        let done = ran(self.lab.folder(), &["find", "web", "file*"], code);
        let found = String::from_utf8(done.stdout).unwrap();
        let found = found.lines().map(|line| {
            let (archive, rest) = line.split_once(' ').unwrap();
            let number = self.archives.iter().position(|name| name == archive);
            let path = rest.rsplit(' ').next().unwrap();
            (number.unwrap() + 1, path.to_owned())
        });
        (found.collect(), String::from_utf8(done.stderr).unwrap())
    }
}

fn found(numbers: &[usize]) -> Vec<(usize, String)> {
    let path = |number: &usize| (*number, format!("/sub{number}/file{number}"));
    numbers.iter().map(path).collect()
}

#[test]
fn an_archive_that_is_damaged_is_named_and_the_others_are_searched() {
    let three = Three::new();
    assert_eq!(three.find(0), (found(&[1, 2, 3]), String::new()));
    damage(&three.second);
    let (told, said) = three.find(3);
    assert_eq!(told, found(&[1, 3]));
    assert!(said.contains(&three.archives[1]), "{said}");
    for good in [&three.archives[0], &three.archives[2]] {
        assert!(!said.contains(good), "{said}");
    }
}

#[test]
fn an_archive_whose_pack_is_gone_is_named_and_the_others_are_searched() {
    let three = Three::new();
    for pack in &three.second {
        fs::remove_file(pack).unwrap();
    }
    let (told, said) = three.find(3);
    assert_eq!(told, found(&[1, 3]));
    assert!(said.contains(&three.archives[1]), "{said}");
}

#[test]
fn an_archive_of_which_a_folder_is_damaged_is_searched_up_to_it() {
    // The same folder in two archives of different guests, damaged where the first has it.
    let lab = Lab::new("mkdir -p tree/z; for i in {1..500}; do echo $i > tree/z/file$i; done");
    lab.back_up("other", "tree");
    let packs = lab.packs();
    sh(lab.folder(), "mkdir tree/a; touch tree/a/file");
    let name = lab.back_up("web", "tree");
    damage(&packs);
    let done = ran(lab.folder(), &["find", "web", "file*"], 3);
    let found = String::from_utf8(done.stdout).unwrap();
    assert!(found.trim_end().ends_with(" /a/file"), "{found}");
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(said.contains(&name) && said.contains("/z"), "{said}");
}
