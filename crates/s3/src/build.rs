//! Makes the client of a location.

use std::path::Path;
use std::sync::Arc;

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::HttpConnector;
use object_store::{BackoffConfig, ClientOptions, RetryConfig};
use snapkeep_repo::{Error, ErrorKind, Result};
use std::time::Duration;

use crate::attempt::Giver;
use crate::client::certificates;
use crate::clock::StorageClock;
use crate::credentials::CredentialsFile;
use crate::environment::{self, variable};
use crate::location::Location;
use crate::service::Connector;
use crate::signed::Asker;
use crate::storage::Options;

/// The client, and who asks what that has no words for. Credentials are looked at here, if they lie
/// in a file.
pub(crate) fn store(
    location: &Location,
    options: &Options,
    clock: &Arc<StorageClock>,
) -> Result<(AmazonS3, Asker)> {
    let bucket = location.bucket();
    let endpoint = location.address()?;
    let authorities = match &options.ca_file {
        Some(file) => certificates(file)?,
        None => Vec::new(),
    };
    let client = ClientOptions::new().with_allow_http(endpoint.plain);
    let unusable = |e: object_store::Error| {
        let what = format!("the bucket {bucket} cannot be used");
        Error::with_source(ErrorKind::Invalid, what, e)
    };
    let giver = if environment::names_role() {
        Giver::Failed
    } else {
        Giver::Guessed
    };
    let connector = Connector {
        account: Arc::clone(&options.account),
        clock: Arc::clone(clock),
        host: endpoint.host,
        authorities,
        giver,
    };
    let asker = Asker {
        client: connector.connect(&client).map_err(unusable)?,
        bucket: if endpoint.path_style {
            format!("{}/{bucket}", endpoint.url)
        } else {
            endpoint.url.clone()
        },
        region: location.region().to_owned(),
    };
    let builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(location.region())
        .with_endpoint(endpoint.url)
        .with_virtual_hosted_style_request(!endpoint.path_style)
        .with_allow_http(endpoint.plain)
        .with_disable_bulk_delete(true)
        .with_client_options(client)
        // Every try is signed anew, and each is judged here.
        .with_retry(RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: 0,
            retry_timeout: Duration::ZERO,
        })
        .with_http_connector(connector);
    let builder = with_credentials(builder, options)?;
    Ok((builder.build().map_err(unusable)?, asker))
}

fn with_credentials(builder: AmazonS3Builder, options: &Options) -> Result<AmazonS3Builder> {
    let profile = variable("AWS_PROFILE").unwrap_or_else(|| "default".to_owned());
    let of_file = |builder: AmazonS3Builder, path: &Path| {
        let file = CredentialsFile::new(path, &profile);
        // What cannot be read now is told now.
        file.read()
            .map_err(|why| Error::new(ErrorKind::Denied, format!("the credentials file {why}")))?;
        Ok(builder.with_credentials(Arc::new(file)))
    };
    if let Some(path) = &options.credentials_file {
        return of_file(builder, path);
    }
    if let (Some(id), Some(key)) = (
        variable("AWS_ACCESS_KEY_ID"),
        variable("AWS_SECRET_ACCESS_KEY"),
    ) {
        let builder = builder.with_access_key_id(id).with_secret_access_key(key);
        return Ok(match variable("AWS_SESSION_TOKEN") {
            Some(token) => builder.with_token(token),
            None => builder,
        });
    }
    if let Some(path) = environment::shared_file() {
        return of_file(builder, &path);
    }
    if environment::asks_no_machine() && !environment::names_role() {
        let what = format!(
            "{}; and the machine is not asked (AWS_EC2_METADATA_DISABLED)",
            environment::no_credentials()
        );
        return Err(Error::new(ErrorKind::Denied, what));
    }
    Ok(environment::with_roles(builder))
}
