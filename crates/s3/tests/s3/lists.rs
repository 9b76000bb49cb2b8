//! Lists that are none.

use std::sync::Arc;

use snapkeep_repo::{ErrorKind, FileName, Result, Storage};

use crate::support::proxy::{ALWAYS, Fault, Message};
use crate::support::{Bucket, name};

/// A bucket with so many objects, listed by pages of ten.
fn with_objects(test: &str, number: usize) -> Option<Bucket> {
    let bucket = Bucket::new(test)?;
    let storage = bucket.direct("a");
    for number in 0..number {
        storage.put(&name(&format!("x/{number:03}")), b"1").unwrap();
    }
    Some(bucket)
}

fn list(storage: &dyn Storage) -> Result<Vec<FileName>> {
    let mut found = Vec::new();
    storage.list(&name("x"), &mut |name, _| {
        found.push(name.clone());
        Ok(())
    })?;
    Ok(found)
}

fn body(message: &mut Message, edit: impl Fn(String) -> String) {
    let text = String::from_utf8(std::mem::take(&mut message.body)).unwrap();
    message.body = edit(text).into_bytes();
}

#[test]
fn a_list_that_was_cut_is_fetched_again() {
    let Some(bucket) = with_objects("a_list_that_was_cut_is_fetched_again", 20) else {
        return;
    };
    let storage = bucket.storage("a");
    let shortened = Fault::reply(|reply| {
        let half = reply.body.len() / 2;
        reply.body.truncate(half);
    });
    let no_token = Fault::reply(|reply| {
        body(reply, |text| {
            text.replace("<IsTruncated>false", "<IsTruncated>true")
        });
    });
    let miscounted = Fault::reply(|reply| {
        body(reply, |text| {
            let start = text.find("<Contents>").unwrap();
            let end = text.find("</Contents>").unwrap() + "</Contents>".len();
            format!("{}{}", &text[..start], &text[end..])
        });
    });
    let nothing = Fault::reply(|reply| reply.body.clear());
    for fault in [shortened, no_token, miscounted, nothing, Fault::Cut(300)] {
        bucket.proxy.add("GET", "list-type", 1, fault);
        assert_eq!(list(&storage).unwrap().len(), 20);
    }
}

#[test]
fn an_empty_list_is_believed_when_it_was_empty_twice() {
    let Some(bucket) = with_objects("an_empty_list_is_believed_when_it_was_empty_twice", 3) else {
        return;
    };
    let storage = bucket.storage("a");
    let empty = Fault::request(|request| {
        request.line = request.line.replace("prefix=a%2Fx%2F", "prefix=a%2Fy%2F");
    });
    // As if something was put after it: what is there is listed anew.
    bucket.proxy.add("GET", "list-type", 1, empty);
    assert_eq!(list(&storage).unwrap().len(), 3);
    // Only the second question has a limit.
    bucket.proxy.add(
        "GET",
        "list-type",
        ALWAYS,
        Fault::request(|request| {
            if !request.line.contains("max-keys") {
                request.line = request.line.replace("prefix=a%2Fx%2F", "prefix=a%2Fy%2F");
            }
        }),
    );
    let error = list(&storage).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("contradicts"), "{error}");
}

#[test]
fn a_token_that_comes_again_ends_in_an_error_and_not_in_a_loop() {
    let test = "a_token_that_comes_again_ends_in_an_error_and_not_in_a_loop";
    let Some(bucket) = with_objects(test, 25) else {
        return;
    };
    let storage = bucket.storage("a");
    // Whatever is asked for, the first page comes, and says that there is more.
    let first = |request: &mut Message| {
        let rest = request
            .line
            .split_once("&prefix")
            .map(|(_, rest)| rest.to_owned());
        if let Some((start, _)) = request.line.split_once('?') {
            let start = start.to_owned();
            request.line = format!("{start}?list-type=2&prefix{}", rest.unwrap_or_default());
        }
    };
    let again = |reply: &mut Message| {
        body(reply, |text| {
            text.replace(
                "<IsTruncated>false</IsTruncated>",
                "<IsTruncated>true</IsTruncated><NextContinuationToken>again</NextContinuationToken>",
            )
        });
    };
    let repeated = Fault::Both(Arc::new(first), Arc::new(again));
    bucket.proxy.add("GET", "list-type", ALWAYS, repeated);
    let error = list(&storage).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert!(bucket.proxy.log().len() < 10);
}

#[test]
fn a_last_page_may_have_an_empty_token() {
    let Some(bucket) = with_objects("a_last_page_may_have_an_empty_token", 12) else {
        return;
    };
    let storage = bucket.storage("a");
    let empty = Fault::reply(|reply| {
        body(reply, |text| {
            text.replace(
                "<IsTruncated>false</IsTruncated>",
                "<IsTruncated>false</IsTruncated><NextContinuationToken></NextContinuationToken>",
            )
        });
    });
    bucket.proxy.add("GET", "list-type", ALWAYS, empty);
    assert_eq!(list(&storage).unwrap().len(), 12);
}

#[test]
fn names_in_no_order_are_told_in_order() {
    let Some(bucket) = with_objects("names_in_no_order_are_told_in_order", 12) else {
        return;
    };
    let storage = bucket.storage("a");
    let swapped = Fault::reply(|reply| {
        body(reply, |text| {
            text.replace("x/001<", "x/tmp<")
                .replace("x/009<", "x/001<")
                .replace("x/tmp<", "x/009<")
        });
    });
    bucket.proxy.add("GET", "list-type", 1, swapped);
    let found = list(&storage).unwrap();
    assert_eq!(found.len(), 12);
    assert!(found.is_sorted());
}

#[test]
fn names_of_another_prefix_are_not_taken_for_ours() {
    let Some(bucket) = with_objects("names_of_another_prefix_are_not_taken_for_ours", 3) else {
        return;
    };
    let storage = bucket.storage("a");
    bucket.direct("ab").put(&name("x/999"), b"1").unwrap();
    let wider = Fault::request(|request| {
        request.line = request.line.replace("prefix=a%2Fx%2F", "prefix=a");
    });
    bucket.proxy.add("GET", "list-type", 1, wider);
    assert_eq!(list(&storage).unwrap().len(), 3);
}

#[test]
fn objects_that_are_no_files_of_ours_are_not_told() {
    let Some(bucket) = with_objects("objects_that_are_no_files_of_ours_are_not_told", 3) else {
        return;
    };
    let folder = format!("PUT /{}/a/x/", bucket.name);
    assert!(bucket.moto.ask(&folder, "", b"").contains("200"));
    let odd = format!("PUT /{}/a/x/.hidden", bucket.name);
    assert!(bucket.moto.ask(&odd, "", b"").contains("200"));
    assert_eq!(list(&bucket.storage("a")).unwrap().len(), 3);
}
