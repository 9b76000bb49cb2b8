//! The two machines against each other, however the bytes between them are cut.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::client::{ClientHandshake, Goal, Outcome};
use super::server::{Offer, Outcome as Served, ServerHandshake};
use super::{Agreed, BlockSizes, ExportFacts, Machine as _};
use crate::extent::BASE_ALLOCATION;
use crate::wire::{Style, transmit};

const BITMAP: &str = "qemu:dirty-bitmap:run";

fn offers() -> BTreeMap<String, Offer> {
    let facts = ExportFacts {
        size: 12345,
        flags: transmit::HAS_FLAGS,
        blocks: BlockSizes::DEFAULT,
    };
    let contexts = vec![BASE_ALLOCATION.to_owned(), BITMAP.to_owned()];
    ["a", "b"]
        .map(|name| {
            (
                name.to_owned(),
                Offer {
                    facts,
                    contexts: contexts.clone(),
                },
            )
        })
        .into()
}

fn go(contexts: &[&str]) -> Goal {
    Goal::Go {
        export: "a".to_owned(),
        contexts: contexts.iter().map(|&name| name.to_owned()).collect(),
    }
}

/// Gives a machine all of `bytes` in pieces; returns what it answers.
fn give(
    mut feed: impl FnMut(&[u8]) -> usize,
    mut bytes: &[u8],
    pieces: &mut impl Iterator<Item = usize>,
) {
    while !bytes.is_empty() {
        let piece = pieces.next().unwrap().min(bytes.len());
        let taken = feed(&bytes[..piece]);
        assert!(taken <= piece);
        bytes = &bytes[taken..];
    }
}

/// Runs a handshake with every message cut into such pieces.
fn talk(goal: Goal, pieces: &[usize]) -> (Outcome, Served) {
    let mut pieces = pieces.iter().copied().cycle();
    let mut client = ClientHandshake::new(goal);
    let mut server = ServerHandshake::new(offers());
    let (mut left, mut right) = (None, None);
    while left.is_none() || right.is_none() {
        let to_client = server.take_output();
        give(|bytes| client.feed(bytes).unwrap(), &to_client, &mut pieces);
        let to_server = client.take_output();
        give(|bytes| server.feed(bytes).unwrap(), &to_server, &mut pieces);
        left = left.or_else(|| client.take_outcome());
        right = right.or_else(|| server.take_outcome());
    }
    assert_eq!((client.wants(), server.wants()), (0, 0));
    (left.unwrap(), right.unwrap())
}

#[test]
fn both_sides_agree_on_the_best_there_is() {
    let (client, server) = talk(go(&[BITMAP]), &[1000]);
    let Outcome::Transmission(agreed) = client else {
        panic!("{client:?}")
    };
    assert_eq!(
        server,
        Served::Transmission {
            export: "a".to_owned(),
            agreed: agreed.clone()
        }
    );
    let Agreed {
        style,
        facts,
        contexts,
    } = agreed;
    assert_eq!(
        (style, facts.size, contexts),
        (Style::Extended, 12345, vec![(1, BITMAP.to_owned())])
    );
}

#[test]
fn a_context_the_server_lacks_is_left_out() {
    let (client, _) = talk(go(&["qemu:dirty-bitmap:none", BASE_ALLOCATION]), &[1000]);
    assert!(
        matches!(client, Outcome::Transmission(Agreed { contexts, .. }) if contexts.len() == 1)
    );
}

#[test]
fn a_list_names_every_export() {
    let (client, server) = talk(Goal::List, &[1000]);
    assert_eq!(
        client,
        Outcome::Listed(vec!["a".to_owned(), "b".to_owned()])
    );
    assert_eq!(server, Served::Left);
}

proptest! {
    #[test]
    fn how_the_bytes_are_cut_changes_nothing(pieces in prop::collection::vec(1usize..50, 1..20)) {
        for goal in [go(&[BITMAP, BASE_ALLOCATION]), go(&[]), Goal::List] {
            prop_assert_eq!(talk(goal.clone(), &pieces), talk(goal, &[usize::MAX]));
        }
    }

    #[test]
    fn any_bytes_end_in_an_error_or_an_outcome_but_never_in_a_panic(
        greeted: bool,
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut data = if greeted { ServerHandshake::new(offers()).take_output() } else { Vec::new() };
        data.extend_from_slice(&bytes);
        crate::fuzz::client_handshake(&data);
        crate::fuzz::server(&bytes);
    }
}
