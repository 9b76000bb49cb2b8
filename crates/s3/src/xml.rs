//! The little that is read of replies here: one element's text, whether a page of a list is whole,
//! and lists of versions.

use crate::clock;

/// The text of the first element of this name, without its references resolved.
pub(crate) fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let open = format!("<{name}>");
    let start = text.find(&open)? + open.len();
    let length = text[start..].find(&format!("</{name}>"))?;
    Some(&text[start..start + length])
}

/// The name of the outermost element.
pub(crate) fn root(text: &str) -> Option<&str> {
    let text = text.trim_start();
    let text = match text.strip_prefix("<?") {
        Some(head) => head.split_once("?>")?.1.trim_start(),
        None => text,
    };
    let ends = |c: char| c.is_whitespace() || c == '>' || c == '/';
    text.strip_prefix('<')?.split(ends).next()
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

/// A version of an object, or a mark that hides those before it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Version {
    pub(crate) key: String,
    pub(crate) id: String,
    pub(crate) is_marker: bool,
    pub(crate) is_latest: bool,
    /// In seconds since 1970.
    pub(crate) modified: i64,
    /// In bytes; that of a mark is 0.
    pub(crate) size: u64,
}

/// A page of a list of versions.
#[derive(Debug, Default)]
pub(crate) struct Versions {
    /// As they came.
    pub(crate) versions: Vec<Version>,
    /// The last key and version, if there is more.
    pub(crate) next: Option<(String, String)>,
}

/// Reads a page of a list of versions. Why it cannot be believed, otherwise.
pub(crate) fn versions(text: &str) -> Result<Versions, String> {
    if !text.contains("<ListVersionsResult") || !text.trim_end().ends_with("</ListVersionsResult>")
    {
        return Err("is no whole list of versions".to_owned());
    }
    let mut page = Versions::default();
    let mut rest = text;
    while let Some(start) = rest
        .find("<Version>")
        .into_iter()
        .chain(rest.find("<DeleteMarker>"))
        .min()
    {
        let is_marker = rest[start..].starts_with("<DeleteMarker>");
        let close = if is_marker {
            "</DeleteMarker>"
        } else {
            "</Version>"
        };
        let end = rest[start..]
            .find(close)
            .ok_or("has an element without an end")?;
        page.versions
            .push(version(&rest[start..start + end], is_marker)?);
        rest = &rest[start + end..];
    }
    let more = match element(text, "IsTruncated").map(str::trim) {
        Some("true") => true,
        Some("false") => false,
        Some(_) | None => return Err("does not say whether there is more".to_owned()),
    };
    if more {
        let part = |name| element(text, name).map(unescaped);
        let both = part("NextKeyMarker").zip(part("NextVersionIdMarker"));
        page.next = Some(both.ok_or("says that there is more, but not how to get it")?);
    }
    Ok(page)
}

fn version(text: &str, is_marker: bool) -> Result<Version, String> {
    let part = |name: &str| {
        element(text, name)
            .map(unescaped)
            .ok_or_else(|| format!("has a version without {name}"))
    };
    let modified = clock::read(&part("LastModified")?);
    let size = if is_marker {
        Some(0)
    } else {
        part("Size")?.trim().parse().ok()
    };
    Ok(Version {
        key: part("Key")?,
        id: part("VersionId")?,
        is_marker,
        is_latest: part("IsLatest")?.trim() == "true",
        modified: modified.ok_or("has a version of no time")?,
        size: size.ok_or("has a version of no size")?,
    })
}

/// Text with the references resolved that every XML has.
fn unescaped(text: &str) -> String {
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&amp;", "&")
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

    #[test]
    fn the_outermost_element_is_found_behind_what_stands_before_it() {
        for text in [
            "<A/>",
            " <A>x</A>",
            "<?xml version=\"1.0\"?>\n<A xmlns=\"x\"/>",
        ] {
            assert_eq!(root(text), Some("A"), "{text}");
        }
        for text in ["", "A", "<?xml <A/>"] {
            assert_eq!(root(text), None, "{text}");
        }
    }

    #[test]
    fn versions_are_read_with_what_hides_them() {
        let text = "<ListVersionsResult><IsTruncated>true</IsTruncated><NextKeyMarker>a&amp;b</NextKeyMarker>\
                    <NextVersionIdMarker>2</NextVersionIdMarker><DeleteMarker><Key>a</Key><VersionId>2</VersionId>\
                    <IsLatest>true</IsLatest><LastModified>2026-11-30T16:00:00.000Z</LastModified></DeleteMarker>\
                    <Version><Key>a</Key><VersionId>1</VersionId><IsLatest>false</IsLatest>\
                    <LastModified>2026-11-30T15:00:00Z</LastModified><Size>7</Size></Version></ListVersionsResult>";
        let page = versions(text).unwrap();
        let told: Vec<_> = (page.versions.iter())
            .map(|v| {
                (
                    v.key.as_str(),
                    v.id.as_str(),
                    v.is_marker,
                    v.is_latest,
                    v.size,
                )
            })
            .collect();
        assert_eq!(
            told,
            [("a", "2", true, true, 0), ("a", "1", false, false, 7)]
        );
        assert_eq!(page.next, Some(("a&b".to_owned(), "2".to_owned())));
        for wrong in [
            &text[..text.len() - 1],
            &text.replace("<Size>7</Size>", ""),
            &text.replace("<VersionId>1</VersionId>", ""),
            &text.replace("<NextVersionIdMarker>2</NextVersionIdMarker>", ""),
            &text.replace("<IsTruncated>true</IsTruncated>", ""),
        ] {
            assert!(versions(wrong).is_err(), "{wrong}");
        }
    }
}
