//! What the environment says: Amazon's own names, so that what works for other tools works here.

use std::path::PathBuf;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};

/// What of it the client library is given, if there are no credentials of one's own: where a
/// machine's or a container's role is asked for.
const ROLES: &[(&str, AmazonS3ConfigKey)] = &[
    (
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        AmazonS3ConfigKey::WebIdentityTokenFile,
    ),
    ("AWS_ROLE_ARN", AmazonS3ConfigKey::RoleArn),
    ("AWS_ROLE_SESSION_NAME", AmazonS3ConfigKey::RoleSessionName),
    ("AWS_ENDPOINT_URL_STS", AmazonS3ConfigKey::StsEndpoint),
    (
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        AmazonS3ConfigKey::ContainerCredentialsRelativeUri,
    ),
    (
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        AmazonS3ConfigKey::ContainerCredentialsFullUri,
    ),
    (
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        AmazonS3ConfigKey::ContainerAuthorizationTokenFile,
    ),
    ("AWS_METADATA_ENDPOINT", AmazonS3ConfigKey::MetadataEndpoint),
];

/// A variable that is set to something.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The first of these that is set.
pub(crate) fn first(names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| variable(name))
}

/// Where Amazon's tools keep credentials.
pub(crate) fn shared_file() -> Option<PathBuf> {
    let named = variable("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from);
    named.or_else(|| usual_file().filter(|path| path.is_file()))
}

fn usual_file() -> Option<PathBuf> {
    Some(PathBuf::from(variable("HOME")?).join(".aws/credentials"))
}

/// Whether something says that there is a role. Otherwise the machine is asked for one.
pub(crate) fn names_role() -> bool {
    first(&[
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    ])
    .is_some()
}

/// Whether the machine is not to be asked.
pub(crate) fn asks_no_machine() -> bool {
    variable("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// That there are no credentials, and where they were looked for: all but the machine.
pub(crate) fn no_credentials() -> String {
    let usual = usual_file().map_or_else(
        || "no file of Amazon's tools (HOME is not set)".to_owned(),
        |path| format!("not in {}", path.display().to_string().escape_debug()),
    );
    format!(
        "there are no credentials: no credentials-file is named, AWS_ACCESS_KEY_ID and \
         AWS_SECRET_ACCESS_KEY are not both set, {usual}, no role by \
         AWS_WEB_IDENTITY_TOKEN_FILE or AWS_CONTAINER_CREDENTIALS_…"
    )
}

pub(crate) fn with_roles(builder: AmazonS3Builder) -> AmazonS3Builder {
    ROLES
        .iter()
        .fold(builder, |builder, (name, key)| match variable(name) {
            Some(value) => builder.with_config(*key, value),
            None => builder,
        })
}
