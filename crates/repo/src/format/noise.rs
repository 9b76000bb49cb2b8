//! Bytes that no writer makes, as every type that is stored: whoever has a key seals what they like, and
//! what is sealed is decoded by all others.

use super::attributes::Body;
use super::head::{self, HeadPlace};
use super::id::{ChunkId, PackId};
use super::index::{self, IndexedPack};
use super::node::{self, FAN_OUT};
use super::pack::{Class, Entry};
use super::slot::Slot;
use super::snapshot::{Snapshot, SnapshotName};
use super::table::{
    Cover, TableEntry, TablePack, decode_block, decode_packs, encode_block, encode_packs,
};
use crate::FileName;

/// Every cut of sound bytes, every one with a bit turned, one that goes on, and a pile of random bytes.
pub(crate) fn around(sound: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut tried: Vec<Vec<u8>> = Vec::new();
    for bytes in sound {
        tried.extend((0..bytes.len()).map(|end| bytes[..end].to_vec()));
        tried.push([bytes, &[0][..]].concat());
        for place in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[place] ^= 1 << bit;
                tried.push(flipped);
            }
        }
    }
    let mut noise = blake3::Hasher::new().finalize_xof();
    for length in 0..600 {
        let mut bytes = vec![0; length % 150];
        noise.fill(&mut bytes);
        // Small counts, so that what is behind them is looked at.
        bytes.iter_mut().take(4).skip(1).for_each(|b| *b = 0);
        tried.push(bytes);
    }
    tried.push([&u32::MAX.to_le_bytes()[..], &[0; 64]].concat());
    tried
}

fn entry(number: u8) -> Entry {
    Entry {
        id: ChunkId([number; 32]),
        offset: 64,
        stored: 100,
        plain: 200,
        compressed: number % 2 == 1,
    }
}

/// What is refused, or decodes to what encodes to the same bytes.
fn exact<T>(sound: Vec<u8>, decode: impl Fn(&[u8]) -> Option<T>, encode: impl Fn(&T) -> Vec<u8>) {
    let decoded = decode(&sound).expect("it is sound");
    assert_eq!(encode(&decoded), sound);
    for bytes in around(&[sound]) {
        if let Some(found) = decode(&bytes) {
            assert_eq!(encode(&found), bytes);
        }
    }
}

#[test]
fn what_the_index_and_maps_are_made_of_is_refused_or_encodes_to_the_same_bytes() {
    let (id, class, length) = (PackId([3; 32]), Class::Metadata, 1000);
    let pack = IndexedPack {
        id,
        class,
        length,
        entries: vec![entry(1), entry(2)],
    };
    exact(index::encode(&[pack]), index::decode, |packs| {
        index::encode(packs)
    });
    let packs = encode_packs(&[TablePack { id, class, length }]);
    exact(packs, decode_packs, |packs| encode_packs(packs));
    let entries = [1, 2].map(|number| TableEntry {
        pack: 7,
        number: u32::from(number),
        entry: entry(number),
    });
    exact(encode_block(&entries), decode_block, |entries| {
        encode_block(entries)
    });
    let cover = Cover {
        packs: 1,
        tables: vec![(5, ChunkId([1; 32]))],
        writers: vec![([4; 16], 0..3)],
    };
    exact(cover.encode(), Cover::decode, Cover::encode);
    let mut children = [None; FAN_OUT];
    children[0] = Some(ChunkId([1; 32]));
    children[63] = Some(ChunkId([2; 32]));
    exact(node::encode(&children), node::decode, node::encode);
}

#[test]
fn records_that_were_changed_are_refused_or_read_and_nothing_else_happens() {
    let snapshot: SnapshotName = "main/vm/100/1".parse().expect("a name");
    let place = HeadPlace::new(&snapshot, "pve").expect("a place");
    let name = place.head(1, [7; 8]);
    let file: FileName = "attributes/x".parse().expect("a name");
    let sound = [
        head::encode("r", &snapshot).expect("a head"),
        br#"{"snapshot":"00","notes":"text","protected":true}"#.to_vec(),
        br#"{"kind":"open","root":"00","label":{"text":"a","mac":"00"}}"#.to_vec(),
        br#"{"id":"00","repository":"r","time":1,"disks":[]}"#.to_vec(),
    ];
    let read = |bytes: &[u8]| {
        [
            head::decode(&place, &name, "r", bytes).is_ok(),
            Body::decode(&file, bytes).is_ok(),
            Slot::decode(bytes).is_ok(),
            Snapshot::decode(&snapshot, "r", bytes).is_ok(),
        ]
    };
    assert!(read(&sound[0])[0] && read(&sound[1])[1]);
    for bytes in around(&sound) {
        read(&bytes);
    }
}
