//! Which crate may depend on which: the architecture, as a table.

use serde_json::Value;

/// A crate, the crates of ours it may use, and those its tests may use besides.
const DIRECTIONS: &[(&str, &[&str], &[&str])] = &[
    ("snapkeep-direct", &[], &[]),
    ("snapkeep-fuzz", &[], &["snapkeep-nbd", "snapkeep-walk"]),
    ("snapkeep-nbd", &["snapkeep-fuzz"], &[]),
    ("snapkeep-repo", &["snapkeep-direct"], &[]),
    ("snapkeep-s3", &["snapkeep-repo"], &[]),
    ("snapkeep-api", &["snapkeep-nbd"], &[]),
    (
        "snapkeep-provider",
        &["snapkeep-api", "snapkeep-repo"],
        &["snapkeep-nbd"],
    ),
    ("snapkeep-walk", &["snapkeep-api", "snapkeep-fuzz"], &[]),
    ("snapkeep-tree", &["snapkeep-api"], &[]),
    ("snapkeep-mount", &["snapkeep-api"], &[]),
    (
        "snapkeep-host",
        &["snapkeep-api", "snapkeep-direct", "snapkeep-nbd"],
        &["snapkeep-provider", "snapkeep-repo"],
    ),
    (
        "snapkeep-bridge",
        &[
            "snapkeep-api",
            "snapkeep-mount",
            "snapkeep-tree",
            "snapkeep-walk",
        ],
        &[],
    ),
    (
        "snapkeep-conformance",
        &["snapkeep-api", "snapkeep-tree", "snapkeep-walk"],
        &[],
    ),
    (
        "snapkeep",
        &[
            "snapkeep-bridge",
            "snapkeep-conformance",
            "snapkeep-nbd",
            "snapkeep-repo",
            "snapkeep-s3",
            "snapkeep-api",
            "snapkeep-provider",
            "snapkeep-tree",
            "snapkeep-host",
            "snapkeep-walk",
            "snapkeep-mount",
        ],
        &[],
    ),
    ("xtask", &[], &[]),
];

/// Uses that whoever depends on the first crate can leave out.
const OPTIONAL: &[(&str, &str)] = &[("snapkeep-api", "snapkeep-nbd")];

/// Crates for programs, not for libraries, and who may use them.
const FOR_PROGRAMS: &[&str] = &["anyhow", "clap", "indicatif"];
const PROGRAMS: &[&str] = &["snapkeep", "xtask"];

/// Dependencies against the table, and crates the table does not know.
pub(super) fn wrong_dependencies(metadata: &Value) -> Vec<String> {
    let empty = Vec::new();
    let mut found = Vec::new();
    let packages = metadata["packages"].as_array().unwrap_or(&empty);
    if packages.is_empty() {
        found.push("cargo metadata lists no package".to_owned());
    }
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, normal, dev)) = DIRECTIONS.iter().find(|(known, ..)| *known == name) else {
            found.push(format!(
                "{name} is not in the table of xtask/src/tidy/crates.rs"
            ));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap_or(&empty) {
            let on = dependency["name"].as_str().unwrap_or_default();
            let ours = DIRECTIONS.iter().any(|(known, ..)| *known == on);
            let for_tests = dependency["kind"] == "dev" && dev.contains(&on);
            if ours && on != name && !normal.contains(&on) && !for_tests {
                found.push(format!("{name} must not depend on {on}"));
            }
            // Cargo has no optional dependencies of tests, and nobody else gets those.
            let for_code = dependency["kind"] != "dev";
            if OPTIONAL.contains(&(name, on)) && for_code && dependency["optional"] != true {
                found.push(format!("{name} must use {on} only as an optional feature"));
            }
            if FOR_PROGRAMS.contains(&on) && !PROGRAMS.contains(&name) {
                found.push(format!(
                    "{name} must not depend on {on}: it is for programs"
                ));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::wrong_dependencies;

    fn findings(name: &str, on: &str, kind: Option<&str>) -> usize {
        let dependency = serde_json::json!({"name": on, "kind": kind});
        let package = serde_json::json!({"name": name, "dependencies": [dependency]});
        wrong_dependencies(&serde_json::json!({"packages": [package]})).len()
    }

    #[test]
    fn a_dependency_against_the_direction_is_found() {
        assert_eq!(findings("snapkeep-host", "snapkeep-nbd", None), 0);
        assert_eq!(findings("snapkeep-nbd", "snapkeep-host", None), 1);
        assert_eq!(findings("snapkeep-repo", "snapkeep-api", Some("dev")), 1);
    }

    #[test]
    fn tests_may_use_more_than_the_code() {
        assert_eq!(
            findings("snapkeep-provider", "snapkeep-nbd", Some("dev")),
            0
        );
        assert_eq!(findings("snapkeep-provider", "snapkeep-nbd", None), 1);
    }

    #[test]
    fn a_use_that_must_be_optional_is_found_when_it_is_not() {
        assert_eq!(findings("snapkeep-api", "snapkeep-nbd", None), 1);
        assert_eq!(findings("snapkeep-api", "snapkeep-nbd", Some("dev")), 0);
    }

    #[test]
    fn crates_for_programs_stay_out_of_libraries() {
        assert_eq!(findings("snapkeep", "clap", None), 0);
        assert_eq!(findings("snapkeep-api", "anyhow", Some("dev")), 1);
    }

    #[test]
    fn an_unknown_crate_and_an_empty_list_are_found() {
        assert_eq!(findings("snapkeep-new", "serde", None), 1);
        assert_eq!(wrong_dependencies(&serde_json::json!({})).len(), 1);
    }
}
