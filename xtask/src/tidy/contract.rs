//! `docs/PROVIDER_API.md`: every proof it names is a test that is there, every row that needs a
//! proof has one, every method of Proxmox VE's class has a row, and every method of the contract's
//! traits is listed.

use super::File;

const DOCUMENT: &str = "docs/PROVIDER_API.md";
const CONTRACT: &str = "crates/api/src/";
const KIT: &str = "crates/api/src/conformance/";
const PERL_TESTS: &str = "perl/t/";
/// The methods of Proxmox VE's class `PVE::BackupProvider::Plugin::Base`: those of version 5 of the
/// series that introduced it, and those that were shipped. A storage plugin has `new_backup_provider`.
const METHODS: [&str; 28] = [
    "archive_get_firewall_config",
    "archive_get_guest_config",
    "backup_cleanup",
    "backup_container",
    "backup_container_prepare",
    "backup_get_archive_name",
    "backup_get_mechanism",
    "backup_get_task_size",
    "backup_handle_log_file",
    "backup_hook",
    "backup_init",
    "backup_vm",
    "backup_vm_query_incremental",
    "job_cleanup",
    "job_hook",
    "job_init",
    "new",
    "new_backup_provider",
    "provider_name",
    "restore_container_cleanup",
    "restore_container_init",
    "restore_get_firewall_config",
    "restore_get_guest_config",
    "restore_get_mechanism",
    "restore_vm_cleanup",
    "restore_vm_init",
    "restore_vm_volume_cleanup",
    "restore_vm_volume_init",
];

/// What is wrong with the document. Nothing to check while there is none.
pub(super) fn unproven(files: &[File]) -> Vec<String> {
    let Some(document) = files.iter().find(|file| file.path == DOCUMENT) else {
        return Vec::new();
    };
    let text = document.text();
    let (mut found, proven) = missing_proofs(&text, files);
    for method in METHODS {
        if !proven.contains(&format!("`{method}`")) {
            found.push(format!(
                "{DOCUMENT}: the method {method} of Proxmox VE's class has no row with a proof"
            ));
        }
    }
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

/// The rows of tables with a column `Proof` whose proof is missing or not there; and the first cells of
/// all the others.
fn missing_proofs(text: &str, files: &[File]) -> (Vec<String>, String) {
    let mut found = Vec::new();
    let mut proven = String::new();
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
        let absent = names.iter().filter(|name| !is_test(name, files));
        let absent: Vec<_> = absent
            .map(|name| format!("{DOCUMENT}:{number}: there is no test {name}"))
            .collect();
        if names.is_empty() {
            found.push(format!(
                "{DOCUMENT}:{number}: a proof is a test in backquotes"
            ));
        } else if absent.is_empty() {
            proven.push_str(cells[0]);
        }
        found.extend(absent);
    }
    (found, proven)
}

/// Whether a name is a property of the kit, or a test: `CRATE/PATH.rs::NAME`, the path from
/// `crates/` on, or `perl/t/FILE.t::NAME`, the name as it is written there.
fn is_test(name: &str, files: &[File]) -> bool {
    match name.split_once("::") {
        None => (files.iter())
            .filter(|file| file.path.starts_with(KIT))
            .any(|file| file.text().contains(&format!("fn {name}(factory: Factory"))),
        Some((path, name)) if path.starts_with(PERL_TESTS) => (files.iter())
            .filter(|file| file.path == path && file.has_extension("t"))
            .any(|file| {
                let text = file.text();
                let mut code = text.lines().filter(|line| !line.trim().starts_with('#'));
                code.any(|line| line.contains(&format!("'{name}'")))
            }),
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
    use super::{CONTRACT, DOCUMENT, KIT, METHODS, unproven};

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
            file(
                "perl/t/a.t",
                "# 'not this'\nis(f(), 1, 'it is one');\nis(f(), 2, \"nor this\");\n",
            ),
        ];
        unproven(&files)
    }

    const GOOD: &str = "`Vm::run`\n\n| What | Proof |\n| --- | --- |\n| a | `it_holds` |\n\
                        | b | `a/tests/b.rs::it_does`, `perl/t/a.t::it is one` |\n| METHODS | `it_holds` |\n";

    fn good() -> String {
        let methods: Vec<_> = METHODS.iter().map(|name| format!("`{name}`")).collect();
        GOOD.replace("METHODS", &methods.join(" "))
    }

    #[test]
    fn a_proof_that_is_there_is_enough() {
        assert_eq!(found(&good()), Vec::<String>::new());
    }

    #[test]
    fn a_missing_proof_is_found() {
        for bad in [
            "`it_holds_not`",
            "`a/tests/b.rs::help`",
            "`a/tests/c.rs::it_does`",
            "`perl/t/a.t::it is`",
            "`perl/t/a.t::not this`",
            "`perl/t/a.t::nor this`",
            "`perl/t/b.t::it is one`",
            "sure",
            "bridge",
            "",
        ] {
            let found = found(&good().replace("| a | `it_holds`", &format!("| a | {bad}")));
            assert_eq!(found.len(), 1, "{bad}: {found:?}");
            assert!(
                found[0].starts_with("docs/PROVIDER_API.md:5: "),
                "{found:?}"
            );
        }
    }

    #[test]
    fn a_method_that_is_not_listed_is_found() {
        let found = found(&good().replace("`Vm::run`", "`Vm::ran`"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("Vm::run"), "{found:?}");
    }

    #[test]
    fn a_method_without_a_row_that_is_proven_is_found() {
        for (from, to) in [("`job_hook`", "job_hook"), ("`job_hook`", "`Vm::job_hook`")] {
            let found = found(&good().replace(from, to));
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].contains("job_hook"), "{found:?}");
        }
        let unproven = good().replace(" | `it_holds` |\n", " | `it_holds_not` |\n");
        assert_eq!(found(&unproven).len(), 2 + METHODS.len());
    }
}
