//! Who is asked, and who is not: redirects, proxies of the environment, and what an endpoint that
//! refuses is asked in order to know why.

use std::process::Command;

use snapkeep_repo::{ErrorKind, Storage};

use crate::support::proxy::{ALWAYS, Fault, Proxy};
use crate::support::{Bucket, name};

#[test]
fn a_redirect_is_told_and_never_followed() {
    let Some(bucket) = Bucket::new("a_redirect_is_told_and_never_followed") else {
        return;
    };
    let storage = bucket.storage("a");
    let file = name("packs/1");
    bucket.direct("a").put(&file, b"bytes").unwrap();
    // It would answer, as a page does that wants a login.
    let elsewhere = Proxy::start(&bucket.moto.address);
    for status in [301, 302, 303, 307, 308] {
        let place = format!("http://{}/{}/a/packs/1", elsewhere.address, bucket.name);
        let redirect = Fault::reply(move |reply| {
            reply.line = format!("HTTP/1.1 {status} Elsewhere");
            reply.headers.clear();
            reply.set("Location", &place);
            reply.body.clear();
        });
        bucket.proxy.heal();
        for method in ["PUT", "GET", "DELETE"] {
            bucket
                .proxy
                .add(method, "packs/1", ALWAYS, redirect.clone());
        }
        for error in [
            storage.put(&file, b"bytes").unwrap_err(),
            storage.read(&file, 0..5).unwrap_err(),
            storage.remove(&file).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Invalid, "{status}: {error}");
            assert!(error.to_string().contains("another"), "{status}: {error}");
        }
    }
    let asked = elsewhere.log();
    assert!(asked.is_empty(), "{asked:?}");
}

#[test]
fn a_proxy_of_the_environment_does_not_see_what_is_sent_in_the_open() {
    const TEST: &str = "endpoint::a_proxy_of_the_environment_does_not_see_what_is_sent_in_the_open";
    let Some(bucket) = Bucket::new(TEST) else {
        return;
    };
    if std::env::var_os("HTTP_PROXY").is_some() {
        let storage = bucket.direct("a");
        storage.put(&name("packs/1"), b"bytes").unwrap();
        assert_eq!(storage.read(&name("packs/1"), 0..5).unwrap(), b"bytes");
        return;
    }
    // The same test with a proxy that it must not ask.
    let proxy = Proxy::start(&bucket.moto.address);
    let address = format!("http://{}", proxy.address);
    let ended = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", TEST])
        .envs([("HTTP_PROXY", &address), ("http_proxy", &address)])
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(
        ended.status.success() && said.contains("1 passed"),
        "{said}"
    );
    let asked = proxy.log();
    assert!(asked.is_empty(), "{asked:?}");
}

#[test]
fn a_question_that_is_refused_without_words_is_asked_so_that_there_are_some() {
    let test = "a_question_that_is_refused_without_words_is_asked_so_that_there_are_some";
    let Some(bucket) = Bucket::new(test) else {
        return;
    };
    for (status, code, kind, advice) in [
        (
            403,
            "SignatureDoesNotMatch",
            ErrorKind::Denied,
            "secret key",
        ),
        (403, "InvalidAccessKeyId", ErrorKind::Denied, "access key"),
        (403, "RequestTimeTooSkewed", ErrorKind::Denied, "clock"),
        (
            400,
            "AuthorizationHeaderMalformed",
            ErrorKind::Invalid,
            "region",
        ),
        (
            401,
            "InvalidSecurity",
            ErrorKind::Denied,
            "credentials are wrong",
        ),
    ] {
        let storage = bucket.storage("a");
        bucket.proxy.heal();
        let refusal = Fault::Answer(status, code, "because");
        bucket.proxy.add("HEAD", "", ALWAYS, refusal.clone());
        bucket.proxy.add("GET", "list-type", ALWAYS, refusal);
        let error = storage.length(&name("config")).unwrap_err();
        let text = error.to_string();
        assert_eq!(error.kind(), kind, "{text}");
        assert!(text.contains(advice) && text.contains(code), "{text}");
    }
    // Who may list, and not read, is told that.
    let storage = bucket.storage("a");
    bucket.proxy.heal();
    bucket
        .proxy
        .add("HEAD", "", ALWAYS, Fault::Answer(403, "", ""));
    let error = storage.length(&name("config")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("s3:GetObject"), "{error}");
}

#[test]
fn credentials_that_were_refused_are_asked_for_after_other_failures_too() {
    let test = "credentials_that_were_refused_are_asked_for_after_other_failures_too";
    let Some(bucket) = Bucket::new(test) else {
        return;
    };
    let storage = bucket.storage("a");
    let busy = Fault::Answer(503, "SlowDown", "slower");
    let expired = Fault::Answer(400, "ExpiredToken", "The provided token has expired.");
    bucket.proxy.add("PUT", "packs/1", 5, busy);
    bucket.proxy.add("PUT", "packs/1", 1, expired);
    storage.put(&name("packs/1"), b"bytes").unwrap();
}
