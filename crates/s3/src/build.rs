//! Makes the client of a location.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::{BackoffConfig, Certificate, ClientOptions, RetryConfig};
use snapkeep_repo::{Error, ErrorKind, Result};
use std::time::Duration;

use crate::account::Account;
use crate::credentials::CredentialsFile;
use crate::environment::{self, first, variable};
use crate::limits;
use crate::location::Location;
use crate::service::Connector;
use crate::storage::Options;

/// The client. Credentials are looked at here, if they lie in a file.
pub(crate) fn store(
    location: &Location,
    options: &Options,
    account: &Arc<Account>,
) -> Result<AmazonS3> {
    let named = location.clone().or(
        first(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]).as_deref(),
        first(&["AWS_REGION", "AWS_DEFAULT_REGION"]).as_deref(),
    );
    let endpoint = named.checked_endpoint()?;
    let region = named.region.as_deref().unwrap_or("us-east-1");
    let bucket = named.bucket();
    // Names with dots have no certificate below the endpoint's own.
    let path_style = (named.path_style).unwrap_or(endpoint.is_some() || bucket.contains('.'));
    let endpoint = endpoint.unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
    let (scheme, host) = endpoint.split_once("://").unwrap_or(("https", &endpoint));
    let url = if path_style {
        endpoint.clone()
    } else {
        format!("{scheme}://{bucket}.{host}")
    };
    let mut client = ClientOptions::new()
        .with_timeout_disabled()
        .with_read_timeout_disabled()
        .with_connect_timeout(limits::CONNECT_PATIENCE)
        .with_allow_http(scheme == "http");
    if let Some(file) = &options.ca_file {
        for certificate in certificates(file)? {
            client = client.with_root_certificate(certificate);
        }
    }
    let builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(region)
        .with_endpoint(url)
        .with_virtual_hosted_style_request(!path_style)
        .with_allow_http(scheme == "http")
        .with_disable_bulk_delete(true)
        .with_client_options(client)
        // Every try is signed anew, and each is judged here.
        .with_retry(RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: 0,
            retry_timeout: Duration::ZERO,
        })
        .with_http_connector(Connector {
            account: Arc::clone(account),
            host: host.to_owned(),
        });
    let builder = with_credentials(builder, options)?;
    builder.build().map_err(|e| {
        let what = format!("the bucket {bucket} cannot be used");
        Error::with_source(ErrorKind::Invalid, what, e)
    })
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
    Ok(environment::with_roles(builder))
}

fn certificates(path: &Path) -> Result<Vec<Certificate>> {
    let shown = path.display().to_string().escape_debug().to_string();
    let mut pem = Vec::new();
    (File::open(path))
        .and_then(|file| file.take(limits::CA_FILE_MAX).read_to_end(&mut pem))
        .map_err(|e| {
            Error::with_source(
                ErrorKind::Invalid,
                format!("cannot read the ca-file {shown}"),
                e,
            )
        })?;
    let found = Certificate::from_pem_bundle(&pem).map_err(|e| {
        Error::with_source(
            ErrorKind::Invalid,
            format!("the ca-file {shown} holds no certificates"),
            e,
        )
    })?;
    if found.is_empty() {
        let what = format!("the ca-file {shown} holds no certificates");
        return Err(Error::new(ErrorKind::Invalid, what));
    }
    Ok(found)
}
