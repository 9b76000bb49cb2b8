//! What `diff` tells of every kind of difference.

use crate::Lab;
use crate::support::{are_here, has_rights, json_of, ran, sh};

/// What is in both trees alike but for what follows.
const BOTH: &str = "umask 022; mkdir tree; cd tree; mkdir folder
    for name in same content owner permissions time xattr flags kind linked other; do echo $name > $name; done
    cp -p linked name; ln -s here target; mknod device c 1 3; mkfifo pipe; mkdir -m 700 entered; echo x > entered/kept";

/// What changes of it, each in one way.
const CHANGE: &str = "umask 022; cd tree; echo CONTENT > content; chown 1:1 owner; chmod 600 permissions
    setfattr -n user.note -v x xattr; chattr +A flags; rm kind; mkfifo kind
    ln -f linked name; ln -sfn there target; rm device; mknod device c 1 5
    rm -r folder; echo folder > folder; chmod 755 folder; rm other; mkdir -p more/deep; echo new > more/deep/file
    echo y >> entered/kept; rm pipe; ln -s x pipe; chmod 600 entered/kept";

/// All times are the same, but one.
const TIMES: &str = "find tree -exec touch -h -d @1000000000 {} +";

const WANTED: &[&str] = &[
    "M /content (content)",
    "M /device (device)",
    "M /entered/kept (content, permissions)",
    "M /flags (inode flags)",
    "M /folder (kind)",
    "M /kind (kind)",
    "+ /more",
    "+ /more/deep",
    "+ /more/deep/file",
    "M /name (hard links)",
    "- /other",
    "M /owner (owner)",
    "M /permissions (permissions)",
    "M /pipe (kind, permissions)",
    "M /target (target)",
    "M /time (time)",
    "M /xattr (extended attributes)",
];

#[test]
fn each_difference_has_its_sign_and_its_words() {
    let test = "each_difference_has_its_sign_and_its_words";
    if !has_rights(test) || !are_here(test, &["mknod", "mkfifo", "setfattr", "chattr"]) {
        return;
    }
    let lab = Lab::new(&format!("{{ {BOTH}\n}}; cd ..; {TIMES}"));
    let old = lab.back_up("web", "tree");
    let change = format!("{{ {CHANGE}\n}}; cd ..; {TIMES}; touch -d @1000000001 tree/time");
    sh(lab.folder(), &change);
    let new = lab.back_up("web", "tree");
    let diff = |from: &str, to: &str, code| {
        let done = ran(lab.folder(), &["diff", from, to], code);
        let said = String::from_utf8(done.stdout).unwrap();
        said.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(diff(&old, &new, 8), WANTED);
    assert_eq!(diff(&old, "web", 8), WANTED);
    assert_eq!(diff(&new, &new, 0), [""; 0]);
    // The other way round what was added is gone.
    let other = |line: &&str| match line.split_at(1) {
        ("+", rest) => format!("-{rest}"),
        ("-", rest) => format!("+{rest}"),
        _ => (*line).to_owned(),
    };
    let wanted: Vec<_> = WANTED.iter().map(other).collect();
    assert_eq!(diff(&new, &old, 8), wanted);

    let told = json_of(lab.folder(), &["diff", &old, &new], 8);
    let told = told["differences"].as_array().unwrap();
    let words = |told: &serde_json::Value| told["difference"].as_str().unwrap().to_owned();
    let signs = WANTED.iter().map(|line| match &line[..1] {
        "+" => "added",
        "-" => "removed",
        _ => "changed",
    });
    assert!(told.iter().map(words).eq(signs), "{told:?}");
    assert_eq!(told[2]["path"], "/entered/kept");
    assert_eq!(
        told[2]["changed"],
        serde_json::json!(["content", "permissions"])
    );
    assert_eq!(told[6]["kind"], "folder");
}
