//! The configuration file. `docs/CLI.md` lists its keys.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Deserialize;

use crate::args::forget::Keep;
use crate::failure::usage;
use crate::place::{self, S3Settings};
use crate::units::size;

/// Where it is looked for when none is named.
const DEFAULT: &str = "/etc/snapkeep/config.toml";
/// The longest one, in bytes.
const LENGTH_MAX: u64 = 1 << 20;

/// What the file may say. Relative paths are relative to the file's folder.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Config {
    pub(crate) repository: Option<PathBuf>,
    pub(crate) namespace: Option<String>,
    pub(crate) passphrase_file: Option<PathBuf>,
    pub(crate) key_file: Option<PathBuf>,
    pub(crate) workers: Option<u16>,
    #[serde(default, deserialize_with = "size")]
    pub(crate) bandwidth_limit: Option<NonZeroU64>,
    pub(crate) fleecing: Option<PathBuf>,
    pub(crate) state: Option<PathBuf>,
    /// Where days begin for `forget`.
    pub(crate) time_zone: Option<String>,
    /// What `forget --configured` keeps of guests of which nothing else is said.
    pub(crate) retention: Option<Keep>,
    #[serde(default)]
    pub(crate) s3: S3Settings,
    /// By the guest's name.
    #[serde(default)]
    pub(crate) guests: BTreeMap<String, OfGuest>,
}

/// What the file may say of one guest.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct OfGuest {
    pub(crate) qmp: Option<PathBuf>,
    pub(crate) nbd_server: Option<PathBuf>,
    pub(crate) disks: Option<Vec<String>>,
    pub(crate) fleecing: Option<PathBuf>,
    pub(crate) guest_config: Option<PathBuf>,
    pub(crate) firewall_config: Option<PathBuf>,
    #[serde(default, deserialize_with = "size")]
    pub(crate) bandwidth_limit: Option<NonZeroU64>,
    /// What `forget --configured` keeps of it.
    pub(crate) retention: Option<Keep>,
}

impl Config {
    /// Reads the file that was named, or the one in the default place if it is there.
    pub(crate) fn load(named: Option<&Path>) -> Result<Self> {
        let path = named.unwrap_or(Path::new(DEFAULT));
        let cannot = |e: std::io::Error| {
            usage(format!(
                "cannot read the configuration {}: {e}",
                path.display()
            ))
        };
        match std::fs::metadata(path) {
            Err(e) if named.is_none() && e.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(e) => return Err(cannot(e)),
            Ok(found) if found.len() > LENGTH_MAX => {
                let what = format!("the configuration {} is too long", path.display());
                return Err(usage(what));
            }
            Ok(_) => {}
        }
        let text = std::fs::read_to_string(path).map_err(cannot)?;
        let mut config = Self::parse(&text, path)?;
        config.resolve(path.parent().unwrap_or(Path::new("")));
        Ok(config)
    }

    fn parse(text: &str, path: &Path) -> Result<Self> {
        let config: Self = toml::from_str(text).map_err(|e| {
            let before = e
                .span()
                .map_or("", |span| text.get(..span.start).unwrap_or(""));
            let line = before.matches('\n').count() + 1;
            let key = key_of_value(before).map_or(String::new(), |key| format!("{key}: "));
            let message = e.message().replace('\n', " ");
            usage(format!("{}: line {line}: {key}{message}", path.display()))
        })?;
        let wrong = |what: &str| Err(usage(format!("{}: {what}", path.display())));
        if config.key_file.is_some() && config.passphrase_file.is_some() {
            return wrong("key-file and passphrase-file exclude each other");
        }
        if config
            .workers
            .is_some_and(|workers| !(1..=64).contains(&workers))
        {
            return wrong("workers must be 1 to 64");
        }
        let own = (config.retention.iter()).map(|keep| ("retention".to_owned(), keep));
        let of_guests = config.guests.iter().filter_map(|(guest, of)| {
            let keep = of.retention.as_ref()?;
            Some((format!("guests.{guest}.retention"), keep))
        });
        for (table, keep) in own.chain(of_guests) {
            if let Err(why) = keep.policy() {
                return wrong(&format!("[{table}] {why}"));
            }
        }
        Ok(config)
    }

    fn resolve(&mut self, folder: &Path) {
        let own = [
            &mut self.repository,
            &mut self.passphrase_file,
            &mut self.key_file,
            &mut self.fleecing,
            &mut self.state,
            &mut self.s3.credentials_file,
            &mut self.s3.ca_file,
            &mut self.s3.cache,
        ];
        let guests = self.guests.values_mut().flat_map(|guest| {
            [
                &mut guest.qmp,
                &mut guest.nbd_server,
                &mut guest.fleecing,
                &mut guest.guest_config,
                &mut guest.firewall_config,
            ]
        });
        for path in own.into_iter().chain(guests).flatten() {
            if !place::is_bucket(path) {
                *path = folder.join(&*path);
            }
        }
    }
}

/// The key whose value begins after this text, if one does.
fn key_of_value(before: &str) -> Option<&str> {
    let text = before.trim_end().strip_suffix('=')?.trim_end();
    let key = text.rsplit(|c: char| c.is_whitespace() || c == '{' || c == ',');
    key.into_iter().next().filter(|key| !key.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_named_with_file_line_and_key() {
        let error = |text| {
            Config::parse(text, Path::new("c.toml"))
                .unwrap_err()
                .to_string()
        };
        let unknown = error("repository = \"r\"\n\n\nqmpp = \"s\"\n");
        assert!(unknown.starts_with("c.toml: line 4: "), "{unknown}");
        assert!(unknown.contains("qmpp"), "{unknown}");
        let wrong = error("workers = \"many\"");
        assert!(wrong.starts_with("c.toml: line 1: "), "{wrong}");
        let size = error("\nbandwidth-limit = \"50MB\"");
        assert!(size.starts_with("c.toml: line 2: "), "{size}");
        assert!(size.contains("MB"), "{size}");
        let guest = error("[guests.web]\nqmp = 's'\ndisk = 'a'");
        assert!(guest.starts_with("c.toml: line 3: "), "{guest}");
        assert!(guest.contains("disk"), "{guest}");
        assert!(error("workers = 0").contains("workers"));
        assert!(error("key-file = \"a\"\npassphrase-file = \"b\"").contains("exclude"));
    }

    #[test]
    fn a_size_is_a_number_of_bytes_or_a_text_with_a_unit() {
        let parse = |text: &str| Config::parse(text, Path::new("c.toml"));
        for text in ["1048576", "'1048576'", "'1MiB'"] {
            let all = format!(
                "bandwidth-limit = {text}\n[s3]\nbudget-bytes = {text}\ncache-size = {text}\n\
                 [guests.web]\nbandwidth-limit = {text}"
            );
            let config = parse(&all).unwrap();
            let limits = [
                config.bandwidth_limit,
                config.s3.budget_bytes,
                config.guests["web"].bandwidth_limit,
            ];
            assert_eq!(limits, [NonZeroU64::new(1 << 20); 3], "{text}");
        }
        for text in ["0", "'0'"] {
            parse(&format!("[s3]\ncache-size = {text}")).unwrap();
        }
        for bad in ["0", "'0'", "-1", "1.5", "true", "'50MB'", "[1]", "''"] {
            for text in [
                format!("[s3]\nbudget-bytes = {bad}"),
                format!("\ns3 = {{ region = 'a', budget-bytes = {bad} }}"),
            ] {
                let error = parse(&text).unwrap_err().to_string();
                let named = error.starts_with("c.toml: line 2: budget-bytes: ");
                assert!(named, "{bad}: {error}");
            }
        }
        let requests = parse("[s3]\nbudget-requests = 0").unwrap_err();
        let named = requests.to_string().contains("line 2: budget-requests: ");
        assert!(named, "{requests}");
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let text = "repository = 'r'\nkey-file = '/k'\nfleecing = 'f'\n[guests.web]\nqmp = 'web.qmp'\n\
                    nbd-server = 'web.nbd'\n\
                    fleecing = '../w'\nguest-config = 'web.conf'\nfirewall-config = '/web.fw'\n";
        let mut config = Config::parse(text, Path::new("c")).unwrap();
        config.resolve(Path::new("/etc/snapkeep"));
        assert_eq!(config.fleecing.unwrap(), Path::new("/etc/snapkeep/f"));
        let guest = config.guests["web"].clone();
        assert_eq!(guest.qmp.unwrap(), Path::new("/etc/snapkeep/web.qmp"));
        let nbd_server = guest.nbd_server.unwrap();
        assert_eq!(nbd_server, Path::new("/etc/snapkeep/web.nbd"));
        assert_eq!(guest.fleecing.unwrap(), Path::new("/etc/snapkeep/../w"));
        let guest_config = guest.guest_config.unwrap();
        assert_eq!(guest_config, Path::new("/etc/snapkeep/web.conf"));
        assert_eq!(guest.firewall_config.unwrap(), Path::new("/web.fw"));
        assert_eq!(config.repository.unwrap(), Path::new("/etc/snapkeep/r"));
        assert_eq!(config.key_file.unwrap(), Path::new("/k"));
    }
}
