//! What a failure means: for good, or to be tried again, in words that say what to do.

use snapkeep_repo::{Error, ErrorKind};

use crate::attempt::{Broken, Giver, Problem, Refusal};
use crate::environment;

/// What is done to an object, or to all below a prefix.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Deed {
    Put,
    Read,
    Length,
    List,
    Remove,
    PutLocked,
    /// Renew an object's lock.
    Lock,
    Versions,
    RemoveVersion,
    /// Ask a bucket about itself.
    AskBucket,
}

impl Deed {
    fn words(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Read => "read",
            Self::Length => "ask for",
            Self::List => "list",
            Self::Remove => "remove",
            Self::PutLocked => "put, with a lock,",
            Self::Lock => "renew the lock of",
            Self::Versions => "list the versions of",
            Self::RemoveVersion => "remove an old version of",
            Self::AskBucket => "ask for the setting",
        }
    }

    /// What the credentials must allow.
    fn permission(self) -> &'static str {
        match self {
            Self::Put => "s3:PutObject",
            Self::Read | Self::Length => "s3:GetObject (and s3:ListBucket, for what is not there)",
            Self::List => "s3:ListBucket",
            Self::Remove => "s3:DeleteObject",
            Self::PutLocked => "s3:PutObject and s3:PutObjectRetention",
            Self::Lock => "s3:PutObjectRetention",
            Self::Versions => "s3:ListBucketVersions",
            Self::RemoveVersion => "s3:DeleteObjectVersion",
            Self::AskBucket => "s3:GetBucketVersioning and s3:GetBucketObjectLockConfiguration",
        }
    }
}

/// Why a try failed.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The client library gave up; what was noted meanwhile says more.
    Library(object_store::Error),
    /// The connection ended in the middle of an object.
    Cut(String),
    /// What came is not what was asked for.
    Wrong(String),
    /// The storage does not know yet what it was told.
    Behind(String),
    /// This is the end of it.
    Final(Error),
}

impl From<object_store::Error> for Trouble {
    fn from(error: object_store::Error) -> Self {
        Self::Library(error)
    }
}

/// What to do about a failed try.
#[derive(Debug)]
pub(crate) enum Verdict {
    Final(Error),
    /// Try again until the deadline.
    Again(Error),
    /// Try again a few times: this ends by luck or not at all.
    Few(Error),
    /// Try again a moment, unless the bucket has answered before: it is asked of somebody of whom
    /// nobody says that he is there.
    Guessed(Error),
    /// Try again until the deadline, but only a while if the bucket has never answered: then
    /// something is mistyped.
    Unlikely(Error),
    /// The reply was wrong: try again in another way.
    Otherwise(Error),
}

/// A deed, and to what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) deed: Deed,
    pub(crate) key: &'a str,
    pub(crate) bucket: &'a str,
}

impl Subject<'_> {
    pub(crate) fn error(&self, kind: ErrorKind, why: &str) -> Error {
        let (deed, key, bucket) = (self.deed.words(), self.key, self.bucket);
        Error::new(
            kind,
            format!("cannot {deed} {key} in the bucket {bucket}: {why}"),
        )
    }

    pub(crate) fn judge(&self, trouble: Trouble, noted: Option<Problem>) -> Verdict {
        let io = |why: &str| self.error(ErrorKind::Io, why);
        match (trouble, noted) {
            (Trouble::Final(error), _) => Verdict::Final(error),
            (Trouble::Cut(why), _) => {
                Verdict::Again(io(&format!("the connection ended in its middle ({why})")))
            }
            (Trouble::Behind(why), _) => Verdict::Again(io(&format!("the storage {why}"))),
            (Trouble::Wrong(why), _) => Verdict::Otherwise(io(&format!("the reply {why}"))),
            (Trouble::Library(_), Some(Problem::Refused(refusal))) => self.refused(&refusal),
            (Trouble::Library(_), Some(Problem::Transport(why, broken))) => match broken {
                Broken::Certificate => {
                    let advice = of_certificate(&why);
                    Verdict::Final(io(&format!("the endpoint's certificate {advice} ({why})")))
                }
                Broken::Name => Verdict::Unlikely(io(&format!(
                    "the endpoint's host is not found: is its name right, and does the resolver of this host work? ({why})"
                ))),
                Broken::Connection => Verdict::Again(io(&format!(
                    "the endpoint cannot be reached, or the connection broke ({why})"
                ))),
            },
            (Trouble::Library(_), Some(Problem::Credentials(why, giver))) => {
                self.of_credentials(&why, giver)
            }
            (Trouble::Library(_), Some(Problem::Wrong(why))) => {
                Verdict::Otherwise(io(&format!("the reply {why}")))
            }
            (Trouble::Library(_), Some(Problem::Unsent(error))) => {
                Verdict::Final(self.error(error.kind(), &error.to_string()))
            }
            (Trouble::Library(error), None) => {
                let why = innermost(&error);
                Verdict::Otherwise(io(&format!("the reply is not what was asked for ({why})")))
            }
        }
    }

    fn of_credentials(&self, why: &str, giver: Giver) -> Verdict {
        let denied = |what: &str| self.error(ErrorKind::Denied, what);
        match giver {
            Giver::Failed => Verdict::Unlikely(denied(&format!(
                "the credentials cannot be had: whoever hands them out failed ({why})"
            ))),
            Giver::Refused => Verdict::Few(denied(&format!(
                "there are no credentials ({why}): name a credentials-file, set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role"
            ))),
            Giver::Guessed => Verdict::Guessed(denied(&format!(
                "{}, and the machine has none to give ({why})",
                environment::no_credentials()
            ))),
        }
    }

    /// What an error's own name says; otherwise its status does.
    fn refused(&self, refusal: &Refusal) -> Verdict {
        (self.refused_by_code(refusal)).unwrap_or_else(|| self.refused_by_status(refusal))
    }

    fn refusal(&self, refusal: &Refusal, kind: ErrorKind, advice: &str) -> Error {
        let Refusal {
            status,
            code,
            words,
            ..
        } = refusal;
        let named = match (code.is_empty(), words.is_empty()) {
            (true, _) => format!("status {status}"),
            (false, true) => format!("{code}, status {status}"),
            (false, false) => format!("{code}, status {status}: {words}"),
        };
        self.error(kind, &format!("{advice} ({named})"))
    }

    fn refused_by_code(&self, refusal: &Refusal) -> Option<Verdict> {
        let Refusal { code, region, .. } = refusal;
        let error = |kind, advice: &str| self.refusal(refusal, kind, advice);
        let denied = |advice: &str| Some(Verdict::Final(error(ErrorKind::Denied, advice)));
        match code.as_str() {
            // The name of one object is no answer to the question for many.
            "NoSuchKey" | "NoSuchVersion" if refusal.status == 404 && self.deed != Deed::List => {
                Some(Verdict::Final(error(
                    ErrorKind::NotFound,
                    "it is not there",
                )))
            }
            "ObjectLockConfigurationNotFoundError" if self.deed == Deed::AskBucket => Some(
                Verdict::Final(error(ErrorKind::NotFound, "the bucket has none")),
            ),
            "NoSuchBucket" => Some(Verdict::Final(error(
                ErrorKind::NoStorage,
                "there is no such bucket: make it first, or mend its name",
            ))),
            "InvalidObjectState" => Some(Verdict::Final(error(
                ErrorKind::Io,
                "the object was moved to an archive such as Glacier and must be restored in the bucket before it can be read: do so, and take the repository out of the rule that moves it",
            ))),
            "RequestTimeTooSkewed" | "RequestExpired" => denied(
                "the clock of this host and that of the storage differ: set this host's clock",
            ),
            "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidSecurity" => denied(
                "the credentials are wrong: compare access key and secret key with those of the account",
            ),
            "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "InvalidToken" => {
                Some(Verdict::Few(error(
                    ErrorKind::Denied,
                    "the credentials are no longer valid: renew them",
                )))
            }
            "AuthorizationHeaderMalformed"
            | "PermanentRedirect"
            | "TemporaryRedirect"
            | "IllegalLocationConstraintException" => {
                let advice = region.as_ref().map_or_else(
                    || "the bucket is in another region: name it by region".to_owned(),
                    |region| format!("the bucket is in the region {region}: name that by region"),
                );
                Some(Verdict::Final(error(ErrorKind::Invalid, &advice)))
            }
            "QuotaExceeded" | "XMinioStorageFull" | "InsufficientStorage" => Some(Verdict::Final(
                error(ErrorKind::Full, "the storage is full"),
            )),
            "RequestTimeout"
            | "SlowDown"
            | "InternalError"
            | "ServiceUnavailable"
            | "OperationAborted"
            | "ConditionalRequestConflict"
            | "ThrottlingException" => {
                Some(Verdict::Again(error(ErrorKind::Io, "the storage is busy")))
            }
            "BadDigest"
            | "InvalidDigest"
            | "IncompleteBody"
            | "XAmzContentSHA256Mismatch"
            | "XAmzContentChecksumMismatch" => Some(Verdict::Otherwise(error(
                ErrorKind::Io,
                "what arrived is not what was sent",
            ))),
            _ => None,
        }
    }

    fn refused_by_status(&self, refusal: &Refusal) -> Verdict {
        let Refusal {
            status,
            code,
            words,
            region,
        } = refusal;
        let error = |kind, advice: &str| self.refusal(refusal, kind, advice);
        let denied = |advice: &str| Verdict::Final(error(ErrorKind::Denied, advice));
        let again = |advice: &str| Verdict::Again(error(ErrorKind::Io, advice));
        match status {
            400 | 403
                if matches!(self.deed, Deed::Remove | Deed::RemoveVersion)
                    && is_locked(code, words) =>
            {
                Verdict::Final(error(
                    ErrorKind::Locked,
                    "the object is locked against removal until its retention ends",
                ))
            }
            401 | 403 => {
                let advice = format!(
                    "it is not allowed: the credentials need the permission {}",
                    self.deed.permission()
                );
                denied(&advice)
            }
            400 | 404 | 405 | 501 if self.deed == Deed::AskBucket => {
                Verdict::Final(error(ErrorKind::Invalid, "the storage does not know that"))
            }
            400 if matches!(self.deed, Deed::PutLocked | Deed::Lock) => Verdict::Final(error(
                ErrorKind::Io,
                "the storage does not lock it, although the repository's objects are to be locked: see to the bucket's Object Lock",
            )),
            // Nobody says that the object is missing.
            404 => Verdict::Unlikely(error(
                ErrorKind::Io,
                "the endpoint does not know the bucket, or something before it answered",
            )),
            300..=399 => Verdict::Final(error(
                ErrorKind::Invalid,
                &region.as_ref().map_or_else(
                    || "it points to another place: the bucket is in another region or at another endpoint, or something before it wants a login".to_owned(),
                    |region| format!("the bucket is in the region {region}: name that by region"),
                ),
            )),
            507 => Verdict::Final(error(ErrorKind::Full, "the storage is full")),
            501 => Verdict::Final(error(ErrorKind::Io, "the storage cannot do that")),
            408 | 409 | 429 | 500.. => again("the storage is busy or failed"),
            _ => Verdict::Final(error(ErrorKind::Io, "the storage refused")),
        }
    }
}

/// Whether a removal was refused because of a lock: endpoints say so in words of their own.
fn is_locked(code: &str, words: &str) -> bool {
    let text = format!("{code} {words}").to_lowercase();
    [
        "object lock",
        "objectlock",
        "worm",
        "retention",
        "legal hold",
        "locked",
    ]
    .iter()
    .any(|word| text.contains(word))
}

/// What a certificate is refused for, and what to do about it.
fn of_certificate(why: &str) -> &'static str {
    let has = |words: &[&str]| words.iter().any(|word| why.contains(word));
    if has(&["UnknownIssuer"]) {
        "is not trusted: if it is signed by an authority of your own, name its file in ca-file"
    } else if has(&["Expired", "expired", "NotValidYet", "not valid yet"]) {
        "is not valid at this time: renew it, or set this host's clock"
    } else if has(&["NotValidForName", "not valid for name"]) {
        "is for another name: name the endpoint as its certificate does"
    } else {
        "is refused"
    }
}

/// The innermost cause, which is the one that says something.
fn innermost(error: &object_store::Error) -> String {
    let mut last: &dyn std::error::Error = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string().replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBJECT: Subject<'_> = Subject {
        deed: Deed::Read,
        key: "a/packs/1",
        bucket: "bucket",
    };

    fn library() -> Trouble {
        Trouble::Library(object_store::Error::NotImplemented {
            operation: String::new(),
            implementer: String::new(),
        })
    }

    fn refused(deed: Deed, status: u16, code: &str) -> Verdict {
        let refusal = Refusal {
            status,
            code: code.to_owned(),
            ..Refusal::default()
        };
        let subject = Subject { deed, ..SUBJECT };
        subject.judge(library(), Some(Problem::Refused(refusal)))
    }

    #[test]
    fn an_object_is_missing_if_the_storage_says_so_by_name_and_not_by_a_status() {
        let missing =
            |verdict| matches!(verdict, Verdict::Final(e) if e.kind() == ErrorKind::NotFound);
        assert!(missing(refused(Deed::Read, 404, "NoSuchKey")));
        assert!(missing(refused(Deed::Remove, 404, "NoSuchVersion")));
        for (deed, status, code) in [
            (Deed::Read, 404, ""),
            (Deed::Remove, 404, "NotFound"),
            (Deed::List, 404, "NoSuchKey"),
        ] {
            let verdict = refused(deed, status, code);
            assert!(
                matches!(&verdict, Verdict::Unlikely(e) if e.kind() == ErrorKind::Io),
                "{verdict:?}"
            );
        }
    }

    #[test]
    fn only_a_certificate_of_an_unknown_authority_asks_for_its_file() {
        let words = |why: &str| {
            let problem = Problem::Transport(why.to_owned(), Broken::Certificate);
            let verdict = SUBJECT.judge(library(), Some(problem));
            let Verdict::Final(error) = verdict else {
                panic!("{verdict:?}");
            };
            error.to_string()
        };
        assert!(words("invalid peer certificate: UnknownIssuer").contains("ca-file"));
        for (why, advice) in [
            ("invalid peer certificate: Expired", "clock"),
            (
                "invalid peer certificate: certificate expired: verification time 5",
                "clock",
            ),
            ("invalid peer certificate: NotValidForName", "another name"),
            ("invalid peer certificate: BadSignature", "refused"),
        ] {
            let words = words(why);
            assert!(
                words.contains(advice) && !words.contains("ca-file"),
                "{words}"
            );
        }
    }

    #[test]
    fn a_giver_of_credentials_that_failed_is_asked_longer_than_one_that_refused() {
        let of = |giver| Some(Problem::Credentials("why".to_owned(), giver));
        assert!(matches!(
            SUBJECT.judge(library(), of(Giver::Failed)),
            Verdict::Unlikely(_)
        ));
        assert!(matches!(
            SUBJECT.judge(library(), of(Giver::Refused)),
            Verdict::Few(_)
        ));
    }

    #[test]
    fn an_unknown_host_is_told_apart_from_a_broken_connection() {
        let of = |broken| Some(Problem::Transport("dns error".to_owned(), broken));
        assert!(matches!(
            SUBJECT.judge(library(), of(Broken::Name)),
            Verdict::Unlikely(_)
        ));
        assert!(matches!(
            SUBJECT.judge(library(), of(Broken::Connection)),
            Verdict::Again(_)
        ));
    }
}
