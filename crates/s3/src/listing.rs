//! Puts a list into order, page by page, and finds lists that are none.

use std::collections::HashSet;

use snapkeep_repo::FileName;

use crate::limits;

/// An object's name, its length, and when it was put in seconds since 1970.
pub(crate) type Listed = (FileName, u64, i64);

/// Folders of a repository in which nothing lies, mostly, or below which it does not of most archives.
const MOSTLY_EMPTY: [&str; 4] = ["features/", "prune/", "tables/", "attributes/"];

/// Whether a list of what is below this folder is likely to be empty.
pub(crate) fn is_mostly_empty(below: &str) -> bool {
    MOSTLY_EMPTY.iter().any(|folder| below.starts_with(folder))
}

/// What was listed, from page to page.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Names that are not told yet, while all may still be put into order.
    held: Vec<Listed>,
    names: HashSet<FileName>,
    /// The last name that was told, once some were.
    told: Option<FileName>,
    tokens: HashSet<String>,
    empty: usize,
    count: u64,
}

impl Listing {
    /// Takes a page; what may be told of it now, in order. Why it cannot be believed, otherwise.
    pub(crate) fn page(
        &mut self,
        mut page: Vec<Listed>,
        token: Option<&str>,
    ) -> Result<Vec<Listed>, String> {
        if let Some(token) = token {
            if token.len() > limits::TOKEN_MAX {
                let most = limits::TOKEN_MAX;
                return Err(format!("names a continuation of more than {most} bytes"));
            }
            if self.tokens.len() >= limits::PAGES_MAX {
                return Err(format!("has more than {} pages", limits::PAGES_MAX));
            }
            if !self.tokens.insert(token.to_owned()) {
                return Err("names a continuation that it named before".to_owned());
            }
            // Endpoints may answer so while they skip what was removed.
            self.empty += usize::from(page.is_empty());
            if self.empty > limits::EMPTY_PAGES_MAX {
                return Err("says that there is more, and holds nothing".to_owned());
            }
        }
        self.count += page.len() as u64;
        if self.count > limits::LIST_MAX {
            return Err(format!("has more than {} names", limits::LIST_MAX));
        }
        page.sort();
        if let Some(told) = &self.told {
            return match page.first() {
                Some((first, ..)) if first <= told => {
                    Err("is in no order, and too long to be put into one".to_owned())
                }
                _ if let Some(pair) = (page.windows(2)).find(|pair| pair[0].0 == pair[1].0) => {
                    Err(format!("names {} twice", pair[0].0))
                }
                _ => {
                    self.told = page
                        .last()
                        .map(|(name, ..)| name.clone())
                        .or_else(|| self.told.clone());
                    Ok(page)
                }
            };
        }
        for (name, length, time) in page {
            if !self.names.insert(name.clone()) {
                return Err(format!("names {name} twice"));
            }
            self.held.push((name, length, time));
        }
        if token.is_none() || self.held.len() > limits::UNORDERED_MAX {
            return Ok(self.tell());
        }
        Ok(Vec::new())
    }

    fn tell(&mut self) -> Vec<Listed> {
        let mut all = std::mem::take(&mut self.held);
        self.names = HashSet::new();
        all.sort();
        self.told = all.last().map(|(name, ..)| name.clone());
        all
    }

    /// Whether nothing was listed.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(names: &[&str]) -> Vec<Listed> {
        names
            .iter()
            .map(|name| (name.parse().unwrap(), 1, 0))
            .collect()
    }

    fn names(told: Vec<Listed>) -> Vec<String> {
        told.into_iter()
            .map(|(name, ..)| name.to_string())
            .collect()
    }

    #[test]
    fn pages_in_no_order_are_put_into_one() {
        let mut listing = Listing::default();
        assert!(
            listing
                .page(page(&["d", "a"]), Some("1"))
                .unwrap()
                .is_empty()
        );
        let told = listing.page(page(&["c", "b"]), None).unwrap();
        assert_eq!(names(told), ["a", "b", "c", "d"]);
    }

    #[test]
    fn a_continuation_that_comes_again_is_an_error() {
        let mut listing = Listing::default();
        listing.page(page(&["a"]), Some("1")).unwrap();
        listing.page(page(&["b"]), Some("2")).unwrap();
        let why = listing.page(page(&["c"]), Some("1")).unwrap_err();
        assert!(why.contains("before"), "{why}");
    }

    #[test]
    fn a_list_of_ever_more_pages_or_with_an_endless_continuation_is_an_error() {
        let mut listing = Listing::default();
        let mut pages = (0..=limits::PAGES_MAX).map(|n| {
            let name = format!("m{n:08}");
            listing.page(page(&[&name]), Some(&name))
        });
        let why = pages.find_map(Result::err).unwrap();
        assert!(why.contains("pages"), "{why}");
        let endless = "t".repeat(limits::TOKEN_MAX + 1);
        let why = Listing::default()
            .page(page(&["a"]), Some(&endless))
            .unwrap_err();
        assert!(why.contains("bytes"), "{why}");
    }

    #[test]
    fn a_page_that_comes_again_is_an_error() {
        let mut listing = Listing::default();
        listing.page(page(&["a", "b"]), Some("1")).unwrap();
        let why = listing.page(page(&["b", "c"]), None).unwrap_err();
        assert!(why.contains("b twice"), "{why}");
    }

    #[test]
    fn a_long_list_is_told_while_it_comes_and_must_be_in_order() {
        let mut listing = Listing::default();
        let many: Vec<_> = (0..=limits::UNORDERED_MAX)
            .map(|n| (format!("m{n:08}").parse().unwrap(), 1, 0))
            .collect();
        assert_eq!(
            listing.page(many, Some("1")).unwrap().len(),
            limits::UNORDERED_MAX + 1
        );
        assert_eq!(
            names(listing.page(page(&["n", "o"]), Some("2")).unwrap()),
            ["n", "o"]
        );
        let twice = vec![("p".parse().unwrap(), 1, 0), ("p".parse().unwrap(), 2, 0)];
        let why = listing.page(twice, Some("3")).unwrap_err();
        assert!(why.contains("p twice"), "{why}");
        let why = listing.page(page(&["a"]), None).unwrap_err();
        assert!(why.contains("order"), "{why}");
    }

    #[test]
    fn pages_with_nothing_and_more_to_come_end_in_an_error() {
        let mut listing = Listing::default();
        let mut pages = (0..1000).map(|n| listing.page(Vec::new(), Some(&n.to_string())));
        assert!(pages.any(|page| page.is_err()));
        assert!(listing.is_empty());
    }
}
