//! Credentials in a file, which may be replaced while a backup runs.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use zeroize::Zeroizing;

use crate::attempt::{Giver, Problem, note};
use crate::limits;

/// What tells one state of the file from another.
type State = (u64, u64, i64, i64);

/// A file of credentials.
pub(crate) struct CredentialsFile {
    path: PathBuf,
    profile: String,
    known: Mutex<Option<(State, Arc<AwsCredential>)>>,
}

impl std::fmt::Debug for CredentialsFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (f.debug_struct("CredentialsFile").field("path", &self.path)).finish_non_exhaustive()
    }
}

impl CredentialsFile {
    pub(crate) fn new(path: &Path, profile: &str) -> Self {
        Self {
            path: path.to_owned(),
            profile: profile.to_owned(),
            known: Mutex::default(),
        }
    }

    /// What the file says now. Why it cannot be used, otherwise.
    pub(crate) fn read(&self) -> Result<Arc<AwsCredential>, String> {
        let shown = self.path.display().to_string().escape_debug().to_string();
        let cannot = |e: std::io::Error| format!("cannot read {shown}: {e}");
        let found = fs::metadata(&self.path).map_err(cannot)?;
        let state = (found.ino(), found.len(), found.mtime(), found.mtime_nsec());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, credential)) = &*known
            && *of == state
        {
            return Ok(Arc::clone(credential));
        }
        let mut text = Zeroizing::new(String::new());
        (File::open(&self.path))
            .and_then(|file| file.take(limits::CREDENTIALS_MAX).read_to_string(&mut text))
            .map_err(cannot)?;
        let credential = parse(&text, &self.profile).map_err(|why| format!("{shown} {why}"))?;
        let credential = Arc::new(credential);
        *known = Some((state, Arc::clone(&credential)));
        Ok(credential)
    }
}

#[async_trait]
impl CredentialProvider for CredentialsFile {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        self.read().map_err(|why| {
            note(Problem::Credentials(why.clone(), Giver::Refused));
            object_store::Error::Generic {
                store: "S3",
                source: why.into(),
            }
        })
    }
}

/// Reads the form that Amazon's tools share, or two or three lines: access key, secret key, token.
fn parse(text: &str, profile: &str) -> Result<AwsCredential, String> {
    let lines =
        (text.lines().map(str::trim)).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let lines: Vec<&str> = lines.collect();
    let sections = lines.iter().any(|line| line.starts_with('['))
        || lines.iter().any(|line| line.starts_with("aws_"));
    if !sections {
        return match lines[..] {
            [key_id, secret_key] => Ok(credential(key_id, secret_key, None)),
            [key_id, secret_key, token] => Ok(credential(key_id, secret_key, Some(token))),
            _ => Err("has neither two lines, access key and secret key, nor sections".to_owned()),
        };
    }
    let (mut key_id, mut secret_key, mut token) = (None, None, None);
    let mut within = true;
    for line in lines {
        if let Some(section) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            within = section.trim() == profile;
        } else if let Some((name, value)) = line.split_once('=').filter(|_| within) {
            match name.trim() {
                "aws_access_key_id" => key_id = Some(value.trim()),
                "aws_secret_access_key" => secret_key = Some(value.trim()),
                "aws_session_token" => token = Some(value.trim()),
                _ => {}
            }
        }
    }
    match (key_id, secret_key) {
        (Some(key_id), Some(secret_key)) => Ok(credential(key_id, secret_key, token)),
        _ => Err(format!(
            "has no aws_access_key_id and aws_secret_access_key in the section {profile:?}"
        )),
    }
}

fn credential(key_id: &str, secret_key: &str, token: Option<&str>) -> AwsCredential {
    AwsCredential {
        key_id: key_id.to_owned(),
        secret_key: secret_key.to_owned(),
        token: token.map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_the_file_are_read() {
        let two = parse("# mine\nAKIA\n\n se=cret/+ \n", "default").unwrap();
        assert_eq!(
            (two.key_id.as_str(), two.secret_key.as_str()),
            ("AKIA", "se=cret/+")
        );
        let shared = "[default]\naws_access_key_id = a\naws_secret_access_key=b\n[x]\n\
                      aws_access_key_id=c\naws_secret_access_key=d=\naws_session_token=t\n";
        assert_eq!(parse(shared, "default").unwrap().key_id, "a");
        let other = parse(shared, "x").unwrap();
        assert_eq!(
            (other.secret_key.as_str(), other.token.as_deref()),
            ("d=", Some("t"))
        );
        assert!(parse(shared, "y").unwrap_err().contains("\"y\""));
    }

    #[test]
    fn a_file_that_cannot_be_used_is_refused_without_its_contents() {
        for text in [
            "",
            "only-one",
            "[default]\naws_access_key_id = a\n",
            "a\nb\nc\nd",
        ] {
            let why = parse(text, "default").unwrap_err();
            assert!(!why.contains("only-one"), "{why}");
        }
    }

    #[test]
    fn a_replaced_file_is_read_again_and_nothing_shows_the_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        fs::write(&path, "id\nfirst-secret\n").unwrap();
        let file = CredentialsFile::new(&path, "default");
        let first = file.read().unwrap();
        assert_eq!(first.secret_key, "first-secret");
        fs::write(&path, "id\nanother-secret\n").unwrap();
        assert_eq!(file.read().unwrap().secret_key, "another-secret");
        let shown = format!("{file:?} {first:?}");
        assert!(
            !shown.contains("secret\"") && !shown.contains("first-secret"),
            "{shown}"
        );
    }
}
