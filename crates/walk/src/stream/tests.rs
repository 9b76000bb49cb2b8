//! What is encoded is decoded, and nothing else is.

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use snapkeep_api::tree::{
    Attributes, DeviceNumber, Entry, EntryKind, Found, FoundKind, Judgement, Name, Problem,
    ProblemKind, Timestamp, TreePath, Witness, Xattr,
};

use super::*;
use crate::limits;

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(1_u8..=255, 1..=most)
}

fn name() -> impl Strategy<Value = Name> {
    bytes(255).prop_filter_map("a name", |bytes| Name::new(bytes).ok())
}

prop_compose! {
    fn time()(seconds: i64, nanos in 0..1_000_000_000_u32) -> Timestamp {
        Timestamp { seconds, nanos }
    }
}

prop_compose! {
    fn witness()(inode: u64, ctime in time()) -> Witness {
        Witness { inode, ctime }
    }
}

fn kind() -> impl Strategy<Value = EntryKind> {
    let device = (any::<u32>(), any::<u32>());
    let device = device.prop_map(|(major, minor)| DeviceNumber { major, minor });
    prop_oneof![
        (0..=u64::try_from(i64::MAX).unwrap(), 1..=u32::MAX)
            .prop_map(|(size, links)| EntryKind::File { size, links }),
        Just(EntryKind::Directory),
        bytes(4095).prop_map(|target| EntryKind::Symlink { target }),
        vec(name(), 1..4).prop_map(|names| {
            let mut to = TreePath::root();
            for name in &names {
                to.push(name);
            }
            EntryKind::HardLink { to }
        }),
        Just(EntryKind::Fifo),
        Just(EntryKind::Socket),
        device.clone().prop_map(EntryKind::CharDevice),
        device.prop_map(EntryKind::BlockDevice),
    ]
}

prop_compose! {
    fn entry()(
        permissions in 0..0o10000_u16,
        uid: u32,
        gid: u32,
        mtime in time(),
        flags: u32,
        xattrs in btree_map(bytes(255), vec(any::<u8>(), 0..300), 0..4),
        kind in kind(),
    ) -> Entry {
        let first = !matches!(kind, EntryKind::HardLink { .. });
        let flags = if first { flags } else { 0 };
        let xattrs = xattrs.into_iter().filter(|_| first);
        let xattrs = xattrs.map(|(name, value)| Xattr { name, value }).collect();
        Entry { attributes: Attributes { permissions, uid, gid, mtime, flags, xattrs }, kind }
    }
}

/// The one message in some bytes.
fn decoded(bytes: &[u8]) -> Result<Message, Fault> {
    let (first, payload) = bytes.split_first_chunk().unwrap();
    let header = header(*first)?;
    assert_eq!(header.length, payload.len());
    decode(header.kind, payload)
}

proptest! {
    #[test]
    fn an_entry_arrives_as_it_was_told(
        name in option::of(name()),
        entry in option::of(entry()),
        witness in option::of(witness()),
        linked: bool,
    ) {
        let mut out = Vec::new();
        let telling = Telling {
            name: name.as_ref().map(Name::as_bytes),
            entry: entry.as_ref(),
            witness,
            linked,
        };
        told(&mut out, Kind::Entry, &telling);
        let Message::Entry(sent) = decoded(&out).unwrap() else { panic!() };
        prop_assert_eq!(sent.name, name);
        prop_assert_eq!(sent.entry, entry);
        prop_assert_eq!(sent.witness, witness);
        prop_assert_eq!(sent.linked, linked);
        // Shorter or longer it is none.
        prop_assert!(decode(Kind::Entry, &out[limits::HEADER_BYTES..out.len() - 1]).is_err());
        out.push(0);
        prop_assert!(decode(Kind::Entry, &out[limits::HEADER_BYTES..]).is_err());
    }

    #[test]
    fn a_question_and_its_answers_arrive(
        all in vec((name(), option::of(any::<u64>()), time(), witness(), 0..3_u8), 1..50)
    ) {
        let found = |(name, size, mtime, witness, _): &(Name, Option<u64>, _, _, _)| {
            let kind = size.map_or(FoundKind::Directory, |size| FoundKind::File { size });
            (name.clone(), Found { kind, mtime: *mtime, witness: *witness })
        };
        let question: Vec<_> = all.iter().map(found).collect();
        let mut out = Vec::new();
        batch(&mut out, question.iter().map(|(name, found)| (name.as_bytes(), *found)));
        let Message::Batch(arrived) = decoded(&out).unwrap() else { panic!() };
        prop_assert_eq!(arrived, question);
        let judged = [Judgement::Read, Judgement::Known, Judgement::Audit];
        let judged: Vec<_> = all.iter().map(|one| judged[usize::from(one.4)]).collect();
        let mut out = Vec::new();
        answers(&mut out, judged.iter().copied());
        prop_assert_eq!(decode_answers(&out[limits::HEADER_BYTES..]).unwrap(), judged);
    }

    #[test]
    fn a_problem_arrives_on_one_line(name in option::of(name()), why: String) {
        let mut out = Vec::new();
        problem(&mut out, name.as_ref().map(Name::as_bytes), ProblemKind::LeftOut, &why);
        let Message::Problem(Problem { name: arrived, kind, why }) = decoded(&out).unwrap() else {
            panic!()
        };
        prop_assert_eq!(arrived, name);
        prop_assert_eq!(kind, ProblemKind::LeftOut);
        prop_assert!(!why.chars().any(char::is_control));
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(kind in 0..20_u8, payload in vec(any::<u8>(), 0..600)) {
        let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
        let mut first = [0; limits::HEADER_BYTES];
        first[..4].copy_from_slice(&length);
        first[4] = kind;
        if let Ok(header) = header(first) {
            drop(decode(header.kind, &payload));
            drop(decode_answers(&payload));
            drop(decode_request(&payload));
        }
    }
}

#[test]
fn a_request_arrives_or_is_refused_before_it_is_sent() {
    let request = Request {
        directory: "/mnt/vzsnap0".into(),
        sources: vec![b"./".to_vec(), b"./mnt/point".to_vec()],
        exclude: vec![b"/tmp/?*".to_vec()],
        ask: true,
    };
    let out = encode_request(&request).unwrap();
    let wish = decode_request(&out[limits::HEADER_BYTES..]).unwrap();
    assert_eq!(wish.directory, b"/mnt/vzsnap0");
    let sources: Vec<_> = wish.sources.iter().map(TreePath::as_bytes).collect();
    assert_eq!(sources, [&b""[..], b"mnt/point"]);
    assert_eq!(wish.exclude, request.exclude);
    assert!(wish.ask);
    let with = |change: fn(&mut Request)| {
        let mut request = request.clone();
        change(&mut request);
        encode_request(&request)
    };
    assert!(with(|request| request.sources.clear()).is_err());
    assert!(with(|request| request.sources = vec![b"../x".to_vec()]).is_err());
    assert!(with(|request| request.sources = vec![b"x".to_vec(); 513]).is_err());
    assert!(with(|request| request.exclude = vec![b"[".to_vec()]).is_err());
    assert!(with(|request| request.directory = String::new().into()).is_err());
}

#[test]
fn a_message_that_claims_too_much_is_refused_by_its_first_bytes() {
    for (length, kind) in [(u32::MAX, Kind::Entry), (1, Kind::Leave), (0, Kind::Data)] {
        let [a, b, c, d] = length.to_le_bytes();
        assert!(header([a, b, c, d, kind.number()]).is_err(), "{kind:?}");
    }
    assert!(header([0, 0, 0, 0, 77]).is_err());
}

#[test]
fn a_long_reason_is_cut() {
    let mut out = Vec::new();
    text(&mut out, Kind::Lost, Some(&"\u{e4}".repeat(5000)));
    let Message::Lost(why) = decoded(&out).unwrap() else {
        panic!()
    };
    assert_eq!(why.len(), limits::WHY_BYTES_MAX);
}

#[test]
fn the_longest_entry_fits_into_a_message() {
    let xattr = |number: usize| Xattr {
        name: format!("user.{number:05}").into_bytes(),
        value: vec![1; 200],
    };
    let path = vec!["x".repeat(255); 4096].join("/");
    let link = EntryKind::HardLink {
        to: TreePath::new(path).unwrap(),
    };
    let target = vec![b'x'; 4095];
    // A hard link has no extended attributes.
    for (kind, xattrs) in [(link, 0), (EntryKind::Symlink { target }, 4096)] {
        let entry = Entry {
            attributes: Attributes {
                xattrs: (0..xattrs).map(xattr).collect(),
                ..Attributes::default()
            },
            kind,
        };
        entry.check().unwrap();
        let mut out = Vec::new();
        let telling = Telling {
            name: Some(&[b'n'; 255]),
            entry: Some(&entry),
            witness: None,
            linked: false,
        };
        told(&mut out, Kind::Entry, &telling);
        assert!(matches!(decoded(&out), Ok(Message::Entry(_))));
    }
}
