//! `restore`: a virtual machine, or a container.

mod container;
mod lxc;
mod vm;

use std::process::ExitCode;

use anyhow::Result;

use crate::args::Restore;
use crate::settings::Settings;

pub(super) use vm::choose;

pub(super) fn run(settings: &Settings, restore: &Restore, json: bool) -> Result<ExitCode> {
    match restore {
        Restore::Vm(wanted) => {
            vm::run(settings, wanted, json)?;
            Ok(ExitCode::SUCCESS)
        }
        Restore::Container(wanted) => container::run(settings, wanted, json),
    }
}
