//! Messages and single calls.

use std::io::Write;

use serde_json::{Value, json};
use snapkeep_api::VmMechanism;

use crate::peer::{Memory, Peer};

fn memory() -> Memory {
    Memory::new(VmMechanism::FileHandle)
}

fn kind(result: Result<Value, (String, String)>) -> String {
    result.unwrap_err().0
}

#[test]
fn the_first_call_is_hello_and_it_comes_once() {
    let mut peer = Peer::new(memory());
    assert_eq!(kind(peer.call("provider_name", json!({}))), "protocol");
    let mut hello = Peer::hello();
    hello["version"] = json!(2);
    assert_eq!(kind(peer.call("hello", hello)), "unsupported");
    let mut hello = Peer::hello();
    hello["settings"] = json!({"bad": 1});
    assert_eq!(kind(peer.call("hello", hello)), "invalid");
    let mut hello = Peer::hello();
    hello["storage"] = json!("../store");
    assert_eq!(kind(peer.call("hello", hello)), "invalid");
    assert_eq!(kind(peer.call("provider_name", json!({}))), "protocol");
    peer.good("hello", Peer::hello());
    assert_eq!(kind(peer.call("hello", Peer::hello())), "protocol");
    assert_eq!(peer.good("provider_name", Value::Null), "memory");
    // The provider is made once, and only now.
    peer.good("provider_name", json!({}));
    assert_eq!(peer.end(), ["provider"]);
}

#[test]
fn an_unknown_call_and_unusable_arguments_are_errors_of_that_call_alone() {
    let mut peer = Peer::greeted(memory());
    assert_eq!(kind(peer.call("backup_tape", json!({}))), "unsupported");
    let bad = json!({"vmid": "1; rm", "vmtype": "qemu", "start_time": 1});
    assert_eq!(kind(peer.call("backup_init", bad)), "invalid");
    assert_eq!(kind(peer.call("job_init", json!([]))), "invalid");
    assert_eq!(peer.good("provider_name", json!({"more": [1]})), "memory");
}

#[test]
fn what_is_no_message_ends_the_conversation() {
    for bad in [
        &b"garbage\n"[..],
        b"\xff\xfe\n",
        b"{\"call\":\"hello\"}\n",
        b"\n",
        b"[1]\n",
    ] {
        let mut peer = Peer::greeted(memory());
        peer.say(bad);
        let error = peer.message().unwrap();
        assert_eq!(error["id"], "");
        assert_eq!(error["error"]["kind"], "protocol");
        assert_eq!(peer.message(), None);
        peer.ended();
    }
}

#[test]
fn a_message_that_is_too_long_ends_the_conversation() {
    let mut peer = Peer::greeted(memory());
    let part = vec![b'x'; 1 << 20];
    // It may hang up before all of it is written.
    let mut socket = peer.socket.try_clone().unwrap();
    let writer = std::thread::spawn(move || (0..17).try_for_each(|_| socket.write_all(&part)));
    let error = peer.message().unwrap();
    assert_eq!(error["error"]["kind"], "protocol");
    peer.ended();
    assert!(writer.join().unwrap().is_err());
}

#[test]
fn a_message_of_nearly_16_mib_arrives() {
    let mut peer = Peer::greeted(memory());
    let long = "x".repeat((16 << 20) - 1000);
    assert_eq!(peer.good("provider_name", json!({"long": long})), "memory");
}

#[test]
fn a_panic_is_an_error_of_its_call() {
    let mut peer = Peer::greeted(memory());
    let (kind, message) = peer
        .call("storage_free", json!({"archive": "a"}))
        .unwrap_err();
    assert_eq!(kind, "panicked");
    assert!(message.contains("at the disco with words"), "{message}");
    assert_eq!(peer.good("provider_name", json!({})), "memory");
}

#[test]
fn calls_of_the_storage_plugin_reach_it() {
    let mut peer = Peer::greeted(memory());
    for (call, args, seen) in [
        ("storage_check", json!({}), "Check"),
        ("storage_create", json!({}), "Create"),
        (
            "storage_list",
            json!({"vmid": null, "vmtype": null}),
            "List { vmid: None, kind: None }",
        ),
        (
            "storage_list",
            json!({"vmid": "7", "vmtype": "lxc"}),
            "List { vmid: Some(7), kind: Some(Lxc) }",
        ),
        (
            "storage_get",
            json!({"archive": "a"}),
            "Get { archive: \"a\" }",
        ),
        (
            "storage_set_notes",
            json!({"archive": "a", "notes": "Zm9v"}),
            "SetNotes { archive: \"a\", notes: [102, 111, 111] }",
        ),
        (
            "storage_set_protected",
            json!({"archive": "a", "protected": 1}),
            "SetProtected { archive: \"a\", protected: true }",
        ),
    ] {
        assert_eq!(peer.good(call, args), seen);
    }
    assert_eq!(
        kind(peer.call("storage_list", json!({"vmtype": "tape"}))),
        "invalid"
    );
    assert_eq!(
        kind(peer.call("storage_set_notes", json!({"archive": "a", "notes": "?"}))),
        "invalid"
    );
    // No provider is made for any of that.
    assert!(peer.end().is_empty());
}
