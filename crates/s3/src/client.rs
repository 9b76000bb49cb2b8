//! The client of HTTP: it goes where it is told, and nowhere else.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use reqwest::redirect::Policy;
use reqwest::{Certificate, Client};
use snapkeep_repo::{Error, ErrorKind, Result};

use crate::limits;

/// A client that trusts these authorities besides the machine's. What is sent in the open, to this
/// machine or its neighbours, passes no proxy of the environment.
pub(crate) fn client(authorities: &[Certificate], plain: bool) -> reqwest::Result<Client> {
    let builder = Client::builder()
        .user_agent(concat!("snapkeep/", env!("CARGO_PKG_VERSION")))
        // Whoever is pointed elsewhere gets what was signed for the endpoint, a put becomes a read,
        // and a page that wants a login acknowledges it.
        .redirect(Policy::none())
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        .connect_timeout(limits::CONNECT_PATIENCE)
        .tls_certs_merge(authorities.iter().cloned())
        .https_only(!plain);
    let builder = if plain { builder.no_proxy() } else { builder };
    builder.build()
}

/// The certificates of a file in PEM.
pub(crate) fn certificates(path: &Path) -> Result<Vec<Certificate>> {
    let shown = path.display().to_string().escape_debug().to_string();
    let mut pem = Vec::new();
    (File::open(path))
        .and_then(|file| file.take(limits::CA_FILE_MAX).read_to_end(&mut pem))
        .map_err(|e| {
            let what = format!("cannot read the ca-file {shown}");
            Error::with_source(ErrorKind::Invalid, what, e)
        })?;
    let none = format!("the ca-file {shown} holds no certificates");
    let found = Certificate::from_pem_bundle(&pem)
        .map_err(|e| Error::with_source(ErrorKind::Invalid, none.clone(), e))?;
    if found.is_empty() {
        return Err(Error::new(ErrorKind::Invalid, none));
    }
    Ok(found)
}
