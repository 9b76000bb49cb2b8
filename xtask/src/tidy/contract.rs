//! `docs/PROVIDER_API.md`: every proof it names is a test that is there, every row that needs a
//! proof has one, and every method of the contract's traits is listed.

use super::File;

const DOCUMENT: &str = "docs/PROVIDER_API.md";
const CONTRACT: &str = "crates/api/src/";
const KIT: &str = "crates/api/src/conformance/";
/// What a row may say instead of a test: the capability that brings one.
const LATER: [&str; 2] = ["containers", "bridge"];

/// What is wrong with the document. Nothing to check while there is none.
pub(super) fn unproven(files: &[File]) -> Vec<String> {
    let Some(document) = files.iter().find(|file| file.path == DOCUMENT) else {
        return Vec::new();
    };
    let text = document.text();
    let mut found = missing_proofs(&text, files);
    let methods = files
        .iter()
        .filter(|file| file.path.starts_with(CONTRACT) && !file.path.starts_with(KIT))
        .flat_map(|file| methods(&file.text()));
    for method in methods {
        if !text.contains(&format!("`{method}`")) {
            found.push(format!(
                "{DOCUMENT}: the contract's {method} is not listed in backquotes"
            ));
        }
    }
    found
}

/// The rows of tables with a column `Proof` whose proof is missing or not there.
fn missing_proofs(text: &str, files: &[File]) -> Vec<String> {
    let mut found = Vec::new();
    let mut column = None;
    for (number, line) in (1..).zip(text.lines()) {
        if !line.starts_with('|') {
            column = None;
            continue;
        }
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        if let Some(proof) = cells.iter().position(|cell| *cell == "Proof") {
            column = Some(proof);
            continue;
        }
        let Some(cell) = column.map(|column| cells.get(column).copied().unwrap_or_default()) else {
            continue;
        };
        if cell.starts_with("---") {
            continue;
        }
        let names: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
        let prose: String = cell.split('`').step_by(2).collect();
        if names.is_empty() && !LATER.iter().any(|later| prose.contains(later)) {
            found.push(format!(
                "{DOCUMENT}:{number}: a proof is a test in backquotes, or one of {LATER:?}"
            ));
        }
        for name in names.iter().filter(|name| !is_test(name, files)) {
            found.push(format!("{DOCUMENT}:{number}: there is no test {name}"));
        }
    }
    found
}

/// Whether a name is a property of the kit, or a test: `CRATE/PATH.rs::NAME`, the path from
/// `crates/` on.
fn is_test(name: &str, files: &[File]) -> bool {
    match name.split_once("::") {
        None => (files.iter())
            .filter(|file| file.path.starts_with(KIT))
            .any(|file| file.text().contains(&format!("fn {name}(factory: Factory"))),
        Some((path, name)) => (files.iter())
            .filter(|file| file.path == format!("crates/{path}"))
            .any(|file| {
                file.text().contains(&format!("#[test]\nfn {name}()"))
                    || file.text().contains(&format!("#[test]\n    fn {name}()"))
            }),
    }
}

/// The methods that a file's public traits have, as `Trait::method`.
fn methods(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut of: Option<&str> = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("pub trait ") {
            of = rest.split([':', ' ', '<']).next();
        } else if line == "}" {
            of = None;
        } else if let (Some(of), Some(rest)) = (of, line.strip_prefix("    fn "))
            && let Some(name) = rest.split(['(', '<']).next()
        {
            found.push(format!("{of}::{name}"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::{CONTRACT, DOCUMENT, KIT, unproven};

    fn found(document: &str) -> Vec<String> {
        let files = [
            file(DOCUMENT, document),
            file(
                &format!("{CONTRACT}vm.rs"),
                "pub trait Vm: Send {\n    fn run(\n        &mut self,\n}\n",
            ),
            file(
                &format!("{KIT}vm.rs"),
                "pub(super) fn it_holds(factory: Factory<'_>) -> Check {\n",
            ),
            file(
                "crates/a/tests/b.rs",
                "#[test]\nfn it_does() {\n\nfn help() {\n",
            ),
        ];
        unproven(&files)
    }

    const GOOD: &str = "`Vm::run`\n\n| What | Proof |\n| --- | --- |\n| a | `it_holds` |\n\
                        | b | `a/tests/b.rs::it_does`, bridge |\n| c | containers |\n";

    #[test]
    fn a_proof_that_is_there_is_enough() {
        assert_eq!(found(GOOD), Vec::<String>::new());
    }

    #[test]
    fn a_missing_proof_is_found() {
        for bad in [
            "`it_holds_not`",
            "`a/tests/b.rs::help`",
            "`a/tests/c.rs::it_does`",
            "sure",
            "",
        ] {
            let found = found(&GOOD.replace("`it_holds`", bad));
            assert_eq!(found.len(), 1, "{bad}: {found:?}");
            assert!(
                found[0].starts_with("docs/PROVIDER_API.md:5: "),
                "{found:?}"
            );
        }
    }

    #[test]
    fn a_method_that_is_not_listed_is_found() {
        let found = found(&GOOD.replace("`Vm::run`", "`Vm::ran`"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("Vm::run"), "{found:?}");
    }
}
