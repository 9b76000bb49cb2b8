//! The repository's place: a bucket of moto, or of another server that the environment names.

use crate::moto;

/// Names a place on another server, as the program does: `s3://BUCKET/PREFIX?endpoint=…`, where the bucket
/// is there. Credentials are in Amazon's own variables.
const NAMED: &str = "SNAPKEEP_STRESS_S3";

pub(crate) struct Place {
    /// The configuration that names it.
    pub(crate) config: String,
    /// What the program is told by its environment.
    pub(crate) variables: Vec<(String, String)>,
}

impl Place {
    /// None if there is no server.
    pub(crate) fn new(test: &str) -> Option<Self> {
        let secret = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        if let Ok(named) = std::env::var(NAMED) {
            let (place, query) = named.split_once('?').unwrap_or((&named, ""));
            let own = std::process::id();
            let place = format!("{}/stress-{own}?{query}", place.trim_end_matches('/'));
            let variables = std::env::vars().filter(|(name, _)| name.starts_with("AWS_"));
            return Some(Self {
                config: format!("repository = \"{place}\"\n[s3]\n"),
                variables: variables.collect(),
            });
        }
        let moto = moto::moto(test)?;
        let bucket = moto.bucket_with("");
        Some(Self {
            config: format!(
                "repository = \"s3://{bucket}/stress\"\n[s3]\nendpoint = \"http://{}\"\nregion = \"eu-1\"\n",
                moto.address
            ),
            variables: vec![
                secret("AWS_ACCESS_KEY_ID", "key-id"),
                secret("AWS_SECRET_ACCESS_KEY", "secret-key-of-the-test"),
            ],
        })
    }
}
