//! What `conformance` accepts.

use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::{Args as Arguments, ValueEnum};

/// `conformance`
#[derive(Arguments, Debug)]
#[command(group = clap::ArgGroup::new("provider").required(true))]
pub(crate) struct Conformance {
    /// Check this backup provider class, such as `PVE::BackupProvider::Plugin::Foo`.
    #[arg(long, value_name = "CLASS", group = "provider")]
    pub(crate) perl: Option<String>,
    /// Check the provider that keeps archives in memory.
    #[arg(long, group = "provider")]
    pub(crate) memory: bool,
    /// Check Snapkeep's own provider, over a repository in memory.
    #[arg(long, group = "provider")]
    pub(crate) own: bool,
    /// A folder in which Perl looks for modules; may be given more than once.
    #[arg(short = 'I', value_name = "FOLDER", requires = "perl")]
    pub(crate) include: Vec<PathBuf>,
    /// The mechanism for virtual machines; a class has to ask for it [default: any of a class, else nbd].
    #[arg(long, value_name = "MECHANISM")]
    pub(crate) mechanism: Option<Mechanism>,
    /// How the class is called: as Proxmox VE ships it, or as version 5 of the proposal was.
    #[arg(
        long,
        value_name = "DIALECT",
        default_value = "shipped",
        requires = "perl"
    )]
    pub(crate) dialect: Dialect,
    /// A property of the storage's section, PROPERTY=VALUE; may be given more than once. {dir} in a
    /// value is a new folder for each storage.
    #[arg(long = "set", value_name = "PROPERTY=VALUE", requires = "perl", value_parser = pair)]
    pub(crate) properties: Vec<(String, String)>,
    /// Run this command, without a shell, before each storage is used; {dir} is its folder. May be
    /// given more than once.
    #[arg(long, value_name = "COMMAND", requires = "perl")]
    pub(crate) prepare: Vec<String>,
    /// The class of the storage plugin, which is loaded before and handed over.
    #[arg(long, value_name = "CLASS", requires = "perl")]
    pub(crate) storage_plugin: Option<String>,
    /// How long a call of the class may take, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "120", requires = "perl")]
    pub(crate) time_limit: NonZeroU64,
    /// Check only this property; may be given more than once.
    #[arg(long, value_name = "PROPERTY")]
    pub(crate) only: Vec<String>,
}

/// A mechanism of virtual machines, as Proxmox VE names it.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Mechanism {
    /// NBD exports
    Nbd,
    /// File handles
    FileHandle,
}

/// A form of the interface.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Dialect {
    /// As Proxmox VE ships it
    Shipped,
    /// As version 5 of the proposal
    V5,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("there is no = in it")?;
    Ok((name.to_owned(), value.to_owned()))
}
