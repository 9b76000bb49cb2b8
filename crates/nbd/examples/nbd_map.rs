//! Prints an export's size and the extents of one metadata context:
//! `cargo run --example nbd_map -- 'nbd+unix:///disk?socket=/run/a.sock' base:allocation`
#![allow(clippy::print_stdout, reason = "a program whose purpose is to print")]

use std::env;
use std::error::Error;

use snapkeep_nbd::{Address, Client, ClientOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let uri = arguments.next().ok_or("which NBD URI?")?;
    let context = arguments
        .next()
        .unwrap_or_else(|| "base:allocation".to_owned());
    let (address, export) = Address::parse_uri(&uri)?;
    let options = ClientOptions {
        export,
        contexts: vec![context.clone()],
        ..ClientOptions::default()
    };
    let client = Client::connect(&address, &options)?;
    println!("{} bytes", client.size());
    for extent in client.extents(&context, 0, client.size()) {
        let extent = extent?;
        println!(
            "{:>16} {:>16} {}",
            extent.offset, extent.length, extent.flags
        );
    }
    Ok(())
}
