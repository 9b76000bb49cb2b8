//! The little that is read of replies before the client library does: one element's text.

/// The text of the first element of this name, without its references resolved.
pub(crate) fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let open = format!("<{name}>");
    let start = text.find(&open)? + open.len();
    let length = text[start..].find(&format!("</{name}>"))?;
    Some(&text[start..start + length])
}

/// Whether a page of a list is whole: what it says of itself agrees with what it holds. Why not,
/// otherwise.
pub(crate) fn check_page(text: &str) -> Result<(), String> {
    if !text.contains("<ListBucketResult") || !text.trim_end().ends_with("</ListBucketResult>") {
        return Err("is no whole list".to_owned());
    }
    let truncated = match element(text, "IsTruncated").map(str::trim) {
        Some("true") => true,
        Some("false") => false,
        Some(_) | None => return Err("does not say whether there is more".to_owned()),
    };
    let token = element(text, "NextContinuationToken").is_some_and(|token| !token.is_empty());
    if truncated && !token {
        return Err("says that there is more, but not how to get it".to_owned());
    }
    let held = text.matches("<Contents>").count() + text.matches("<CommonPrefixes>").count();
    if let Some(count) = element(text, "KeyCount").and_then(|count| count.trim().parse().ok())
        && held != count
    {
        let why: usize = count;
        return Err(format!("says that it has {why} names, and has {held}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_is_not_whole_is_seen() {
        let page =
            |inner: &str| format!("<ListBucketResult xmlns=\"x\">{inner}</ListBucketResult>");
        let whole = "<IsTruncated>false</IsTruncated><KeyCount>1</KeyCount><Contents><Key>a</Key></Contents>";
        assert_eq!(check_page(&page(whole)), Ok(()));
        for wrong in [
            page("<Contents></Contents>"),
            page("<IsTruncated>true</IsTruncated>"),
            page("<IsTruncated>maybe</IsTruncated>"),
            page("<IsTruncated>false</IsTruncated><KeyCount>2</KeyCount><Contents></Contents>"),
            page(whole)[..60].to_owned(),
            String::new(),
        ] {
            assert!(check_page(&wrong).is_err(), "{wrong}");
        }
    }
}
