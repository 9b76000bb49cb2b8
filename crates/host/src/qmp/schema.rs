//! What a QEMU can do, by its own description (`query-qmp-schema`).

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;
use snapkeep_api::{Error, ErrorKind, Result};

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Entity {
    name: String,
    meta_type: String,
    arg_type: Option<String>,
    #[serde(default)]
    members: Vec<Value>,
    #[serde(default)]
    variants: Vec<Variant>,
}

#[derive(Deserialize)]
struct Variant {
    case: String,
    #[serde(rename = "type")]
    of: String,
}

/// The commands, and the options of each block driver.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    commands: BTreeSet<String>,
    drivers: BTreeMap<String, BTreeSet<String>>,
}

impl Schema {
    pub(crate) fn parse(reply: Value) -> Result<Self> {
        let entities: Vec<Entity> = serde_json::from_value(reply).map_err(|e| {
            let what = "QEMU's description of itself (query-qmp-schema) cannot be read";
            Error::with_source(ErrorKind::Protocol, what, e)
        })?;
        let by_name: BTreeMap<&str, &Entity> =
            entities.iter().map(|e| (e.name.as_str(), e)).collect();
        let mut schema = Self::default();
        for entity in entities.iter().filter(|e| e.meta_type == "command") {
            schema.commands.insert(entity.name.clone());
        }
        let options = (by_name.get("blockdev-add"))
            .and_then(|command| by_name.get(command.arg_type.as_deref()?));
        for variant in options.iter().flat_map(|entity| &entity.variants) {
            let members = by_name.get(variant.of.as_str()).map(|e| &e.members);
            let names = members.into_iter().flatten();
            let names = names.filter_map(|member| member["name"].as_str().map(str::to_owned));
            schema.drivers.insert(variant.case.clone(), names.collect());
        }
        Ok(schema)
    }

    pub(crate) fn has_command(&self, name: &str) -> bool {
        self.commands.contains(name)
    }

    /// Whether there is a block driver with this option; an empty option asks for the driver.
    pub(crate) fn has_option(&self, driver: &str, option: &str) -> bool {
        (self.drivers.get(driver))
            .is_some_and(|options| option.is_empty() || options.contains(option))
    }
}
